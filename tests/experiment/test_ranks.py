"""Runs in processes that torchrun or SLURM started."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from fusionkit import cli
from fusionkit.cli import run as cli_run
from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError
from fusionkit.experiment import ranks, results
from fusionkit.experiment.leaderboard import read_board
from tests.messages import like

Start = Callable[..., "subprocess.Popen[str]"]

#: The seconds in which the others end when one process was killed.
LIMIT = 30
RUN = [sys.executable, "-m", "fusionkit", "run"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.fixture(autouse=True)
def _place(empty_directory: None) -> None:
    pass


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a command; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: list[str], **variables: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in variables.items()}}
        with Path(f"log-{len(started)}").open("w") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def log(number: int = 0) -> str:
    return Path(f"log-{number}").read_text()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait for a file, such as a checkpoint, that a process writes."""
    wait_until(lambda: bool(list(path.parent.glob(path.name))), process)


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for what a process does."""
    while not true():
        assert process.poll() is None, log()
        time.sleep(0.05)


def reached(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def folder(arrays: dict[str, Any]) -> list[str]:
    """Write arrays to a folder; return the options of a run on it, whose views stay in their files."""
    Path("arrays").mkdir()
    for name, array in arrays.items():
        np.save(f"arrays/{name}.npy", array)
    return ["data=folder", "data.path=arrays", "data.memory_gb=1e-9", "train.batch_size=16", "n=5"]


def single(options: list[str], name: str = "one") -> dict[str, Any]:
    assert cli.main(["run", *options, f"hydra.run.dir={name}"]) == 0
    return results.read_result(Path(name, results.RESULT))


def agree(name: str, one: dict[str, Any], rows: int = 1) -> None:
    """Compare a run with that of one process, in ``one``: up to rounding, and so many rows of the test part."""
    found = results.read_result(Path(name, results.RESULT))
    assert found["history"]["loss"] == pytest.approx(one["history"]["loss"], rel=1e-4)
    assert found["history"]["lr"] == one["history"]["lr"]
    count = one["data"]["test_rows"]
    assert abs(found["metrics"]["accuracy"] - one["metrics"]["accuracy"]) * count < rows + 0.5
    tensors, wanted = (load_file(Path(run, results.MODEL)) for run in (name, "one"))
    assert tensors.keys() == wanted.keys()
    for key, tensor in tensors.items():
        np.testing.assert_allclose(tensor, wanted[key], rtol=1e-2, atol=1e-3)
    files = {path.name for path in Path("one").iterdir()}
    assert {path.name for path in Path(name).iterdir()} == files


def pid_of(rank: int) -> int:
    """Return the process of a rank that works in the current directory."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            here, variables = (path / "cwd").samefile("."), (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if here and f"RANK={rank}".encode() in variables:
            return int(path.name)
    raise AssertionError(f"no process has the rank {rank}")


def test_torchrun_trains_as_one_process(start: Start) -> None:
    options = ["train.epochs=2", "data.validation_size=0.2", "train.refit=true"]
    one = single(options)
    command = [*TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "fusionkit", "run"]
    process = start([*command, *options, "hydra.run.dir=two"])
    assert process.wait(300) == 0, log()
    agree("two", one)
    assert len(re.findall(r"^seconds  ", log(), re.MULTILINE)) == 1  # One process prints.
    assert log().count("epoch 1/2 ") == 1


@pytest.mark.exhaustive
def test_a_mistake_is_said_once(start: Start) -> None:
    command = [*TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "fusionkit", "run"]
    assert start([*command, "train.epohs=2"]).wait(300) == 1
    assert re.findall("^error: .*", log(), re.MULTILINE) == [
        "error: There is no key 'train.epohs'. Did you mean 'train.epochs'?"
    ]


@pytest.mark.exhaustive
def test_a_torchrun_of_one_process_starts_others(start: Start, arrays: dict[str, Any]) -> None:
    options = [*folder(arrays), "train.epochs=2", "train.devices=2"]
    one = single(options)
    process = start([*TORCHRUN, "--standalone", "-m", "fusionkit", "run", *options, "hydra.run.dir=two"])
    assert process.wait(120) == 0, log()
    agree("two", one)


