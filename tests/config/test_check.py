from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fusionkit import cli
from fusionkit.config.check import Finding, check_all, report
from tests.exhaustive import exhaustive
from tests.fake_distributions import Site

PLUGIN = """
import fusionkit

@fusionkit.hookimpl
def fusionkit_fusions():
    return {{"gram": "{target}"}}

@fusionkit.hookimpl
def fusionkit_conf():
    return {conf!r}
"""
OPERATOR = '''
import fusionkit

class Gram(fusionkit.Fusion):
    """Gram."""
    def __init__(self, n=None, dims=None, name=None, *, rank: int = 3):
        raise RuntimeError("built")
'''
NODE = """\
_target_: fusionkit.create
_recursive_: false
_convert_: all
name: gram
n: null
dims: ${dims}
rank: 3
"""


def install(site: Site, files: dict[str, str], conf: list[str] | None = None, name: str = "gram-plugin") -> None:
    package = name.replace("-", "_") + "_ext"
    site.install(name, PLUGIN.format(target=f"{package}.op:Gram", conf=conf or [f"pkg://{package}.conf"]), entry=name)
    for path, text in {"op.py": OPERATOR, "__init__.py": "", "conf/__init__.py": "", **files}.items():
        file = site.folder / package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def wrong() -> list[Finding]:
    return [finding for finding in check_all() if finding.status != "ok"]


def test_everything_first_party_is_right_within_the_time() -> None:
    begun = time.process_time()
    findings = list(check_all())
    assert [finding for finding in findings if finding.status != "ok"] == []
    assert time.process_time() - begun < 15
    found = {(finding.group, finding.option) for finding in findings}
    assert {("config", "config"), ("fusion", "average"), ("fabrication", "lowrank"), ("data", "npz")} <= found
    assert ("experiment", "debug") in found
    assert ("fusion/preprocess", "layer_norm") in found


def test_a_right_plugin_is_right_and_is_not_built(site: Site) -> None:
    install(site, {"conf/fusion/gram.yaml": NODE})
    findings = {(finding.group, finding.option): finding for finding in check_all()}
    found = findings["fusion", "gram"]
    assert found.status == "ok"
    assert found.distribution == "gram-plugin"
    assert found.source.endswith("gram.yaml")


def test_an_operator_without_a_file_is_checked_as_generated(site: Site) -> None:
    install(site, {"conf/data/x.yaml": "name: x\ndims: null\ntest_size: 0.2\n"})
    found = next(finding for finding in check_all() if finding.option == "gram")
    assert (found.status, found.source) == ("ok", "generated")


MISTAKES = [
    ("fusion/gram.yaml", NODE.replace("rank: 3", "rank: three"), "fusion.rank should be an integer; found 'three'."),
    ("fusion/gram.yaml", NODE.replace("rank", "rnak"), "There is no key 'fusion.rnak'. Did you mean 'fusion.rank'?"),
    ("fusion/gram.yaml", NODE.replace("name: gram", "name: grma"), "found 'grma'"),
    ("fusion/gram.yaml", NODE.replace("fusionkit.create", "os.system"), "fusion._target_ should be"),
    ("fusion/gram.yaml", NODE + "x: ${oc.env:HOME}\n", "fusion.x should use only plain references"),
    ("fusion/gram.yaml", NODE + "x: !!python/name:os.system\n", "should be plain YAML"),
    ("fusion/gram.yaml", NODE + "x: [\n", "should be plain YAML"),
    ("fusion/gram.yaml", NODE.replace("${dims}", "${dms}"), "Interpolation key 'dms' not found"),
    ("fabrication/mine.yaml", "name: dense\nr: 3\n", "There is no key 'fabrication.r'"),
    ("train/mine.yaml", "epochs: 0\n", "train.epochs should be an integer of at least 1; found 0."),
    ("experiment/mine.yaml", "# @package _global_\ntrain: {epoch: 3}\n", "Did you mean 'train.epochs'?"),
    ("experiment/mine.yaml", "# @package _global_\ndefaults: [override /fusion: garm]\n", "found 'garm'"),
    (
        "experiment/mine.yaml",
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {n: '3,-1'}}}\n",
        "n should be an integer of at least 1; found -1.",
    ),
    (
        "experiment/mine.yaml",
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {fusion: 'average,sumation'}}}\n",
        "There is no fusion 'sumation'. Did you mean 'summation'",
    ),
    (
        "experiment/mine.yaml",
        "# @package _global_\nhydra: {callbacks: {x: {_target_: os.system}}}\n",
        "hydra.callbacks.x._target_ should be allowed",
    ),
]


def test_all_that_is_wrong_is_found_at_once(site: Site) -> None:
    mistakes = {
        Path(path) if path.startswith("fusion") else Path(path).with_stem(f"mine{i}"): (text, message)
        for i, (path, text, message) in reversed(list(enumerate(MISTAKES)))
    }
    install(site, {f"conf/{path}": text for path, (text, _) in mistakes.items()})
    found = {Path(finding.group, f"{finding.option}.yaml"): finding for finding in wrong()}
    assert found.keys() == mistakes.keys()
    for path, (_, message) in mistakes.items():
        assert (found[path].status, found[path].distribution) == ("failed", "gram-plugin")
        assert message in found[path].message


