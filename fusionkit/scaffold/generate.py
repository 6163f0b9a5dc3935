"""Writes a new package from the template, completely or not at all, and updates a package to a newer template."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from fusionkit._util.distribution import install_command
from fusionkit.errors import ConfigError
from fusionkit.registry.discovery import renamed
from fusionkit.scaffold import versions
from fusionkit.scaffold.answers import Answers

ANSWERS = ".copier-answers.yml"
#: Options of copier: ask nothing, print nothing.
OPTIONS = {"defaults": True, "overwrite": True, "quiet": True}


def new(target: Path, answers: Answers) -> bool:
    """Write a package into ``target``, a new or empty directory (``.git`` does not count).

    Returns:
        Whether the package can be updated to later templates.

    Raises:
        ConfigError: ``target`` is not empty or cannot be written, or copier is not installed.  Nothing is written then.
    """
    if os.path.lexists(target) and not target.is_dir():
        raise ConfigError(f"DIR should be a new or an empty directory; found the file {target}.")
    copier = _copier()
    with _copier_errors(target, copier):
        found = sorted(entry.name for entry in target.iterdir() if entry.name != ".git") if target.exists() else []
        if found:
            raise ConfigError(f"DIR should be a new or an empty directory; found {found[0]!r} in {target}.")
        template = versions.keep() or versions.Template(str(versions.SHIPPED))
        # Next to the target, hence on the same file system.
        parent = next(folder for folder in target.parents if folder.exists())
        with tempfile.TemporaryDirectory(prefix=".fusionkit-new-", dir=parent) as folder:
            made = Path(folder, "made")
            copier.run_copy(template.source, made, asdict(answers), vcs_ref=template.tag, **OPTIONS)
            _place(made, target)
    return template.tag is not None


def update(target: Path) -> str:
    """Update the package in ``target`` to the template of the running version, and return that version.

    Raises:
        ConfigError: copier or git refuse, for instance because changes are not committed.
    """
    try:
        text = (target / ANSWERS).read_text(encoding="utf-8")
    except OSError:
        should = "hold a package that fusionkit new wrote"
        raise ConfigError(f"DIR should {should}; found no {ANSWERS} in {target}.") from None
    copier = _copier()
    template = versions.keep()
    if template is None or template.tag is None:
        raise ConfigError("git should be installed, and the user's data folder writable, for an update; one is not.")
    written = dict(re.findall(r"^(_src_path|_commit|requires): *['\"]?(.*?)['\"]?$", text, re.MULTILINE))
    if written.get("_src_path") != template.source:
        should = f"be {template.source}, where the templates of this user are"
        raise ConfigError(f"_src_path in {ANSWERS} should {should}; found {written.get('_src_path')}.")
    if written.get("_commit") not in template.tags:
        raise ConfigError(
            f"_commit in {ANSWERS} should be a template in {template.source}; found {written.get('_commit')}: "
            "run this once with that version of fusionkit installed."
        )
    requires = renamed(written.get("requires", ""))
    with _copier_errors(target, copier):
        copier.run_update(target, {"requires": requires} if requires else {}, vcs_ref=template.tag, **OPTIONS)
    return template.tag


def _copier() -> ModuleType:
    try:
        import copier
    except ModuleNotFoundError as error:
        should = f"find copier: {install_command('new')}"
        raise ConfigError(f"fusionkit new should {should}; found no module {error.name!r}.") from error
    return copier


@contextmanager
def _copier_errors(target: Path, copier: ModuleType) -> Iterator[None]:
    """Turn errors of copier, git and the file system into a ``ConfigError``."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{target} should be a directory that can be written; found {error}.") from error
    except copier.errors.CopierError as error:
        raise ConfigError(f"copier should be able to write {target}; found: {error}") from error


def _place(made: Path, target: Path) -> None:
    """Move the new package from ``made`` to ``target``."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(made, target)
        return
    # Keep the directory itself: it may be the working directory of a shell.
    moved: list[Path] = []
    try:
        for child in sorted(made.iterdir()):
            os.rename(child, target / child.name)
            moved.append(target / child.name)
    except BaseException:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
