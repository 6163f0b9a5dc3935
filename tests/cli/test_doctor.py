"""``fusionkit doctor``: each thing that it finds, and that it says how to mend what is wrong."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fusionkit
from fusionkit import cli
from fusionkit.cli import doctor
from tests.fake_distributions import PLUGIN, Site

METADATA = """\
Metadata-Version: 2.1
Name: tensor-fusionkit
Version: 0.1.0
Requires-Dist: torch>=2
Provides-Extra: plot
Requires-Dist: fk-plot>=3; extra == 'plot'
Provides-Extra: bare
"""
BUILTIN = "[fusionkit]\nbuiltin = fusionkit.builtin\n"

Examine = Callable[..., dict[str, Any]]


@pytest.fixture
def place(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, empty, of an installation that is in order and has no plugins."""
    monkeypatch.setenv("FUSIONKIT_PLUGINS", "")
    site.install("tensor-fusionkit", metadata=METADATA, version="0.1.0", entry_points=BUILTIN)
    # One of this machine's own may be there, with the name of before.
    monkeypatch.setattr(doctor, "clashes", lambda: [])
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Examine:
    def call(status: int) -> dict[str, Any]:
        assert cli.main(["doctor", "--json"]) == status
        out, err = capsys.readouterr()
        assert err == ""
        found: dict[str, Any] = json.loads(out)
        assert bool(found["problems"]) == bool(status)
        return found

    return call


def test_all_is_well(place: Path, examined: Examine) -> None:
    found = examined(0)
    assert found["versions"] == {
        "python": ".".join(map(str, sys.version_info[:3])),
        "tensor-fusionkit": "0.1.0",
        "torch": version("torch"),
    }
    assert found["package"] == str(Path(fusionkit.__file__).parent)
    assert found["devices"][0]["device"] == "cpu"
    assert [one["status"] for one in found["plugins"] if one["plugin"] == "builtin"] == ["loaded"]
    assert found["extras"] == [
        {"extra": "plot", "missing": ["fk-plot>=3"], "command": "pip install 'tensor-fusionkit[plot]'"},
        {"extra": "bare", "missing": [], "command": None},
    ]
    assert found["folders"] == [{"folder": str(place / name), "error": None} for name in ("outputs", "multirun")]
    assert list(place.iterdir()) == []


def test_the_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["what", "name", "found", "details"]
    assert ["plugin", "builtin", "loaded", "tensor-fusionkit", "0.1.0"] in [line.split() for line in lines]
    assert any(
        re.fullmatch(r"extra +plot +missing +fk-plot>=3: pip install 'tensor-fusionkit\[plot\]'", x) for x in lines
    )
    assert any(re.fullmatch(rf"folder +outputs +writable +{place}/outputs", line) for line in lines)
    assert lines[-1] == "Nothing has to be mended."