@pytest.mark.exhaustive
@pytest.mark.parametrize(("path", "text", "message"), MISTAKES)
def test_what_is_wrong_is_found(site: Site, path: str, text: str, message: str) -> None:
    install(site, {f"conf/{path}": text})
    (found,) = wrong()
    assert found.status == "failed"
    assert found.distribution == "gram-plugin"
    assert (found.group, found.option) == (path.partition("/")[0], Path(path).stem)
    assert message in found.message
    assert "\n" not in found.message


def test_a_file_behind_anothers_is_shadowed(site: Site) -> None:
    install(site, {"conf/fusion/average.yaml": NODE, "conf/train/x.yaml": "epochs: 3\n"})
    install(site, {"conf/train/x.yaml": "epochs: 3\n"}, name="other-plugin")
    found = wrong()
    shadowed = [finding for finding in found if finding.status == "shadowed"]
    assert [(f.group, f.option) for f in shadowed] == [("fusion", "average"), ("train", "x")]
    assert shadowed[0].distribution == "gram-plugin"
    assert shadowed[0].message.endswith("found that of gram-plugin hidden by tensor-fusionkit's.")


@pytest.mark.parametrize(
    "conf", ["pkg://gram_plugin_ext.cnof", *exhaustive(["pkg://no_such_package.conf", "pkg://gram_plugin_ext.op"])]
)
def test_a_folder_that_is_not_there_is_missing(site: Site, conf: str) -> None:
    install(site, {}, conf=[conf])
    (found,) = wrong()
    assert found.status == "missing"
    assert found.message == f"gram-plugin should have configs in the folder it offers; found none at {conf}."


def test_an_empty_folder_is_missing_too(site: Site) -> None:
    install(site, {"conf/readme.txt": "nothing here"})
    (found,) = wrong()
    assert found.status == "missing"
    assert found.message.startswith("gram-plugin should have configs in the folder it offers; found none at ")


def test_the_command_reports_and_fails(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, {"conf/train/x.yaml": "epochs: 0\n"})
    assert cli.main(["conf", "check"]) == 1
    out = capsys.readouterr().out
    assert "failed    gram-plugin: train/x\n" in out
    assert "          train.epochs should be an integer of at least 1; found 0. train.batch_size should be" in out
    assert out.splitlines()[-1].endswith("1 wrong.")
    assert cli.main(["conf", "check", "--json"]) == 1
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["schema_version"] == 1
    assert found["summary"]["failed"] == 1
    assert {"group", "option", "distribution", "source", "status", "message"} == set(found["results"][0])


def test_report_counts() -> None:
    found = report([Finding("a", "b", "c", "d", "ok"), Finding("a", "b", "c", "d", "missing", "x")])
    assert found["summary"] == {"ok": 1, "failed": 0, "shadowed": 0, "missing": 1}


@pytest.mark.parametrize(
    ("option", "status", "lines"),
    [
        (
            "fusion=parameterized_concatenation",
            0,
            ["n: ${n}  # int | None, default None", "parameter_fabrication: ${fabrication}  # Any, default None"],
        ),
        ("fusion=sum", 0, ["name: summation"]),
        (
            "fabrication=lowrank",
            0,
            ["r: null  # int | None, default None", "# Rank, at most min(n, D); null takes min(8, n, D)."],
        ),
        ("train=default", 0, ["# Peak learning rate.", "lr: 1.0e-2  # a number above 0"]),
        ("fusion/preprocess=layer_norm", 0, ["name: layer_norm"]),
        ("fusion=sumation", 2, ["Did you mean 'summation'"]),
        ("train=defalt", 2, ["train should be one of default; found 'defalt'. Did you mean 'default'?"]),
        ("tarin=default", 2, ["The group should be one of ", "found 'tarin'. Did you mean 'train'?"]),
        ("train", 2, ["train should be one of default; found ''."]),
        ("fusion", 2, ["conf show should get GROUP=NAME, such as fusion=summation; found 'fusion'."]),
    ],
)
def test_show(option: str, status: int, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["conf", "show", option]) == status
    out, err = capsys.readouterr()
    for line in lines:
        assert line in (err if status else out)


def test_show_says_where_a_node_comes_from(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, {"op.py": OPERATOR, "conf/train/x.yaml": "epochs: 3\n"})
    cli.main(["conf", "show", "fusion=gram"])
    assert capsys.readouterr().out.startswith("# generated from the signature\n")
    cli.main(["conf", "show", "train=x"])
    assert (
        capsys.readouterr().out
        == f"# {site.folder}/gram_plugin_ext/conf/train/x.yaml\nepochs: 3  # an integer of at least 1\n"
    )


@pytest.mark.parametrize("argv", [["conf"], ["conf", "chekc"], ["conf", "show"], ["conf", "check", "--jsno"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    assert capsys.readouterr().err.startswith("Usage: fusionkit conf")


@pytest.mark.parametrize("argv", [["conf", "--help"], ["conf", "check", "--help"], ["conf", "show", "--help"]])
def test_help_has_an_example(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    assert "fusionkit conf" in capsys.readouterr().out
