"""The public names: where they lead, that they are lazy, and that no submodule takes one away."""

from __future__ import annotations

import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fusionkit
from fusionkit.cli.commands import COMMANDS

PUBLIC = [
    "ConfigError",
    "DimsError",
    "Fabrication",
    "Fusion",
    "FusionError",
    "RegistryError",
    "Spec",
    "Traits",
    "check",
    "cost",
    "create",
    "create_fabrication",
    "fabrications",
    "fusions",
    "hookimpl",
    "load",
    "refresh",
]


def python(code: str, *, cwd: Path | None = None, isolated: bool = False) -> str:
    """Return what a fresh interpreter prints for ``code``; isolated from site-packages if so."""
    flags = ["-S"] if isolated else []
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names() -> None:
    assert set(PUBLIC) <= set(fusionkit.__all__)
    assert fusionkit.__all__ == sorted(fusionkit.__all__)
    assert set(fusionkit.__all__) <= set(dir(fusionkit))


def test_every_name_has_one_home() -> None:
    assert set(fusionkit.__all__) == {*fusionkit._HOME, "__version__", "fabrications", "fusions"}


@pytest.mark.parametrize("name", PUBLIC)
def test_name_is_what_it_should_be(name: str) -> None:
    assert callable(getattr(fusionkit, name))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"^module 'fusionkit' has no attribute 'sumation'$"):
        fusionkit.sumation  # noqa: B018


def test_no_submodule_takes_a_public_name_away() -> None:
    before = {name: getattr(fusionkit, name) for name in PUBLIC}
    for module in pkgutil.walk_packages(fusionkit.__path__, "fusionkit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {name: getattr(fusionkit, name) for name in PUBLIC} == before


def test_submodules_first() -> None:
    code = (
        "import fusionkit.fusions.summation, fusionkit.fabrications.dense, fusionkit.registry, fusionkit.fusion; "
        "import fusionkit; print('sum' in fusionkit.fusions(), 'dense' in fusionkit.fabrications(), fusionkit.Fusion)"
    )
    assert python(code) == "False True <class 'fusionkit.core.fusion.Fusion'>"


def test_packages_remain_packages() -> None:
    from fusionkit.fusions.summation import Summation

    assert fusionkit.fusions.summation.Summation is Summation  # type: ignore[attr-defined]
    assert fusionkit.fusions() == fusionkit.registry.fusions()
    assert fusionkit.fabrications() == fusionkit.registry.fabrications()


@pytest.mark.parametrize(
    "statement",
    [
        "import fusionkit",
        "import fusionkit; fusionkit.hookimpl, fusionkit.Spec, fusionkit.DimsError",
        "import fusionkit; fusionkit.fusions(), fusionkit.fabrications(), fusionkit.refresh()",
        "import fusionkit; fusionkit.registry.resolve('fusion', 'sum'), fusionkit.registry.plugins()",
        "import fusionkit; fusionkit.config.conf_dir(), fusionkit.__version__, dir(fusionkit)",
        "from fusionkit import cli; cli.main(['list'])",
    ],
)
def test_neither_torch_nor_hydra(statement: str) -> None:
    heavy = "('torch', 'hydra', 'numpy', 'omegaconf', 'rich')"
    code = f"import sys; {statement}\nprint([name for name in {heavy} if name in sys.modules])"
    assert python(code).splitlines()[-1] == "[]"


HELPS = [*COMMANDS, "conf check", "conf show"]


@pytest.fixture(scope="module")
def helps() -> dict[str, bool]:
    """Return whether torch is there after the help of each command, one after the other in a fresh interpreter."""
    code = f"""
import json, sys
from fusionkit import cli
found = {{}}
for command in {HELPS}:
    cli.main([*command.split(), "--help"])
    found[command] = "torch" in sys.modules
print(json.dumps(found))
"""
    found: dict[str, bool] = json.loads(python(code).splitlines()[-1])
    return found


@pytest.mark.parametrize("command", HELPS)
def test_the_help_of_a_command_needs_no_torch(command: str, helps: dict[str, bool]) -> None:
    assert helps[command] is False


class TestVersion:
    def test_is_that_of_the_distribution(self) -> None:
        assert fusionkit.__version__ == importlib.metadata.version("tensor-fusionkit")

    def copied(self, folder: Path) -> None:
        (folder / "fusionkit" / "_util").mkdir(parents=True)
        for file in ("__init__.py", "_util/__init__.py", "_util/distribution.py"):
            shutil.copy(Path(fusionkit.__file__).parent / file, folder / "fusionkit" / file)

    def test_of_a_source_tree_without_metadata(self, tmp_path: Path) -> None:
        self.copied(tmp_path)
        (tmp_path / "pyproject.toml").write_text('[project]\nversion = "7.8.9"\n')
        assert python("import fusionkit; print(fusionkit.__version__)", cwd=tmp_path, isolated=True) == "7.8.9"

    def test_of_a_bare_folder(self, tmp_path: Path) -> None:
        self.copied(tmp_path)
        assert python("import fusionkit; print(fusionkit.__version__)", cwd=tmp_path, isolated=True) == "0.0.0"


def test_the_core_works_without_metadata(tmp_path: Path) -> None:
    source = Path(fusionkit.__file__).parent
    shutil.copytree(source, tmp_path / "fusionkit", ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    pluggy = Path(importlib.import_module("pluggy").__file__ or "").parent
    shutil.copytree(pluggy, tmp_path / "pluggy", ignore=shutil.ignore_patterns("__pycache__"))
    printed = python("import fusionkit; print('summation' in fusionkit.fusions())", cwd=tmp_path, isolated=True)
    assert printed == "True"
