"""A sweeper that compares its jobs, with the options of Optuna's that matter here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class Direction(Enum):
    """As Optuna's plugin has it."""

    minimize = 1
    maximize = 2


@dataclass
class StudyConfig:
    """The options, with the defaults of Optuna's plugin."""

    _target_: str = "hydra_plugins.study.StudySweeper"
    direction: Any = Direction.minimize
    max_failure_rate: float = 0.0


class StudySweeper(Sweeper):
    """Run each list of overrides as a job; keep the options and what the jobs returned."""

    made: ClassVar[list[StudySweeper]] = []

    def __init__(self, direction: Any, max_failure_rate: float) -> None:
        self.direction, self.max_failure_rate = direction, max_failure_rate
        self.returned: list[Any] = []
        self.made.append(self)

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Prepare the launcher."""
        self.launched = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs of a single swept key, the last one."""
        *others, swept = arguments
        key, _, values = swept.partition("=")
        jobs = [[*others, f"{key}={value}"] for value in values.split(",")]
        self.returned = [job.return_value for job in self.launched.launch(jobs, initial_job_idx=0)]
