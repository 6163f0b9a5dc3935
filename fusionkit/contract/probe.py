"""A fresh interpreter in which targets are imported and operators are rebuilt, each in a process of its own.

One server per run imports torch and fusionkit's base classes; where the system can fork, each request runs in a fork
of it, which costs milliseconds.  Elsewhere each request starts an interpreter.  The server ends with the process that
started it.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import threading
from time import perf_counter
from typing import Any

__all__ = ["ask", "close", "imported", "serve", "start", "world"]

FORKS = hasattr(os, "fork")
COMMAND = "import sys; from fusionkit.contract.probe import serve; serve()"

_lock = threading.RLock()
_server: subprocess.Popen[str] | None = None
_answers: dict[str, dict[str, Any]] = {}


# ---------------------------------------------------------------------- in the process that asks


def start() -> None:
    """Start the server, if it is not running, without waiting for it."""
    global _server
    with _lock:
        if _server is not None and _server.poll() is None:
            return
        _end()
        _server = subprocess.Popen(
            [sys.executable, "-c", COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # The package may be on sys.path without being installed.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one request; ``{"error": ...}`` if there is none."""
    with _lock:
        start()
        assert _server is not None
        assert _server.stdin is not None
        assert _server.stdout is not None
        line = ""
        try:
            _server.stdin.write(json.dumps({**request, "path": sys.path, "folder": os.getcwd()}) + "\n")
            _server.stdin.flush()
            line = _server.stdout.readline()
        except OSError:  # It died meanwhile.
            pass
        finally:
            # No answer, or a caller that lost patience: the next one shall not read this one's answer.
            if not line or not FORKS:
                _end()
        return json.loads(line) if line else {"error": "the interpreter ended without an answer"}


def imported(target: str) -> dict[str, Any]:
    """Return what importing ``module:Class`` does; asked once per run."""
    if target not in _answers:
        _answers[target] = ask({"do": "import", "target": target})
    return _answers[target]


def close() -> None:
    """End the server, and forget what it said."""
    _answers.clear()
    _end()


def _end() -> None:
    global _server
    with _lock:
        server, _server = _server, None
        if server is None:
            return
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # What is still buffered has nobody to read it.
                    pipe.close()
        server.terminate()
        server.wait()


atexit.register(close)


# ---------------------------------------------------------------------- in the fresh interpreter


def serve() -> None:
    """Answer requests on the standard input until it ends."""
    answers = os.dup(1)
    os.dup2(2, 1)  # What an operator prints is no answer.
    import torch

    for module in ("fusionkit.fusion", "fusionkit.fabrication", "fusionkit.registry"):
        importlib.import_module(module)
    torch.set_num_threads(1)  # A fork of a process with a thread pool hangs at the first parallel operation.
    for line in sys.stdin:
        request = json.loads(line)
        reply = _in_fork(request) if FORKS else json.dumps(_answer(request))
        os.write(answers, reply.encode() + b"\n")


def _in_fork(request: dict[str, Any]) -> str:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            with open(write, "w", encoding="utf-8") as out:
                out.write(json.dumps(_answer(request)))
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text or json.dumps({"error": "the interpreter ended without an answer"})


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    sys.path[:] = request["path"]
    os.chdir(request["folder"])
    try:
        return ANSWERS[request["do"]](request)
    except BaseException as error:  # SystemExit too.
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _imports(request: dict[str, Any]) -> dict[str, Any]:
    """Import ``module:Class`` alone; say what kind it is, how long it took, and what it changed."""
    from fusionkit.fabrication import Fabrication
    from fusionkit.fusion import Fusion

    module, _, path = request["target"].partition(":")
    sockets: list[str] = []
    sys.addaudithook(lambda event, _: sockets.append(event) if event.startswith("socket.") else None)
    before, start = world(), perf_counter()
    known = module in sys.modules
    found: Any = importlib.import_module(module)
    seconds, after = perf_counter() - start, world()
    for part in path.split("."):
        found = getattr(found, part)
    changed = [name for name in before if before[name] != after[name]]
    bases = (("fusion", Fusion), ("fabrication", Fabrication))
    kinds = [kind for kind, base in bases if isinstance(found, type) and issubclass(found, base)]
    opened = [event for event in sockets if event in ("socket.__new__", "socket.connect", "socket.bind")]
    return {
        "kind": kinds[0] if kinds else None,
        "found": repr(found)[:200],
        "seconds": seconds,
        "changed": changed + ([f"sockets ({', '.join(sorted(set(opened)))})"] if opened else []),
        "known": known,
    }


def world() -> dict[str, object]:
    """Return what neither an import nor a call may change, in comparable form."""
    import random
    import warnings

    import numpy
    import torch

    return {
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the state of torch's generator": torch.get_rng_state().tolist(),
        "the state of NumPy's generator": str(numpy.random.get_state()),
        "the state of Python's generator": random.getstate(),
        "the number of threads": torch.get_num_threads(),
        "the warning filters": [str(filter) for filter in warnings.filters],
        "the environment": dict(os.environ),
        "the current folder": os.getcwd(),
    }


def _lists(request: dict[str, Any]) -> dict[str, Any]:
    """List the registry, and say which of the modules that imported."""
    from fusionkit import registry

    registry.fusions()
    registry.fabrications()
    return {"imported": [module for module in request["modules"] if module in sys.modules]}


def _computes(request: dict[str, Any]) -> dict[str, Any]:
    """Unpickle an operator and its views, and return what it computes."""
    import pickle

    import torch

    op, x = pickle.loads(base64.b64decode(request["pickle"]))
    buffer = io.BytesIO()
    with torch.no_grad():
        torch.save(op(x), buffer)
    return {"output": base64.b64encode(buffer.getvalue()).decode()}


ANSWERS = {"import": _imports, "list": _lists, "compute": _computes}
