from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fusionkit import cli

SMALL = ["m=3", "dims=[2,2]", "n=2", "--seconds", "0", "--threads", "1"]


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    file = tmp_path / "b.json"
    assert cli.main(["bench", "dense", "monarch", *SMALL, "--processor-time", "--json", str(file)]) == 0
    assert torch.get_num_threads() == threads
    content = json.loads(file.read_text())
    assert content["schema_version"] == 1
    assert content["machine"]["threads"] == 1
    assert content["machine"]["device"] == "cpu"
    assert content["machine"]["clock"] == "processor"
    assert content["machine"]["torch"] == torch.__version__
    assert [(row["name"], row["mode"]) for row in content["rows"]] == [
        (name, mode) for name in ("dense", "monarch") for mode in ("forward", "forward and backward")
    ]
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:6] == ["name", "m", "dims", "n", "dtype", "mode"]
    assert "x cat+linear" in out[0]
    assert "x tinybig" not in out[0] or content["rows"][0]["library"] is not None
    assert out[1].split()[:3] == ["dense", "3", "2x2"]


def test_options_of_the_operator(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "lowrank", "r=2", *SMALL]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("lowrank r=2  3")


def test_an_interruption_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fusionkit.bench import measure

    real = measure.measure

    def once(case: Any, **options: Any) -> Any:
        if case.backward:
            raise KeyboardInterrupt
        return real(case, **options)

    monkeypatch.setattr(measure, "measure", once)
    file = tmp_path / "b.json"
    assert cli.main(["bench", "dense", *SMALL, "--json", str(file)]) == 130
    assert [row["mode"] for row in json.loads(file.read_text())["rows"]] == ["forward"]
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("arguments", [["dense", *SMALL], ["--quick"]])
def test_a_picture_of_one_number_of_rows_is_refused_before_anything_is_measured(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fusionkit.bench import measure

    monkeypatch.setattr(measure, "measure", None)
    file = tmp_path / "x.png"
    assert cli.main(["bench", *arguments, "--plot", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"error: {file} should show an operator at several numbers of rows; found one. Give several, as in "
        "m=16,256,4096, or leave out --quick and m.\n"
    )
    assert not file.exists()


def test_a_picture_of_given_numbers_of_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.png"
    assert cli.main(["bench", "dense", "m=1,3", *SMALL[1:], "--plot", str(file)]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["m", "1", "1", "3", "3"]
    assert file.stat().st_size > 1000


@pytest.mark.parametrize(("spread", "warned"), [(1.5, False), (1.6, True)])
def test_times_that_vary_are_reported(
    spread: float, warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from fusionkit.bench import measure

    real = measure.measure

    def restless(case: Any, **options: Any) -> Any:
        row = real(case, **options)
        assert row is not None
        return replace(row, spread=spread if case.backward else 1.0)

    monkeypatch.setattr(measure, "measure", restless)
    assert cli.main(["bench", "dense", *SMALL]) == 0
    warning = (
        "warning: in 1 of 2 rows the quartiles of the times differ by more than 50%, because of other work on the "
        "machine; --threads 1 --processor-time excludes that\n"
    )
    assert capsys.readouterr().err == (warning if warned else "")


def test_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusionkit.bench import cases

    monkeypatch.setattr(cases, "EQUAL", [cases.Size(m, (2, 2), 2) for m in (1, 3)])
    file = tmp_path / "b.png"
    assert cli.main(["bench", "summation", "--seconds", "0", "--threads", "1", "--plot", str(file)]) == 0
    assert file.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["lowrank", "r=x", *SMALL], 2, "r, the rank of lowrank, should be an integer of at least 1; found 'x'."),
        (["denze"], 2, "Did you mean 'dense'?"),
        (["lowrank", "rr=3", *SMALL], 2, "lowrank should get options among r; found 'rr'. Did you mean 'r'?"),
        (["lowrank", "r=3", *SMALL], 2, "r, the rank of lowrank, should be from 1 to min(n, D) = 2"),
        (["r=3"], 2, "options should follow the name of an operator; found r alone."),
        (["dense", "--json", "nowhere/b.json"], 2, "nowhere/b.json should be a file in a folder that exists"),
        (["dense", "--json", "."], 2, ". should be a file to write to; found a folder."),
        (["dense", "--device", "cpux"], 2, "device should be one of this machine: cpu"),
        (["dense", "--device", "meta"], 2, "--device should be one that computes, such as cpu or cuda; found 'meta'."),
        (["dense", "--seconds", "x"], 2, "Invalid value for '--seconds': 'x' is not a valid float range."),
        (["dense", "--processor-time"], 2, "--processor-time should be used with --threads 1 on the cpu; found"),
        (["dense", "--threads", "0"], 2, "Invalid value for '--threads': 0 is not in the range x>=1."),
        (["summation", "dims=[2,3]"], 2, "summation should take views of the measured widths; found none that fit."),
        (["dense", "m=0"], 2, "m, the number of rows, should be an integer of at least 1; found 0."),
        (["dense", "m=1,0"], 2, "m, the number of rows, should be an integer of at least 1; found 0."),
        (["dense", "m=[]"], 2, "m, the number of rows, should be an integer of at least 1; found []."),
        (["dense", "dims=3"], 2, "dims should be a sequence of widths, one per view; found 3."),
        (["dense", "dtype=float3", *SMALL], 2, "dtype should be one of float32"),
    ],
)
def test_bad_input(
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *arguments]) == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
