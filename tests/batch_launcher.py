"""A launcher that makes a shell script of its options and runs it, as those for clusters do."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

DEFAULT: dict[str, Any] = {
    "_target_": "hydra_plugins.batch.BatchLauncher",
    "setup": None,
    "comment": None,
    "python": "true",
    "additional_parameters": {},
    "pre_dispatch": "2*n_jobs",
}


class BatchLauncher(Launcher):
    __module__ = "hydra_plugins.batch"  # Where Hydra expects launchers.

    def __init__(
        self,
        setup: Sequence[str] | None = None,
        comment: str | None = None,
        python: str = "true",
        additional_parameters: Mapping[str, Any] | None = None,
        pre_dispatch: str = "2*n_jobs",
    ) -> None:
        flags = {"comment": comment, **(additional_parameters or {})}
        lines = [f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in flags.items()]
        self.script = "\n".join([*lines, *(setup or []), f"{python} jobs"])
        self.pre_dispatch = pre_dispatch

    def setup(self, **_: Any) -> None:
        pass

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        eval(self.pre_dispatch.replace("n_jobs", "1"), {})  # joblib did, before it was CVE-2022-21797.
        subprocess.run(["sh", "-c", self.script], check=True, capture_output=True)
        return []
