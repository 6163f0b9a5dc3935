"""The life of a plugin author, with built wheels in fresh environments: the commands of docs/plugins.md as they stand.

An environment holds fusionkit from its wheel, and of what is installed here exactly what fusionkit, the package and a
build require: a missing requirement is found, and nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.environments import PIP, ROOT, Environment, build

PAGE = (ROOT / "docs/plugins.md").read_text(encoding="utf-8").partition("## Ten minutes")[2]
pytestmark = [pytest.mark.exhaustive, pytest.mark.skipif(PIP is None, reason="pip is not installed")]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    dist = tmp_path_factory.mktemp("dist")
    build(ROOT, dist)
    return lambda name: Environment(tmp_path_factory.mktemp(name), f"--no-index --find-links '{dist}'")


def listed(env: Environment) -> dict[str, dict[str, str]]:
    """Return the records of the distributions that are not fusionkit, by name."""
    records = json.loads(env.run("fusionkit list --json"))
    return {record["name"]: record for record in records if record["distribution"] != "tensor-fusionkit"}


def test_the_page_as_it_stands(environment: Callable[[str], Environment]) -> None:
    env = environment("gram")
    commands = re.search(r"```\n(.*?)```", PAGE, re.DOTALL)
    assert commands is not None
    # The page says how fusionkit comes there first; here it does from its wheel.
    output = env.run(f"pip install 'tensor-fusionkit[run,new]'\n{commands[1]}")

    assert env.where("fusionkit").is_relative_to(env.site)
    assert re.search(r"^=+ \d+ passed(, \d+ skipped)? in .* =+$", output, re.MULTILINE)
    assert re.search(r"^fusion +gram +fusionkit-gram 0\.1\.0 +ok +\S.*$", output, re.MULTILINE)
    assert re.search(r"^fusionkit-gram/gram +fusion +\d+ +0 +0 +\d+ +\S+ +ok$", output, re.MULTILINE)
    (result,) = (json.loads(path.read_text()) for path in env.work.glob("fusionkit-gram/outputs/*/*/result.json"))
    assert (result["status"], result["fusion"]) == ("completed", "gram")
    assert result["metrics"]["accuracy"] > 0.8
    assert result["provenance"]["versions"]["fusionkit-gram"] == "0.1.0"

    env.run("cd fusionkit-gram && fusionkit plugins --strict && fusionkit conf check")  # As its CI does.


def test_a_fabrication_from_its_wheel(environment: Callable[[str], Environment]) -> None:
    env = environment("band")
    env.run("pip install 'tensor-fusionkit[run,new]'; fusionkit new fusionkit-band --fabrication band")
    env.run("cd fusionkit-band; python -m hatchling build -t wheel -d ../dist; pip install ../dist/*.whl")
    (env.work / "fusionkit-band/tests").rename(env.work / "tests")  # Away from the sources: the wheel is tested.
    assert env.where("fusionkit_band").is_relative_to(env.site)
    env.run("pytest tests")
    assert listed(env)["band"]["distribution"] == "fusionkit-band"
    env.run("fusionkit check band --tier 1 --json report.json")
    skipped = {
        result["check"]
        for result in json.loads((env.work / "report.json").read_text())["results"]
        if result["status"] == "skipped"
    }
    assert not skipped & {"entry_point_resolves", "config_composes", "config_safe", "config_round_trip"}
    env.run("fusionkit run fabrication=band train.epochs=1 hydra.run.dir=out")
    result = json.loads((env.work / "out/result.json").read_text())
    assert (result["status"], result["fabrication"]) == ("completed", "band")
    assert set(listed(env)) == {"band"}
