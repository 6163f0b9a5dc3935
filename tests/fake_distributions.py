"""Installs distributions that exist only as files: a ``dist-info`` folder and a module in a folder on ``sys.path``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent

PLUGIN = """\
import fusionkit

@fusionkit.hookimpl
def fusionkit_fusions():
    return {names!r}
"""

DATASETS = """\
import fusionkit

@fusionkit.hookimpl
def fusionkit_datasets():
    return {offers}
"""
#: Two views, a label of whole numbers, a given split; data.path names what goes wrong.
READER = """\
import numpy as np
from fusionkit import FusionError

def read(path):
    "Return twelve rows.\\n\\n    Made up."
    rows = np.arange(12.0)
    arrays = {"left": rows[:, None] * [1.0, -1.0], "right": np.sin(rows)[:, None], "label": rows.astype(int)}
    if path is None:
        return {**arrays, "split": np.array(["train"] * 8 + ["test"] * 4)}
    if path.endswith("absent"):
        raise FusionError("toy should be installed: pip install toy; found none.")
    if path.endswith("broken"):
        raise OSError("the disk is gone")
    if path.endswith(".npz"):
        return path
    print("reading")
    found = {"list": [1, 2], "array": rows, "text": {**arrays, "left": "text"}, "none": {**arrays, "left": None}}
    return {**found, "number": {**arrays, 1: rows[:, None]}, "views": {"left": rows[:, None]}}[path.split("/")[-1]]
"""


class Site:
    """A folder that takes fake distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        source: str | None = None,
        *,
        entry: str = "plugin",
        version: str = "1.0",
        requires: Iterable[str] = (),
        metadata: str | None = None,
        entry_points: str | None = None,
    ) -> str:
        """Install ``name`` with one plugin module of the given source, and return the name of the module.

        Args:
            name: of the distribution.
            source: of the module; None writes no module.
            entry: the left side of the entry point.
            version: of the distribution.
            requires: its ``Requires-Dist`` lines.
            metadata: all of METADATA instead; empty writes none.
            entry_points: all of entry_points.txt instead.
        """
        module = name.replace("-", "_")
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        if metadata is None:
            lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
            metadata = "\n".join([*lines, *(f"Requires-Dist: {line}" for line in requires), "", "About it.", ""])
        if metadata:
            (info / "METADATA").write_text(metadata, encoding="utf-8")
        text = f"[fusionkit]\n{entry} = {module}\n" if entry_points is None else entry_points
        (info / "entry_points.txt").write_text(text, encoding="utf-8")
        if source is not None:
            (self.folder / f"{module}.py").write_text(dedent(source), encoding="utf-8")
        return module

    def fusions(self, name: str, names: dict[str, str], *, entry: str = "plugin", version: str = "1.0") -> str:
        """Install a right plugin with these fusions, name -> target."""
        return self.install(name, PLUGIN.format(names=names), entry=entry, version=version)

    def dataset(self, name: str = "toy", distribution: str = "fk-data", **about: object) -> str:
        """Install a plugin with a data set of this name; ``about`` are further fields of its spec."""
        spec = ", ".join(f"{field}={value!r}" for field, value in {"target": "fk_read:read", **about}.items())
        (self.folder / "fk_read.py").write_text(READER, encoding="utf-8")
        return self.install(distribution, DATASETS.format(offers=f"{{{name!r}: fusionkit.DatasetSpec({spec})}}"))

    def command(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``fusionkit ARGUMENTS`` in a fresh interpreter that sees this folder."""
        return self.python("-m", "fusionkit", *arguments, cwd=cwd, **environment)

    def python(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``python ARGUMENTS`` in a fresh interpreter that sees this folder."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FUSIONKIT_")}
        return subprocess.run(
            [sys.executable, *arguments],
            env={**kept, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", **environment},
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
