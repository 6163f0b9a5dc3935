"""Small clusters on this machine, started and ended by a test: Ray with two nodes, SLURM with one."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

#: Of Debian's packages munge, slurmctld, slurmd, slurm-client.
SLURM_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch")

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=tiny Nodes={host} Default=YES MaxTime=10 State=UP
"""

#: SLURM's own needs a database; submitit asks it which jobs have ended.
SACCT = """\
#!/bin/sh
echo 'JobID|State|NodeList'
exec squeue --noheader --array --states=all --format='%i|%T|%N'
"""


@contextmanager
def _program(argv: Sequence[str], log: Path, env: dict[str, str] | None = None) -> Iterator[Callable[[], None]]:
    """Run a program until the context ends; yield a function that raises if the program has ended."""
    with log.open("w") as out:
        # Not in the directory of the test, which a job should find all the same.
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=log.parent)

    def check() -> None:
        if process.poll() is not None:
            raise RuntimeError(f"{argv[0]} should run until the test ends; found its end:\n{log.read_text()}")

    try:
        yield check
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(ready: Callable[[], object], check: Callable[[], None]) -> None:
    """Wait until ``ready``, for as long as the program runs, two minutes at most."""
    deadline = time.monotonic() + 120
    while not ready():
        check()
        if time.monotonic() > deadline:
            raise TimeoutError("A cluster should start within two minutes; found none.")
        time.sleep(0.1)


@contextmanager
def ray_cluster(folder: Path) -> Iterator[str]:
    """Start a head and a worker of one processor each; yield the address of the head.

    Args:
        folder: for their files; its path should be short, because it becomes the path of a socket.
    """
    # Ports that Ray would take by default may be used, by another test too.
    options = ["--block", "--num-cpus=1", "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    options += ["--object-store-memory=78643200", "--dashboard-agent-listen-port=0"]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", *options]
    head = [*start, "--head", f"--port={_free_ports(1)[0]}", "--include-dashboard=false", f"--temp-dir={folder}"]
    address = folder / "ray_current_cluster"
    with _program(head, folder / "head.log") as check:
        _wait(address.exists, check)
        with _program([*start, f"--address={address.read_text()}"], folder / "worker.log") as check_worker:
            _wait(lambda: "Ray runtime started" in (folder / "worker.log").read_text(), check_worker)
            yield address.read_text()


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start SLURM with a node of two processors and the partition ``tiny``; yield the environment of its commands.

    Args:
        folder: for its files; its path should be short, because it becomes the path of a socket.
    """
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    host, user = socket.gethostname().partition(".")[0], subprocess.check_output(["id", "-un"], text=True).strip()
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, ports=_free_ports(2), user=user, folder=folder))
    sacct = folder / "bin" / "sacct"
    sacct.write_text(SACCT)
    sacct.chmod(0o755)
    path = os.pathsep.join([str(sacct.parent), os.environ["PATH"], "/usr/sbin"])
    env = {**os.environ, "SLURM_CONF": str(conf), "PATH": path}
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "daemon.log"}
    munge = ["--foreground", "--force", *(f"--{option}={folder}/munge.{name}" for option, name in files.items())]
    with ExitStack() as stack:

        def start(*argv: str) -> Callable[[], None]:
            program = shutil.which(argv[0], path=path) or argv[0]
            return stack.enter_context(_program([program, *argv[1:]], folder / f"{argv[0]}.log", env))

        _wait((folder / "munge.socket").exists, start("munged", *munge))
        start("slurmctld", "-D", "-c")
        _wait(lambda: "idle" in _output(["sinfo", "--noheader", "--format=%t"], env), start("slurmd", "-D", "-c"))
        yield env


def _free_ports(count: int) -> list[int]:
    """Return free ports below those that the system gives away, which the cluster's own servers take later."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 10_000, 32_768):
        with suppress(OSError), socket.socket() as one:
            one.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("There should be free ports; found none.")


def _output(argv: Sequence[str], env: dict[str, str]) -> str:
    return subprocess.run(argv, env=env, check=False, capture_output=True, text=True).stdout
