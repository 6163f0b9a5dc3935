"""``fusionkit list``, ``show`` and ``plugins``, in this process."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import Any

import pytest

import fusionkit
from fusionkit import cli, registry
from tests.fake_distributions import PLUGIN, Site


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LIST_KEYS = {"kind", "name", "qualified", "distribution", "version", "target", "aliases", "summary", "status"}
PLUGIN_KEYS = {"plugin", "distribution", "version", "status", "error", "fusions", "fabrications", "datasets"}


def run(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    """Run a command, check its status, and return what it prints."""
    capsys.readouterr()
    assert cli.main(argv) == status
    return capsys.readouterr().out


class TestList:
    def test_table(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.fusions("fk-gram", {"gram": "a:B", "sum": "a:B"})
        lines = run(capsys, "list").splitlines()
        assert lines[0].split() == ["kind", "name", "aliases", "distribution", "status", "summary"]
        assert ["fusion", "gram", "fk-gram", "1.0", "ok"] in [line.split() for line in lines]
        assert ["fusion", "fk-gram/sum", "fk-gram", "1.0", "shadowed"] in [line.split() for line in lines]
        assert any(line.startswith("fabrication  lowrank ") for line in lines)

    @pytest.mark.parametrize("columns", [60, 80, 300])
    def test_on_a_terminal_every_line_fits_and_words_stay_whole(
        self, columns: int, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.fusions("fk-gram", {"gram": "a:B", "sum": "a:B"})
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        assert cli.main(["list"]) == 0
        output = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
        assert max(map(len, output.splitlines())) <= columns
        words = set(re.findall(r"[\w/.-]+", output))
        assert words >= {
            "parameterized_concatenation",
            "mean",
            "shadowed",
            "entry",
            "tensor-fusionkit",
            fusionkit.__version__,
            "gram",
        }
        assert ("aliases" in words) == (columns == 300)

    def test_json(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.fusions("fk-gram", {"gram": "a:B"})
        records = json.loads(run(capsys, "list", "--json"))
        about = {"task", "licence", "citation", "origin"}
        assert all(set(record) == LIST_KEYS | (about if record["kind"] == "dataset" else set()) for record in records)
        assert [record["target"] for record in records if record["name"] == "gram"] == ["a:B"]
        assert records == [record.to_dict() for record in registry.records()]

    def test_kind(self, capsys: pytest.CaptureFixture[str]) -> None:
        records = json.loads(run(capsys, "list", "--kind", "fabrication", "--json"))
        assert {record["kind"] for record in records} == {"fabrication"}

    def test_data_sets(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.dataset(licence="CC0")
        lines = [line.split() for line in run(capsys, "list", "--kind", "dataset").splitlines()]
        names = [line[1] for line in lines if line[0] == "dataset"]
        assert {"breast_cancer", "diabetes", "digits", "linnerud", "mfeat", "toy"} <= set(names)
        assert ["dataset", "toy"] in [line[:2] for line in map(str.split, run(capsys, "list").splitlines())]
        (toy,) = [one for one in json.loads(run(capsys, "list", "--kind", "dataset", "--json")) if one["name"] == "toy"]
        assert (toy["target"], toy["licence"], toy["task"]) == ("fk_read:read", "CC0", "classification")
        (plugin,) = [one for one in json.loads(run(capsys, "plugins", "--json")) if one["distribution"] == "fk-data"]
        assert plugin["datasets"] == ["toy"]
        assert "fk_read" not in sys.modules

    def test_a_plugin_that_prints_does_not_spoil_the_output(
        self, site: Site, capsys: pytest.CaptureFixture[str]
    ) -> None:
        site.install("fk-loud", "print('hello from a plugin')")
        assert cli.main(["list", "--json"]) == 0
        output = capsys.readouterr()
        json.loads(output.out)
        assert "hello from a plugin" in output.err

    def test_note_about_what_is_missing(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.install("fk-broken", "raise ValueError('boom')")
        assert cli.main(["list"]) == 0
        assert capsys.readouterr().err == (
            "note: the plugin 'plugin' of fk-broken 1.0 is not loaded: it cannot be imported: ValueError: boom\n"
        )

    def test_no_note_about_what_is_disabled(
        self, site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.install("fk-broken", "raise ValueError")
        monkeypatch.setenv("FUSIONKIT_PLUGINS", "")
        assert cli.main(["list"]) == 0
        assert capsys.readouterr().err == ""

    def test_strict(self, site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        site.install("fk-broken", "raise ValueError('boom')")
        monkeypatch.setenv("FUSIONKIT_STRICT", "1")
        assert cli.main(["list"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: under FUSIONKIT_STRICT=1 every plugin should load; found 'plugin' of fk-broken")


class TestPlugins:
    def test_json(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.fusions("fk-gram", {"gram": "a:B"})
        site.install("fk-broken", "raise ValueError('boom')")
        site.install("fk-old", "", requires=["fusionkit<0.0.1"])
        found = {record["distribution"]: record for record in json.loads(run(capsys, "plugins", "--json"))}
        assert all(set(record) >= PLUGIN_KEYS for record in found.values())
        assert [found[name]["status"] for name in ("tensor-fusionkit", "fk-gram", "fk-broken", "fk-old")] == [
            "loaded",
            "loaded",
            "failed",
            "incompatible",
        ]
        assert found["fk-gram"]["fusions"] == ["gram"]
        assert found["fk-broken"]["error"] == "it cannot be imported: ValueError: boom"
        assert 'raise ValueError("boom")' in found["fk-broken"]["traceback"].replace("'", '"')

    def test_table(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.install("fk-broken", "raise ValueError('boom')", entry="broken")
        site.fusions("fk-thief", {"sum": "a:B"})
        output = run(capsys, "plugins")
        assert output.splitlines()[0].split() == [
            *("plugin", "distribution", "status", "fusions", "fabrications", "datasets", "seconds", "error")
        ]
        (line,) = [line for line in output.splitlines() if line.startswith("broken")]
        assert line.endswith("it cannot be imported: ValueError: boom")
        assert "warning: 'plugin' of fk-thief 1.0: the fusion 'sum' is the core's: this one is 'fk-thief/sum'" in output
        assert "Traceback" not in output

    def test_a_requirement_to_be_renamed(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.install("fk-gram", PLUGIN.format(names={"sum": "a:B"}), requires=["fusionkit>=0.1"])
        output = run(capsys, "plugins")
        assert "'plugin' of fk-gram 1.0: it requires 'fusionkit>=0.1'" in output
        assert "write 'tensor-fusionkit>=0.1'" in output
        assert "the fusion 'sum' is the core's: this one is 'fk-gram/sum'" in output

    def test_traceback(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.install("fk-broken", "raise ValueError('boom')", entry="broken")
        assert "'broken' of fk-broken 1.0:\nTraceback (most recent call last):" in run(capsys, "plugins", "--traceback")

    def test_strict_with_all_loaded(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        run(capsys, "plugins", "--strict")

    @pytest.mark.parametrize(
        "source",
        ["raise ValueError", "import fusionkit\n@fusionkit.hookimpl\ndef fusionkit_fusions(): return {'x': 'a:B'}"],
    )
    def test_strict_with_something_broken(self, source: str, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.install("fk-broken", source)
        run(capsys, "plugins")
        (record,) = [
            record
            for record in json.loads(run(capsys, "plugins", "--strict", "--json", status=1))
            if record["distribution"] == "fk-broken"
        ]
        assert record["status"] == "failed"

    def test_strict_with_something_disabled(
        self, site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.fusions("fk-gram", {"gram": "a:B"})
        monkeypatch.setenv("FUSIONKIT_PLUGINS", "")
        assert " disabled " in run(capsys, "plugins")
        run(capsys, "plugins", "--strict", status=1)

    def test_strict_environment(
        self, site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.install("fk-broken", "raise ValueError('boom')", entry="broken")
        monkeypatch.setenv("FUSIONKIT_STRICT", "1")
        assert "ValueError: boom" in run(capsys, "plugins", status=1)


class TestShow:
    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        argv = ("show", "parameterized_concatenation", "--json", "dims=[76,216]", "n=64")
        found = json.loads(run(capsys, *argv))
        assert set(found) > LIST_KEYS
        assert (found["name"], found["n"], found["l"]) == ("parameterized_concatenation", 64, 18688)

    @pytest.mark.parametrize("name", ["summation", "sum", "fusionkit/summation"])
    def test_page(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "show", name).startswith("name          summation\nkind          fusion\n")

    @pytest.mark.parametrize(
        ("argv", "status", "error"),
        [
            (
                ["sumation"],
                2,
                "the name of a fusion, fabrication or data set should be one that 'fusionkit list' shows",
            ),
            (["sum", "--kind", "fabrication"], 2, "the name of a fabrication should be one that"),
            (
                ["lphm_parameterized_concatenation"],
                2,
                "the name should be that of an operator; found the preset 'lphm_parameterized_concatenation': "
                "fusionkit conf show fusion=lphm_parameterized_concatenation",
            ),
            (["summation", "dims"], 2, "an option should have the form key=value, such as dims=76,216; found 'dims'."),
            (["summation", "dim=[2]"], 2, "summation should get options among"),
            (["summation", "dims=[2,3]"], 2, "summation should get views of equal width; found dims [2, 3]"),
            (
                ["parameterized_concatenation", "dims=76,x", "n=4"],
                2,
                "dims should be a sequence of widths, one per view",
            ),
            (
                ["summation", "dims=4,4", "m=0"],
                2,
                "m, the number of rows, should be an integer of at least 1; found 0.",
            ),
            (
                ["summation", "dims=4,4", "m=x"],
                2,
                "m, the number of rows, should be an integer of at least 1; found 'x'.",
            ),
            (
                ["summation", "dims=[4,4", "n=4"],
                2,
                "options should be plain values; found 'dims=[4,4 n=4' (expected ',' or ']', but got '<stream end>').",
            ),
            (["lowrank", "n=3"], 2, "the size of W should be given, as in n=64 dims=76,216; found n."),
        ],
    )
    def test_mistakes(self, argv: list[str], status: int, error: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["show", *argv]) == status
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("error: ")
        assert error in output.err
        assert output.err.count("\n") == 1

    def test_both_kinds(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.fusions("fk-both", {"dense": "fusionkit.fusions.summation:Summation"})
        assert cli.main(["show", "dense"]) == 2
        assert "should have one kind; found fusion and fabrication: choose one with --kind" in capsys.readouterr().err
        found: dict[str, Any] = json.loads(run(capsys, "show", "dense", "--kind", "fusion", "--json"))
        assert found["distribution"] == "fk-both"

    def test_target_that_cannot_be_imported(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.fusions("fk-broken", {"broken": "fk_nowhere:X"})
        assert cli.main(["show", "broken"]) == 2
        assert capsys.readouterr().err == (
            "error: the fusion 'broken' of fk-broken 1.0 cannot be imported from 'fk_nowhere:X': "
            "ModuleNotFoundError: No module named 'fk_nowhere'.\n"
        )