def test_what_has_to_be_mended_comes_last(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "multirun").write_text("")
    assert cli.main(["doctor"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"to mend: runs should be written to {place}/multirun; found Not a directory"


class TestRequirements:
    def test_unmet(self, place: Path, site: Site, examined: Examine) -> None:
        (metadata,) = site.folder.glob("tensor_fusionkit-*/METADATA")
        metadata.write_text(METADATA.replace("torch>=2", "torch>=99\nRequires-Dist: fk-none"))
        found = examined(1)
        torch = version("torch")
        assert found["problems"] == [
            f"torch>=99 should be installed; found {torch}: pip install 'torch>=99'",
            "fk-none should be installed; found none: pip install 'fk-none'",
        ]
        assert found["versions"]["fk-none"] is None

    def test_a_source_tree(self, place: Path, examined: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
        def needs() -> Any:
            raise PackageNotFoundError

        monkeypatch.setattr(doctor, "needs", needs)
        source = Path(fusionkit.__file__).parents[1]
        assert examined(1)["problems"] == [
            f"tensor-fusionkit should be installed; found only its files in {source}/fusionkit: pip install -e {source}"
        ]


class TestPlugins:
    def test_failed_and_incompatible(
        self, place: Path, site: Site, examined: Examine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FUSIONKIT_PLUGINS", "fk-broken,fk-old")
        site.install("fk-broken", "raise ValueError('boom')")
        site.install("fk-old", "", requires=["tensor-fusionkit<0.0.1"])
        assert examined(1)["problems"] == [
            "the plugin 'plugin' of fk-broken 1.0 should load; found it failed: "
            "it cannot be imported: ValueError: boom",
            "the plugin 'plugin' of fk-old 1.0 should load; found it incompatible: "
            "it requires 'tensor-fusionkit<0.0.1'; found fusionkit 0.1.0",
        ]

    def test_a_requirement_of_before_is_a_warning(
        self, place: Path, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FUSIONKIT_PLUGINS", "fk-gram")
        site.install("fk-gram", PLUGIN.format(names={"gram": "a:B"}), requires=["fusionkit>=0.1"])
        assert cli.main(["doctor"]) == 0
        assert "warning: 'plugin' of fk-gram: it requires 'fusionkit>=0.1'" in capsys.readouterr().out

    def test_what_a_plugin_prints_is_no_output(
        self, place: Path, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FUSIONKIT_PLUGINS", "fk-loud")
        site.install("fk-loud", "print('loud')\n" + PLUGIN.format(names={"gram": "a:B"}))
        assert cli.main(["doctor", "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["problems"] == []
        assert err == "loud\n"


class TestDevices:
    @pytest.fixture
    def torch(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """Return a torch with one accelerator of two devices."""
        cards = SimpleNamespace(
            device_count=lambda: 2,
            get_device_properties=lambda index: SimpleNamespace(name=f"Card {index}", total_memory=2**34),
        )
        accelerator = SimpleNamespace(current_accelerator=lambda check_available: SimpleNamespace(type="cuda"))
        torch = SimpleNamespace(accelerator=accelerator, get_device_module=lambda accelerator: cards)
        monkeypatch.setitem(sys.modules, "torch", torch)
        return torch

    def test_of_an_accelerator(self, torch: SimpleNamespace) -> None:
        found, wrong = doctor._devices()
        assert found[1:] == [{"device": f"cuda:{index}", "name": f"Card {index}", "memory": 2**34} for index in (0, 1)]
        assert wrong == []

    def test_without_properties(self, torch: SimpleNamespace) -> None:
        torch.get_device_module = lambda accelerator: SimpleNamespace(device_count=lambda: 1)
        assert doctor._devices()[0][1:] == [{"device": "cuda:0", "name": None, "memory": None}]

    @pytest.mark.parametrize("error", [ImportError("libcudart.so.12"), OSError("libgomp"), RuntimeError("driver")])
    def test_a_torch_that_does_not_work(self, error: Exception, torch: SimpleNamespace) -> None:
        def fail(check_available: bool) -> None:
            raise error

        torch.accelerator.current_accelerator = fail
        found, (problem,) = doctor._devices()
        assert [one["device"] for one in found] == ["cpu"]
        assert problem == f"torch should work; found {type(error).__name__}: {error}"


class TestFolders:
    def test_are_those_of_the_config(self) -> None:
        text = (fusionkit.config.conf_dir() / "config.yaml").read_text()
        assert f"    dir: {doctor.FOLDERS[0]}/" in text
        assert f"    dir: {doctor.FOLDERS[1]}\n" in text

    def test_one_that_exists(self, place: Path, examined: Examine) -> None:
        (place / "outputs").mkdir()
        examined(0)
        assert list((place / "outputs").iterdir()) == []

    def test_the_current_folder_is_gone(self, place: Path, examined: Examine) -> None:
        place.rmdir()
        gone = "No such file or directory"
        assert [one["error"] for one in examined(1)["folders"]] == [gone, gone]


class TestClashes:
    def test_doubled(self, place: Path, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.install("fusionkit", version="0.1.0", entry_points=BUILTIN)
        done = site.command("doctor", cwd=place, FUSIONKIT_PLUGINS="")
        assert done.returncode == 1
        assert done.stdout.count("found fusionkit 0.1.0 beside it, the same under its former name") == 1
        assert done.stdout.splitlines()[-1].endswith(": pip uninstall -y fusionkit")

    def test_foreign(self, place: Path, site: Site) -> None:
        site.install("fusionkit", version="7", entry_points="")
        done = site.command("doctor", "--json", cwd=place, FUSIONKIT_PLUGINS="")
        assert done.returncode == 1
        found = json.loads(done.stdout)
        (clash,) = found["clashes"]
        assert (clash["distribution"], clash["version"], clash["foreign"], clash["beside"]) == (
            "fusionkit",
            "7",
            True,
            True,
        )
        assert found["problems"] == [
            "the name fusionkit should belong to tensor-fusionkit alone; found fusionkit 7 beside it, another project: "
            "pip uninstall -y fusionkit"
        ]