@pytest.mark.exhaustive
@pytest.mark.parametrize("strategy", ["fsdp", "by_output"])
def test_a_killed_process_of_srun_ends_the_run_which_goes_on_in_one(
    start: Start, arrays: dict[str, Any], strategy: str
) -> None:
    options = [*folder(arrays), "train.epochs=300", "train.checkpoint_every=1", f"train.strategy={strategy}"]
    one = single(options)
    names = {"SLURM_JOB_ID": 1, "SLURM_STEP_ID": 0, "SLURM_JOB_NAME": "run", "SLURM_NTASKS": 2}
    names |= {"SLURM_NTASKS_PER_NODE": 2, "SLURM_NNODES": 1, "SLURM_NODEID": 0}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    first, second = (
        start([*RUN, *options, "hydra.run.dir=two"], **names, SLURM_PROCID=rank, SLURM_LOCALID=rank)
        for rank in range(2)
    )
    wait_for(Path("two/checkpoint-*"), first)
    second.kill()
    assert first.wait(LIMIT) == 1
    record = results.read_result(Path("two", results.RESULT))
    assert (record["status"], record["error"]) == (
        "failed",
        "All 2 processes should train to the end; found rank 1 lost.",
    )
    assert "Traceback" not in log()
    assert cli.main(["run", "--resume", "two"]) == 0
    agree("two", one)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("to", "error"),
    [
        ("all", "The run should come to its end; found an end by SIGTERM."),
        ("second", "All 2 processes should train to the end; found in rank 1: an end by SIGTERM"),
    ],
)
def test_the_processes_are_told_to_end(start: Start, arrays: dict[str, Any], to: str, error: str) -> None:
    options = [*folder(arrays), "train.epochs=100000", "train.checkpoint_every=10"]
    command = [*TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "fusionkit", "run"]
    process = start([*command, *options, "hydra.run.dir=two"])
    wait_for(Path("two/checkpoint-*"), process)
    if to == "all":
        process.send_signal(signal.SIGTERM)  # torchrun sends it on.
    else:
        os.kill(pid_of(1), signal.SIGTERM)
    assert process.wait(LIMIT) != 0
    record = results.read_result(Path("two", results.RESULT))
    assert (record["status"], record["error"]) == ("failed", error)
    assert not re.search("^error: .* lost", log(), re.MULTILINE)


@pytest.mark.exhaustive
def test_the_first_process_is_lost(start: Start, arrays: dict[str, Any]) -> None:
    options = [*folder(arrays), "train.epochs=100000", "train.checkpoint_every=10"]
    command = [*TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "fusionkit", "run"]
    process = start([*command, *options, "hydra.run.dir=two"])
    wait_for(Path("two/checkpoint-*"), process)
    os.kill(pid_of(0), signal.SIGKILL)
    assert process.wait(LIMIT) == 1
    assert log().count("error: Rank 0, which writes the result, should stay to the end; found it lost.") == 1
    assert not Path("two", results.RESULT).exists()
    assert [path.name for path in read_board(Path()).unfinished] == ["two"]


def two_machines(start: Start, options: list[str], *prefixes: list[str], address: str, **variables: Any) -> Any:
    """Start two torchruns of a process each."""
    port = free_port()
    common = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", address, "--master-port", str(port)]
    program = ["-m", "fusionkit", "run", *options, "hydra.run.dir=two"]
    return [
        start([*prefix, *TORCHRUN, *common, "--node-rank", str(rank), *program], **variables)
        for rank, prefix in enumerate(prefixes)
    ]


