"""The ``fusionkit`` command: help, dispatch, and error messages."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from fusionkit import ConfigError, DimsError, FusionError, RegistryError, Spec, __version__, cli, hookimpl, registry
from fusionkit.cli import commands
from fusionkit.errors import OptionError, Terminated
from tests.fake_distributions import Site


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Sequence[str]]]:
    """Return a function that makes ``fusionkit list`` raise or return something, and keeps what it is called with."""

    def install(outcome: Any) -> list[Sequence[str]]:
        seen: list[Sequence[str]] = []

        @click.command(context_settings={"ignore_unknown_options": True})
        @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
        def list_names(arguments: tuple[str, ...]) -> Any:
            seen.append(list(arguments))
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome() if callable(outcome) else outcome

        monkeypatch.setitem(sys.modules, "fusionkit.cli.catalog", SimpleNamespace(list_names=list_names))
        return seen

    return install


NAMES = list(commands.COMMANDS)


class TestHelp:
    def test_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main([]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("Usage: fusionkit ")

    @pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"]])
    def test_of_the_group(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(argv) == 0
        output = capsys.readouterr()
        assert output.err == ""
        for name in NAMES:
            assert f"\n  {name} " in output.out
        assert "Examples:\n    fusionkit list" in output.out

    @pytest.mark.parametrize("name", [*NAMES, "conf check", "conf show"])
    def test_of_a_command(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main([*name.split(), "--help"]) == 0
        output = capsys.readouterr().out
        assert f"Usage: fusionkit {name}" in output
        assert "\b" not in output
        assert re.search(rf"Examples?:?\n(.*\n)*? +fusionkit {name}", output)

    def test_by_the_command_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["help", "plugins"]) == 0
        assert "fusionkit plugins --strict" in capsys.readouterr().out

    @pytest.mark.parametrize("argv", [["--version"], ["-V"]])
    def test_version(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(argv) == 0
        assert capsys.readouterr().out == f"fusionkit {__version__}\n"

    def test_as_a_module(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "fusionkit", "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"fusionkit {__version__}\n"


class TestDispatch:
    def test_status_and_arguments(self, command: Callable[[Any], list[Sequence[str]]]) -> None:
        seen = command(1)
        assert cli.main(["list", "--json", "a=[1,2]", "-m"]) == 1
        assert seen == [["--json", "a=[1,2]", "-m"]]

    def test_arguments_of_the_process(
        self, command: Callable[[Any], list[Sequence[str]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = command(None)
        monkeypatch.setattr(sys, "argv", ["fusionkit", "list", "x"])
        assert cli.main() == 0
        assert seen == [["x"]]

    @pytest.mark.parametrize("argv", [["--debug", "list", "x"], ["list", "--debug", "x"], ["list", "x", "--debug"]])
    def test_debug_may_be_anywhere(self, argv: list[str], command: Callable[[Any], list[Sequence[str]]]) -> None:
        seen = command(0)
        assert cli.main(argv) == 0
        assert seen == [["x"]]

    @pytest.mark.parametrize("argv", [["lsit"], ["lst"], ["List"], ["help", "lsit"]])
    def test_misspelt(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("Usage: fusionkit ")
        assert error.endswith(f"Error: No such command {argv[-1]!r}. Did you mean 'list'?\n")

    def test_unknown_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["--nothing"]) == 2
        assert "No such option '--nothing'" in capsys.readouterr().err

    def test_wrong_usage_of_a_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["list", "--kind", "fusions"]) == 2
        error = capsys.readouterr().err
        assert "Invalid value for '--kind': 'fusions' is not one of 'fusion', 'fabrication', 'dataset'." in error

    def test_list_starts_quickly(self) -> None:
        slow = {"torch", "hydra", "numpy", "omegaconf", "rich", "pydantic"}
        code = f"import sys\nfrom fusionkit import cli\ncli.main(['list'])\nprint(*{slow} & sys.modules.keys())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == ""


class TestStreams:
    @pytest.mark.parametrize("name", ["stdout", "stderr"])
    def test_what_the_encoding_lacks_is_escaped(
        self, name: str, command: Callable[[Any], list[Sequence[str]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command(lambda: print("A ⊗ é \U0001d54f \udce9", file=getattr(sys, name)))
        buffer = io.BytesIO()
        stream = io.TextIOWrapper(buffer, encoding="ascii", errors="strict" if name == "stdout" else "backslashreplace")
        monkeypatch.setattr(sys, name, stream)
        assert cli.main(["list"]) == 0
        stream.flush()
        assert buffer.getvalue() == b"A \\u2297 \\xe9 \\U0001d54f \\udce9\n"

    def test_json_is_valid_in_every_encoding(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        module = SimpleNamespace(
            __name__="local", fusionkit_fusions=hookimpl(lambda: {"odd": Spec("a:B", summary="A ⊗ é \U0001d54f")})
        )
        buffer = io.BytesIO()
        stream = io.TextIOWrapper(buffer, encoding="ascii")
        monkeypatch.setattr(sys, "stdout", stream)
        with registry.isolated(module):
            assert cli.main(["list", "--json"]) == 0
        stream.flush()
        (record,) = [one for one in json.loads(buffer.getvalue()) if one["name"] == "odd"]
        assert record["summary"] == "A ⊗ é \U0001d54f"

    def test_a_closed_stream(
        self, command: Callable[[Any], list[Sequence[str]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command(lambda: print("x", sys.stdout.isatty(), sys.stderr.isatty()) or 3)
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", None)
        assert cli.main(["list"]) == 3
        assert cli.main(["nothing"]) == 2
        assert sys.stdout is None
        assert sys.stderr is None


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (FusionError("boom"), 1),
            (DimsError("boom"), 1),
            (RegistryError("boom"), 2),
            (ConfigError("boom"), 2),
            (OptionError("boom"), 2),
            (OSError("boom"), 1),
            (RegistryError("two\n  lines"), 2),
        ],
    )
    def test_one_sentence(
        self,
        error: Exception,
        status: int,
        command: Callable[[Any], list[Sequence[str]]],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        command(error)
        assert cli.main(["list"]) == status
        assert capsys.readouterr().err == f"error: {' '.join(str(error).split())}\n"

    def test_missing_file(
        self, command: Callable[[Any], list[Sequence[str]]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        command(Path("/nowhere/x").read_text)
        assert cli.main(["list"]) == 1
        assert capsys.readouterr().err == "error: [Errno 2] No such file or directory: '/nowhere/x'\n"

    def test_interrupted(
        self, command: Callable[[Any], list[Sequence[str]]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        command(KeyboardInterrupt())
        assert cli.main(["list"]) == 130
        assert capsys.readouterr().err == "error: interrupted\n"

    def test_terminated(
        self, command: Callable[[Any], list[Sequence[str]]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        command(Terminated(signal.SIGTERM))
        assert cli.main(["list"]) == 143
        assert capsys.readouterr().err == "error: terminated\n"

    @pytest.mark.parametrize(("module", "extra"), [("sklearn.svm", "run"), ("copier", "new")])
    def test_missing_extra(
        self, module: str, extra: str, command: Callable[[Any], list[Sequence[str]]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        command(ModuleNotFoundError("No module", name=module))
        assert cli.main(["list"]) == 1
        top = module.partition(".")[0]
        assert capsys.readouterr().err == (
            f"error: {top!r} should be installed: pip install 'tensor-fusionkit[{extra}]'; found no such module\n"
        )

    def test_other_missing_modules_are_bugs(self, command: Callable[[Any], list[Sequence[str]]]) -> None:
        command(ModuleNotFoundError("No module", name="fusionkit.nowhere"))
        with pytest.raises(ModuleNotFoundError):
            cli.main(["list"])

    def test_bugs_are_not_hidden(self, command: Callable[[Any], list[Sequence[str]]]) -> None:
        command(TypeError("a bug"))
        with pytest.raises(TypeError):
            cli.main(["list"])

    @pytest.mark.parametrize("error", [RegistryError("boom"), FusionError("boom"), KeyboardInterrupt(), OSError()])
    def test_debug_shows_the_traceback(
        self, error: BaseException, command: Callable[[Any], list[Sequence[str]]]
    ) -> None:
        command(error)
        with pytest.raises(type(error)):
            cli.main(["list", "--debug"])

    @pytest.mark.parametrize(("code", "status"), [(None, 0), (3, 3), (True, 1)])
    def test_exit(self, code: Any, status: int, command: Callable[[Any], list[Sequence[str]]]) -> None:
        command(SystemExit(code))
        assert cli.main(["list"]) == status

    def test_exit_with_a_message(
        self, command: Callable[[Any], list[Sequence[str]]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        command(SystemExit("boom"))
        assert cli.main(["list"]) == 1
        assert capsys.readouterr().err == "boom\n"

    def test_reader_that_leaves(self) -> None:
        code = f"{sys.executable} -m fusionkit list --json | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout.strip() in ("0", "1")  # 0 if all was written before the reader left.

    def test_closed_pipe(self) -> None:
        code = (
            "import os, sys\nfrom fusionkit import cli\n"
            "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
            "status = cli.main(['list'])\nos.write(2, f'status {status}'.encode())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.stderr, done.returncode) == ("status 1", 0)


class TestWarnings:
    def test_deprecated_name_is_one_line(
        self, command: Callable[[Any], list[Sequence[str]]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        sentence = "the fusion 'old' is deprecated: use 'new'."

        def outcome() -> int:
            warnings.warn(sentence, DeprecationWarning, stacklevel=1)
            return 0

        command(outcome)
        before = (warnings.showwarning, list(warnings.filters))
        assert cli.main(["list"]) == 0
        assert capsys.readouterr().err == f"warning: {sentence}\n"
        assert (warnings.showwarning, list(warnings.filters)) == before

    def test_other_filters_are_kept(self, command: Callable[[Any], list[Sequence[str]]]) -> None:
        def outcome() -> int:
            warnings.warn("something else", DeprecationWarning, stacklevel=1)
            return 0

        command(outcome)
        with pytest.raises(DeprecationWarning, match="something else"):
            cli.main(["list"])
