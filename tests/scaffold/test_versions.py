"""The repository of templates: one commit per template, the same on every machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import fusionkit
from fusionkit.scaffold import versions
from fusionkit.scaffold.versions import SHIPPED, keep, repository


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(repository()), *arguments], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a template that may be changed."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "copier.yml").write_text("a: 1\n")
    monkeypatch.setattr(versions, "SHIPPED", folder)
    monkeypatch.setattr(fusionkit, "__version__", "0.1.0", raising=False)
    return folder


def test_holds_the_shipped_files() -> None:
    template = keep()
    assert template is not None
    assert template.tag == fusionkit.__version__
    listed = {Path(name) for name in git("ls-tree", "-r", "-z", "--name-only", "HEAD").split("\0") if name}
    assert listed == {path.relative_to(SHIPPED) for path in SHIPPED.rglob("*") if path.is_file()}
    assert git("status", "--porcelain") == ""  # Copier would add a commit of its own otherwise.


def test_one_commit_per_content(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tag() -> str | None:
        template = keep()
        return template.tag if template else None

    assert [tag(), tag()] == ["0.1.0", "0.1.0"]
    (files / "copier.yml").write_text("a: 2\n")
    assert [tag(), tag()] == ["0.1.0+1", "0.1.0+1"]
    monkeypatch.setattr(fusionkit, "__version__", "0.2.0")
    (files / "more").write_text("")
    assert tag() == "0.2.0"
    (files / "more").unlink()
    monkeypatch.setattr(fusionkit, "__version__", "0.1.0")
    assert tag() == "0.1.0+1"
    template = keep()
    assert template is not None
    assert template.tags == ("0.1.0", "0.1.0+1", "0.2.0")
    assert git("log", "--format=%s").splitlines() == [
        f"The template of fusionkit {tag}" for tag in ("0.2.0", "0.1.0+1", "0.1.0")
    ]
    assert git("status", "--porcelain") == ""


def test_commits_do_not_depend_on_the_user(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep()
    first = git("rev-parse", "HEAD")
    config = tmp_path / "config"
    config.write_text("[commit]\n\tgpgSign = true\n[core]\n\tautocrlf = true\n[init]\n\tdefaultBranch = trunk\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "of a hook"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    template = keep()
    assert template is not None
    monkeypatch.delenv("GIT_DIR")
    assert git("rev-parse", "HEAD") == first


def test_in_the_home_folder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative/path"):
        monkeypatch.setenv("XDG_DATA_HOME", unset)
        template = keep()
        assert template is not None
        assert template.source == "~/.local/share/fusionkit/template"


def test_without_git(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert keep() is None


def test_without_a_place(files: Path, data_home: Path) -> None:
    data_home.write_text("a file")
    assert keep() is None