@pytest.mark.exhaustive
def test_a_killed_torchrun_with_its_processes_ends_the_run_of_the_other(start: Start, arrays: dict[str, Any]) -> None:
    options = [*folder(arrays), "train.epochs=100000", "train.checkpoint_every=10"]
    first, second = two_machines(start, options, [], [], address="127.0.0.1")
    wait_for(Path("two/checkpoint-*"), first)
    worker = pid_of(1)
    os.killpg(second.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    assert first.wait(LIMIT) == 1
    assert log().count("error: All 2 processes should train to the end; found rank 1 lost.") == 1
    assert results.read_result(Path("two", results.RESULT))["status"] == "failed"


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Return two network namespaces that a pair of interfaces connects: 10.77.0.1 and 10.77.0.2."""
    if shutil.which("ip") is None:
        pytest.skip("there is no command ip")
    names = (f"fusionkit-{os.getpid()}-0", f"fusionkit-{os.getpid()}-1")
    pair = (f"fk{os.getpid()}a", f"fk{os.getpid()}b")
    commands = [f"ip netns add {name}" for name in names]
    commands += [f"ip link add {pair[0]} type veth peer name {pair[1]}"]
    for i, (name, link) in enumerate(zip(names, pair, strict=True)):
        inside = f"ip -n {name}"
        commands += [f"ip link set {link} netns {name}", f"{inside} link set {link} name veth"]
        commands += [f"{inside} addr add 10.77.0.{i + 1}/24 dev veth"]
        commands += [f"{inside} link set veth up", f"{inside} link set lo up"]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"this machine allows no network namespaces: {command}: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.mark.exhaustive
def test_two_machines(start: Start, arrays: dict[str, Any], namespaces: tuple[str, str]) -> None:
    options = [*folder(arrays), "train.epochs=20"]
    one = single(options)
    inside = [["ip", "netns", "exec", name] for name in namespaces]
    both = two_machines(start, options, *inside, address="10.77.0.1", GLOO_SOCKET_IFNAME="veth")
    assert [process.wait(300) for process in both] == [0, 0], log() + log(1)
    agree("two", one)
    assert [line for line in log(1).splitlines() if not line.startswith("[W")] == []  # torch's own warnings.


# -- options -----------------------------------------------------------------------------------------------------------


def options(**given: Any) -> TrainOptions:
    return TrainOptions(epochs=1, batch_size=8, lr=0.1, **given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"devices": 3}, "train.devices should be 4, as the processes were started, or not be given; found 3."),
        ({"num_nodes": 3}, "train.num_nodes should be 2, as the processes were started, or not be given; found 3."),
    ],
)
def test_options_that_do_not_fit(given: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_team", SimpleNamespace(local_size=4, nodes=2))
    with pytest.raises(ConfigError, match=like(sentence)):
        ranks.check(options(**given))


@pytest.mark.parametrize("command", [["train.epochs=1"], ["--from", "one"], ["--resume", "one"]])
def test_machines_with_different_numbers_of_processes(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped: list[bool] = []
    team = SimpleNamespace(rank=0, even=False, stop=lambda: stopped.append(True))
    monkeypatch.setattr(ranks, "launcher", lambda: SimpleNamespace(world_size=lambda: 3))
    monkeypatch.setattr(ranks, "Team", lambda environment: team)
    assert cli.main(["run", *command]) == 2
    assert "The launcher should start as many processes on each machine" in capsys.readouterr().err
    assert stopped == [True]
    assert not Path("outputs").exists()


@pytest.mark.parametrize("launcher", [{"TORCHELASTIC_RUN_ID": "x"}, {"SLURM_STEP_ID": "0"}])
@pytest.mark.parametrize("option", ["--epohs=2", "--cfg=all"])
def test_a_mistake_in_the_options_is_said_by_the_first_process(
    launcher: dict[str, str], option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_run, "_PATIENCE", 0.0)
    for rank, status in (("0", 2), ("1", 1)):
        for name, value in {**launcher, "RANK": rank, "SLURM_PROCID": rank}.items():
            monkeypatch.setenv(name, value)
        assert cli.main(["run", option, "--multirun"]) == status
        assert bool(capsys.readouterr().err) == (rank == "0")


@pytest.mark.exhaustive
@pytest.mark.parametrize("rank", [0, 1])
def test_the_wait_for_a_process_that_does_not_come_can_be_interrupted(start: Start, rank: int) -> None:
    names = {"SLURM_JOB_ID": 1, "SLURM_STEP_ID": 0, "SLURM_JOB_NAME": "run", "SLURM_NTASKS": 2}
    names |= {"SLURM_NTASKS_PER_NODE": 2, "SLURM_NNODES": 1, "SLURM_NODEID": 0, "SLURM_LOCALID": rank}
    port = free_port()
    process = start(RUN, **names, SLURM_PROCID=rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    if rank:
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(120)
            server.accept()[0].close()  # From then on there is no first process.
    else:
        wait_until(lambda: reached(port), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 128 + signal.SIGTERM
    assert "Traceback" not in log()


@pytest.mark.parametrize("given", [{}, {"devices": 4}, {"devices": "auto", "num_nodes": 2}])
def test_options_that_fit(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_team", SimpleNamespace(local_size=4, nodes=2))
    ranks.check(options(**given))


def test_more_machines_than_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "train.num_nodes=2"]) == 2
    assert re.search(
        "train.num_nodes should be 1 in a plain run; found 2..*torchrun --nnodes 2 ", capsys.readouterr().err
    )
    assert not Path("outputs").exists()


def test_a_sweep_is_started_by_one_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ranks, "_team", SimpleNamespace(size=2))
    assert cli.main(["run", "-m", "seed=0,1"]) == 2
    assert "A sweep should be started by one process" in capsys.readouterr().err


def test_srun_has_to_say_how_many_processes_a_machine_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "run", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["run", "train.epochs=1"]) == 2
    assert "srun should be given --ntasks-per-node" in capsys.readouterr().err


@pytest.mark.parametrize("started", [{"SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}, {"SLURM_NTASKS": "2"}])
def test_one_task_of_srun_and_a_script_of_sbatch_are_plain_runs(
    started: dict[str, str], monkeypatch: pytest.MonkeyPatch, arrays: dict[str, Any]
) -> None:
    for name, value in {**started, "SLURM_JOB_NAME": "run", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    record = single([*folder(arrays), "train.epochs=1"])
    assert json.dumps(record["config"]["train"]["num_nodes"]) == "1"
