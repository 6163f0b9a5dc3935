from __future__ import annotations

import json
from pathlib import Path

import pytest

import fusionkit
from fusionkit import cli, registry
from fusionkit.contract.parallel import default_jobs, possible
from fusionkit.contract.subject import subjects_of
from tests.contract.mutants.right import Total
from tests.fake_distributions import Site

QUICK = ["--select", "forward_shape,n_matches_output"]
NAMES = ["summation", "average", "concatenation", "dense", "lowrank"]


def check(path: Path, *argv: str) -> tuple[int, list[dict[str, object]]]:
    status = cli.main(["check", *argv, "--json", str(path)])
    return status, json.loads(path.read_text())["results"]


def test_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    status, parallel = check(tmp_path / "2.json", *NAMES, *QUICK, "--jobs", "2")
    assert status == 0
    assert check(tmp_path / "1.json", *NAMES, *QUICK, "--jobs", "1")[0] == 0
    serial = json.loads((tmp_path / "1.json").read_text())["results"]
    for result in (*parallel, *serial):
        del result["seconds"]
    assert parallel == serial


@pytest.mark.exhaustive
def test_operator_that_ends_the_process(site: Site, tmp_path: Path) -> None:
    (site.folder / "gram_code.py").write_text(
        "import os, fusionkit\n"
        "class Gram(fusionkit.Fusion):\n"
        "    '''``A_1``'''\n"
        "    def calculate_n(self, dims=None): return self.resolve_equal_dims(dims)\n"
        "    def calculate_l(self): return 0\n"
        "    def _fuse(self, x): os._exit(3)\n"
    )
    site.fusions("fusionkit-gram", {"gram": "gram_code:Gram"})
    status, results = check(tmp_path / "r.json", "gram", "summation", "average", *QUICK, "--jobs", "2")
    assert status == 1
    bad = [result for result in results if result["status"] != "passed"]
    assert {(r["subject"], r["status"], r["check"]) for r in bad} == {
        ("fusionkit-gram/gram", "error", "forward_shape"),
        ("fusionkit-gram/gram", "error", "n_matches_output"),
    }
    assert "should not end the process" in str(bad[0]["reason"])
    assert {r["subject"] for r in results} == {"fusionkit-gram/gram", "fusionkit/summation", "fusionkit/average"}


def test_what_only_this_process_knows_is_checked_here() -> None:
    assert possible(subjects_of(NAMES))
    assert not possible(subjects_of([*NAMES, Total]))
    assert not possible(subjects_of([fusionkit.create("summation", dims=[2, 2])]))
    with registry.isolated():
        assert not possible(subjects_of(NAMES))
        assert default_jobs(subjects_of(NAMES)) == 1
    assert default_jobs(subjects_of(NAMES[:2])) == 1


def test_wrong_number_of_workers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "summation", "--jobs", "0"]) == 2
    assert capsys.readouterr().err == "error: --jobs should be at least 1; found 0.\n"
