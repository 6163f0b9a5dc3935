from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fusionkit import registry
from fusionkit.config import conf_dir
from fusionkit.config import folders as paths
from fusionkit.errors import ConfigError


def test_conf_dir_is_absolute_and_has_the_groups() -> None:
    folder = conf_dir()
    assert folder.is_absolute()
    groups = {"data", "experiment", "fabrication", "fusion", "model", "train"}
    assert groups <= {entry.name for entry in folder.iterdir() if entry.is_dir()}
    assert (folder / "config.yaml").is_file()


def test_conf_dir_prefers_the_folder_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "fusionkit"
    for folder in (package / "conf", package.parent / "conf"):
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("")
    monkeypatch.setattr(paths, "__file__", str(package / "config" / "paths.py"))
    assert paths.conf_dir.__wrapped__() == package / "conf"
    (package / "conf" / "config.yaml").unlink()
    assert paths.conf_dir.__wrapped__() == package.parent / "conf"
    (package.parent / "conf" / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"The configs of fusionkit should .*found no config\.yaml there"):
        paths.conf_dir.__wrapped__()


def test_a_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "paths_probe" / "deep" / "conf"
    folder.mkdir(parents=True)
    for package in (tmp_path / "paths_probe", tmp_path / "paths_probe" / "deep"):
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert paths.folder_of("pkg://paths_probe.deep.conf") == folder
    assert paths.folder_of("pkg://paths_probe/deep/conf") == folder
    monkeypatch.setattr(registry, "conf_paths", lambda: [("probe", "pkg://paths_probe.deep.conf")])
    assert paths.plugin_folders() == [("probe", f"file://{folder}")]
    assert "paths_probe" not in sys.modules


@pytest.mark.parametrize(
    "path", ["pkg://no_such_package.conf", "pkg://json.no_such_folder", "file:///nowhere", "x://y"]
)
def test_what_is_not_there_stays_as_it_is(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.folder_of(path) is None
    monkeypatch.setattr(registry, "conf_paths", lambda: [("probe", path)])
    assert paths.plugin_folders() == [("probe", path)]
