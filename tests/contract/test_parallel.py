from __future__ import annotations

import json
from pathlib import Path

import pytest

import fusionkit
from fusionkit import cli, registry
from fusionkit.contract import workers
from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.runner import Plan, default_jobs, several_jobs_possible, stream_in_workers
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


def test_forks_know_what_this_process_knows() -> None:
    if not workers.can_fork():
        pytest.skip("needs a process that can fork")
    subjects = subjects_of([*NAMES, Total, fusionkit.create("summation", dims=[2, 2])])
    assert several_jobs_possible(subjects)
    results = list(stream_in_workers(subjects, Plan.of(select=["l_pure"]), jobs=2))
    assert {result.status for result in results} == {"passed"}
    assert list(dict.fromkeys(result.subject for result in results)) == [subject.id for subject in subjects[:-1]]


@pytest.mark.exhaustive
def test_without_forks_fresh_processes_check_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "can_fork", lambda: False)
    subjects = subjects_of(NAMES)
    assert several_jobs_possible(subjects)
    assert not several_jobs_possible(subjects_of([*NAMES, Total]))
    assert not several_jobs_possible(subjects_of([fusionkit.create("summation", dims=[2, 2])]))
    with registry.isolated():
        assert not several_jobs_possible(subjects_of(NAMES))
        assert default_jobs(subjects_of(NAMES)) == 1
    results = list(stream_in_workers(subjects, Plan.of(select=["l_pure"]), jobs=2))
    assert {result.status for result in results} == {"passed"}
    assert list(dict.fromkeys(result.subject for result in results)) == [subject.id for subject in subjects]


def test_few_subjects_are_not_worth_several_processes() -> None:
    assert default_jobs(subjects_of(NAMES[:2])) == 1


def test_wrong_number_of_workers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "summation", "--jobs", "0"]) == 2
    assert "Invalid value for '-j' / '--jobs'" in capsys.readouterr().err
