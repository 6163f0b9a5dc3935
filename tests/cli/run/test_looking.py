"""Looking instead of running, and completion."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionkit.experiment.job import Job
from tests.exhaustive import exhaustive


@pytest.mark.parametrize(
    "argv",
    [
        ["--cfg", "job", "-p", "train"],
        *exhaustive(
            [
                ["--cfg", "job"],
                ["--cfg", "job", "--resolve"],
                ["--cfg", "hydra"],
                ["--cfg", "all"],
                ["--info"],
                ["--info", "defaults"],
                ["--help"],
                ["-h"],
                ["--hydra-help"],
                ["--cfg", "job", "data=npz"],
            ]
        ),
    ],
)
def test_looking_writes_nothing(
    argv: list[str], run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    status, out, err = run(*argv)
    assert status == 0
    assert out.strip()
    assert "Traceback" not in err
    assert list(Path.cwd().iterdir()) == []
    assert trained == []


@pytest.mark.exhaustive
def test_the_help_has_examples_and_names_hydras_own(run: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = run("--help")
    assert "fusionkit run -m fabrication=dense,lowrank seed=0,1,2" in out
    assert "--hydra-help" in out
    assert "parameterized_concatenation" in out
    _, out, _ = run("--hydra-help")
    assert "hydra/launcher" in out


def test_looking_at_an_operator_with_a_file_imports_no_torch() -> None:
    script = (
        "import sys\nfrom fusionkit.cli import main\n"
        "assert main(['run', '--cfg', 'job', 'fusion=average', 'fabrication=lowrank', 'n=3']) == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_options_and_overrides_may_come_in_any_order(run: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = run("n=3", "--cfg", "job", "seed=4")
    assert "'n': 3" in out
    assert "seed: 4" in out


COMPLETE = """
import os, sys
from fusionkit.cli import main
for line in sys.argv[1:]:
    os.environ.update(COMP_LINE=line, COMP_POINT=str(len(line)))
    main(["run", "-sc", "query=bash"])
    print("----")
print("torch" in sys.modules)
"""


def test_completion_knows_operators_keys_and_commands() -> None:
    lines = ["run fusion=", "run fusion=av", "run data=d", "run train.ep", "le", "list "]
    command = [sys.executable, "-c", COMPLETE, *(f"fusionkit {line}" for line in lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *answers, torch_imported = (answer.split() for answer in done.stdout.split("----"))
    operators, *rest = answers
    assert {"fusion=average", "fusion=summation"} <= set(operators)
    assert rest == [["fusion=average"], ["data=diabetes", "data=digits"], ["train.epochs="], ["leaderboard"], []]
    assert torch_imported == ["False"]


def test_the_completion_script_asks_the_run_command(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fusionkit"])
    _, out, _ = run("-sc", "install=bash")
    assert "$helper run -sc query=bash" in out
    assert out.rstrip().endswith("hydra_bash_completion fusionkit")


def test_job_survives_a_pickle() -> None:
    import pickle

    job = Job("somewhere")
    assert pickle.loads(pickle.dumps(job)) == job
