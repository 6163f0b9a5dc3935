"""What pip installs under the name tensor-fusionkit, beside other distributions called fusionkit.

The environments are fresh, and pip has a local index with the wheel of this project and the decoy of another one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import fusionkit
from tests.environments import PIP, ROOT, Environment, build

pytestmark = [pytest.mark.exhaustive, pytest.mark.skipif(PIP is None, reason="pip is not installed")]

PREVIOUS = ROOT / "tests/data/previous"
DECOY = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "fusionkit"
version = "99"
[tool.hatch.build.targets.wheel]
packages = ["fusionkit"]
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an index that has tensor-fusionkit, and fusionkit of another project."""
    folder = tmp_path_factory.mktemp("index")
    decoy = tmp_path_factory.mktemp("decoy")
    (decoy / "fusionkit").mkdir()
    (decoy / "fusionkit/__init__.py").write_text("FOREIGN = True\n")
    (decoy / "pyproject.toml").write_text(DECOY)
    for name, source in (("tensor-fusionkit", ROOT), ("fusionkit", decoy)):
        build(source, folder / name)
        (wheel,) = (folder / name).glob("*.whl")
        (folder / name / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return folder


@pytest.fixture
def env(index: Path, tmp_path: Path) -> Environment:
    """Return an environment with tensor-fusionkit from the index."""
    env = Environment(tmp_path, f"--index-url 'file://{index}'")
    env.run("pip install 'tensor-fusionkit[run,new]'")
    assert env.where("fusionkit").is_relative_to(env.site)
    return env


def installed(env: Environment) -> dict[str, str]:
    """Return the versions of the distributions in the environment's own folder, by name."""
    found = json.loads(env.run("python -m pip list --format json --disable-pip-version-check --path " + str(env.site)))
    return {one["name"]: one["version"] for one in found}


def mend(env: Environment) -> None:
    """Run the command with which doctor ends its sentence, and ask it again."""
    (problem,) = json.loads(env.run("fusionkit doctor --json", status=1))["problems"]
    command = problem[problem.index("pip uninstall") :]
    assert command.startswith("pip uninstall -y fusionkit && pip install --force-reinstall --no-deps ")
    env.run(command.replace("pip uninstall", "python -m pip uninstall"))
    assert "fusionkit" not in installed(env)
    assert env.run("fusionkit doctor").splitlines()[-1] == "Nothing has to be mended."


def test_a_new_package_fetches_nothing_foreign(env: Environment) -> None:
    env.run("fusionkit new fusionkit-gram --fusion gram; pip install ./fusionkit-gram")
    assert {name for name in installed(env) if "fusionkit" in name} == {"tensor-fusionkit", "fusionkit-gram"}
    assert "fusion       gram " in env.run("fusionkit list")
    env.run("fusionkit plugins --strict; fusionkit doctor")
    # A requirement by the name of before is the way to the decoy.
    env.run("sed -i s/tensor-fusionkit/fusionkit/ fusionkit-gram/pyproject.toml; pip install ./fusionkit-gram")
    assert installed(env)["fusionkit"] == "99"


def test_a_foreign_one_is_explained_and_mended(env: Environment) -> None:
    env.run("pip install fusionkit; python -c 'import fusionkit; fusionkit.FOREIGN'")
    table = env.run("fusionkit doctor", status=1)
    assert "found fusionkit 99 beside it, another project: pip uninstall -y fusionkit && pip install " in table
    mend(env)


def test_a_doubled_one_is_explained_counts_once_and_is_mended(env: Environment, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in ("fusionkit", "conf"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, clone)
    text = (ROOT / "pyproject.toml").read_text().replace('name = "tensor-fusionkit"', 'name = "fusionkit"')
    (clone / "pyproject.toml").write_text(text)
    before = env.run("fusionkit list")
    env.run(f"pip install --no-deps -e '{clone}'")
    assert set(installed(env)) >= {"fusionkit", "tensor-fusionkit"}
    assert env.run("fusionkit list") == before
    plugins = json.loads(env.run("fusionkit plugins --json"))
    assert [one["distribution"] for one in plugins] == ["tensor-fusionkit"]
    env.run("pytest --markers")  # pytest's plugin is named twice, too.
    beside = "beside it, the same under its former name: pip uninstall -y fusionkit && "
    explained = f"found fusionkit {fusionkit.__version__} {beside}"
    assert explained in env.run("fusionkit plugins")
    assert explained in env.run("fusionkit doctor", status=1)
    mend(env)


def test_a_run_directory_and_a_plugin_of_before(env: Environment) -> None:
    shutil.copytree(PREVIOUS / "plugin", env.work / "gram")
    shutil.copytree(PREVIOUS / "run", env.work / "run")
    env.run("pip install --no-deps ./gram")
    warning = "it requires 'fusionkit>=0.1', which pip takes for another project: write 'tensor-fusionkit>=0.1'"
    assert warning in env.run("fusionkit plugins --strict")
    assert warning in env.run("fusionkit doctor")
    assert "fusion       gram " in env.run("fusionkit list")
    env.run("fusionkit check tensor-fusionkit-gram/gram --tier 1")
    env.run("fusionkit run fusion=gram model.encoder=linear n=4 train.epochs=1")
    env.run("python -c 'import fusionkit; fusionkit.load(\"run\")'; fusionkit leaderboard .")
