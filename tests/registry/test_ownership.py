"""Distributions beside tensor-fusionkit that have its name, its package or a plugin: foreign ones and doubled ones."""

from __future__ import annotations

import json
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from fusionkit.registry import ownership, verify
from fusionkit.registry.ownership import Clash, clashes
from tests.fake_distributions import Site

BUILTIN = "[fusionkit]\nbuiltin = fusionkit.builtin\n"
NONE = "[console_scripts]\n"


def install(site: Site, name: str, *files: str, entry_points: str = BUILTIN, direct: Any = None) -> None:
    """Install a distribution with these files, which exist, in its RECORD, and the source that pip writes down."""
    version = "0.1.0"
    site.install(name, entry_points=entry_points, version=version)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    for file in files:
        path = site.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    lines = [f"{file},," for file in (*files, f"{info}/METADATA", f"{info}/RECORD")]
    (site.folder / info / "RECORD").write_text("\n".join(lines) + "\n")
    if direct is not None:
        (site.folder / info / "direct_url.json").write_text(json.dumps(direct))


def found(site: Site) -> list[Clash]:
    """Return the clashes between the fake distributions; the machine may have others."""
    mine = {path.name.partition("-")[0].replace("_", "-") for path in site.folder.glob("*.dist-info")}
    return [clash for clash in clashes() if clash.distribution in mine]


def test_alone(site: Site) -> None:
    install(site, "tensor-fusionkit", "fusionkit/errors.py")
    install(site, "tensor-fusionkit-fk", "fk_a/plugin.py", entry_points="[fusionkit]\na = fk_a.plugin\n")
    assert found(site) == []


def test_doubled_and_editable(site: Site) -> None:
    """Both have the command, which is gone with the old one."""
    install(
        site, "tensor-fusionkit", "bin/fusionkit", direct={"url": "file:///my%20clone", "dir_info": {"editable": True}}
    )
    install(site, "fusionkit", "bin/fusionkit", "_old.pth")
    (clash,) = found(site)
    assert str(clash) == (
        "the name fusionkit should belong to tensor-fusionkit alone; found fusionkit 0.1.0 beside it, the same under "
        "its former name: pip uninstall -y fusionkit && pip install --force-reinstall --no-deps -e '/my clone'"
    )


@pytest.mark.parametrize(
    ("entry_points", "mend"),
    [
        (BUILTIN, "pip uninstall -y fusionkit && pip install -e /clone"),
        (NONE, "pip uninstall -y fusionkit && pip install tensor-fusionkit"),
    ],
)
def test_in_place_of_the_owner(entry_points: str, mend: str, site: Site) -> None:
    """A clone that was installed before the change of name and then updated; or another project beside sources."""
    install(
        site, "fusionkit", entry_points=entry_points, direct={"url": "file:///clone", "dir_info": {"editable": True}}
    )
    clash = ownership._clash("fusionkit", {"fusionkit": distribution("fusionkit")})
    assert clash is not None
    assert "found fusionkit 0.1.0 in its place, " in str(clash)
    assert clash.mend == mend


def test_doubled_without_common_files(site: Site) -> None:
    install(site, "tensor-fusionkit", "a.pth")
    install(site, "fusionkit", "b.pth")
    (clash,) = found(site)
    assert (clash.foreign, clash.beside, clash.mend) == (False, True, "pip uninstall -y fusionkit")


@pytest.mark.parametrize("name", ["fusionkit", "fusionkit-sidecar"])
def test_foreign_files_in_the_package(name: str, site: Site) -> None:
    install(site, "tensor-fusionkit", "fusionkit/__init__.py")
    install(site, name, "fusionkit/__init__.py", entry_points=NONE)
    (clash,) = found(site)
    assert str(clash) == (
        f"the name fusionkit should belong to tensor-fusionkit alone; found {name} 0.1.0 beside it, another project: "
        f"pip uninstall -y {name} && pip install --force-reinstall --no-deps tensor-fusionkit"
    )


def test_foreign_by_its_name_alone(site: Site) -> None:
    install(site, "tensor-fusionkit", "fusionkit/__init__.py")
    install(site, "fusionkit", "sidecar/__init__.py", entry_points=NONE)
    (clash,) = found(site)
    assert (clash.foreign, clash.mend) == (True, "pip uninstall -y fusionkit")


@pytest.mark.parametrize(
    ("direct", "source"),
    [
        (None, "tensor-fusionkit"),
        ({"url": "file:///dist/a.whl", "archive_info": {}}, "/dist/a.whl"),
        ({"url": "https://b.org/a.whl", "archive_info": {}}, "https://b.org/a.whl"),
        ({"url": "https://b.org/a", "vcs_info": {"vcs": "git"}}, "git+https://b.org/a"),
    ],
)
def test_the_owner_is_installed_again_from_where_it_came(direct: Any, source: str, site: Site) -> None:
    install(site, "tensor-fusionkit", "fusionkit/__init__.py", direct=direct)
    install(site, "fusionkit", "fusionkit/__init__.py")
    (clash,) = found(site)
    assert clash.mend == f"pip uninstall -y fusionkit && pip install --force-reinstall --no-deps {source}"


def test_plugin_under_both_names(site: Site) -> None:
    for name in ("fusionkit-fk", "tensor-fusionkit-fk"):
        install(site, name, "fk_a/plugin.py", entry_points="[fusionkit]\na = fk_a.plugin\n")
    (clash,) = found(site)
    assert str(clash).startswith(
        "the plugin fk_a.plugin should belong to tensor-fusionkit-fk alone; found fusionkit-fk 0.1.0 beside it"
    )
    assert clash.mend.startswith("pip uninstall -y fusionkit-fk && pip install ")
    assert clash.mend.endswith(" tensor-fusionkit-fk")


def test_plugins_that_only_share_a_name(site: Site) -> None:
    for name in ("fusionkit-fk", "tensor-fusionkit-fk"):
        install(site, name, entry_points=f"[fusionkit]\na = {name.replace('-', '_')}.plugin\n")
    assert found(site) == []


def test_a_record_that_is_no_text(site: Site) -> None:
    install(site, "tensor-fusionkit", "fusionkit/__init__.py")
    install(site, "other", entry_points=NONE)
    (site.folder / "other-0.1.0.dist-info/RECORD").write_bytes(b"\xff\xfe")
    assert found(site) == []


def test_said_by_verify_and_not_by_every_start(site: Site, tmp_path: Path) -> None:
    install(site, "tensor-fusionkit", "a.pth")
    install(site, "fusionkit", "b.pth")
    (core,) = [plugin for plugin in verify() if plugin.core]
    assert [warning for warning in core.warnings if "found fusionkit 0.1.0 beside it" in warning]
    for command in (["list"], ["--version"]):
        done = site.command(*command, FUSIONKIT_PLUGINS="")
        assert (done.returncode, done.stderr) == (0, "")
    assert "found fusionkit 0.1.0 beside it" in site.command("plugins", FUSIONKIT_PLUGINS="").stdout
