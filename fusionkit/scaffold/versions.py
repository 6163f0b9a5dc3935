"""Keeps the templates of all versions used so far in a small git repository of the user.

``copier update`` needs the old and the new template as two commits of one repository, but a wheel contains one version
only.  So the first use of a version adds its template as a commit, tagged with the version.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import fusionkit

SHIPPED = Path(__file__).resolve().parent / "template"


@dataclass(frozen=True)
class Template:
    """Where copier finds a template.

    Attributes:
        source: a folder, or a git repository.
        tag: tag of the template in the repository; None for a folder.
        tags: all tags of the repository.
    """

    source: str
    tag: str | None = None
    tags: tuple[str, ...] = ()


def repository() -> Path:
    """Return the folder of the repository, ``$XDG_DATA_HOME/fusionkit/template``."""
    data = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"
    return base / "fusionkit" / "template"


def keep() -> Template | None:
    """Add the shipped template to the repository, if it is new, and return it; None without git or write access."""
    try:
        folder, home = repository(), Path.home()
        folder.mkdir(parents=True, exist_ok=True)
        git = _Git(folder)
        tag = git.commit(SHIPPED, fusionkit.__version__)
        tags = git.tags()
    except (OSError, RuntimeError, subprocess.CalledProcessError):  # RuntimeError: there is no home.
        return None
    # With ~ the answers file of a package also works for other users, and does not contain its author's home.
    source = f"~/{folder.relative_to(home).as_posix()}" if folder.is_relative_to(home) else str(folder)
    return Template(source, tag, tags)


class _Git:
    """The repository.  Its commits depend only on files and version, not on the user's git settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        who = {"NAME": "fusionkit", "EMAIL": "fusionkit@localhost", "DATE": "2000-01-01T00:00:00Z"}
        self.environment = {
            **kept,
            "GIT_DIR": str(folder / ".git"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()},
        }

    def __call__(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def tags(self) -> tuple[str, ...]:
        """Return the tags."""
        return tuple(self("tag", "--list").split())

    def commit(self, files: Path, version: str) -> str:
        """Commit the files, unless they are known, and return the tag: the version, numbered if its files changed."""
        if not (self.folder / ".git").exists():
            self("init", "--quiet", "--template=")
            self("symbolic-ref", "HEAD", "refs/heads/main")
        with tempfile.TemporaryDirectory() as scratch:
            # A temporary index, so that two processes do not disturb each other.
            place = {"GIT_WORK_TREE": str(files), "GIT_INDEX_FILE": str(Path(scratch, "index"))}
            self("-c", "core.autocrlf=false", "-c", "core.fileMode=false", "add", "--all", "--force", ":/", **place)
            tree = self("write-tree", **place)
        known = self.tags()
        separator = "." if "+" in version else "+"
        for i in count():
            tag = f"{version}{separator}{i}" if i else version
            if tag not in known:
                break
            if self("rev-parse", f"{tag}^{{tree}}") == tree:
                return tag
        heads = self("for-each-ref", "--format=%(objectname)", "refs/heads").split()
        parents = [word for head in heads for word in ("-p", head)]
        new = self("commit-tree", tree, *parents, "-m", f"The template of fusionkit {tag}")
        self("update-ref", f"refs/tags/{tag}", new)
        self("update-ref", "refs/heads/main", new)
        # Copier takes files that are missing from the work tree for uncommitted changes.
        self("reset", "--quiet", "--hard")
        return tag
