"""The command line that repeats a run, from its record: the differences of its config from the defaults."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Quote, QuotedString

from fusionkit._util.trees import flatten
from fusionkit.config.composition import compose_twice
from fusionkit.config.options import defaults
from fusionkit.errors import ConfigError, FusionError, RegistryError

#: The keys that differ between the runs of a group; they are set at the end, without composing again.
_LOOSE = (("seed",), ("data", "fold"), ("device",))
_ABSENT = object()
#: A longer command is of no use, and takes long to compose.
_MAX_OVERRIDES = 100
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_WORDS = frozenset({"null", "true", "false", "nan", "inf", "on", "off", "yes", "no"})

Key = tuple[str, ...]
Flat = dict[Key, Any]


def command(result: Mapping[str, Any], run_dir: Path) -> str | None:
    """Return the command that repeats the run of a record.

    The command composes to the same config.  If no such overrides are found (an experiment of the user's
    own config folder, another release), the command is ``fusionkit run --from``.

    Returns:
        The command; None for a record without a config.
    """
    config = result.get("config") or {}
    if not isinstance(config.get("fusion"), Mapping):
        return None
    flat = _flatten(config)
    loose = {key: flat.pop(key) for key in _LOOSE if key in flat}
    flat.pop(("fusion", "device"), None)
    found = _overrides(config, flat)
    if found is None:
        return shlex.join(["fusionkit", "run", "--from", str(run_dir)])
    base = _composed(()).resolved
    last = [f"{'.'.join(key)}={as_override(value)}" for key, value in loose.items() if value != base.get(key, _ABSENT)]
    return shlex.join(["fusionkit", "run", *found, *last])


def _overrides(config: Mapping[str, Any], wanted: Flat) -> list[str] | None:
    """Return overrides that compose to ``wanted``; None if there are none."""
    found = []
    for group, usual in (("data", "mfeat"), ("fusion", "parameterized_concatenation"), ("fabrication", "dense")):
        node = config.get(group)
        name = node.get("name") if isinstance(node, Mapping) else None
        if not isinstance(name, str) or not re.fullmatch(r"[\w./-]+", name):
            return None
        if name != usual:
            found.append(f"{group}={name}")
    # Without these, some groups do not compose.
    needed = ((key, wanted.get(("data", key))) for key in ("path", "label"))
    found += [f"data.{key}={as_override(value)}" for key, value in needed if value is not None]
    known, choices = defaults(config), tuple(found)
    values: Flat = {}
    # First the keys to which others may refer, then the options of the operator; the third pass only compares.
    for inner in (False, True, None):
        try:
            given = dict(_followed(choices, values) or _composed(tuple(found)).resolved)
        except (ConfigError, FusionError, RegistryError):
            return None
        for key in (*_LOOSE, ("fusion", "device")):
            given.pop(key, None)
        changes = list(islice(_changes(given, wanted, known), _MAX_OVERRIDES))
        if not changes:
            return found
        if inner is None or len(changes) == _MAX_OVERRIDES or any("${" in text for _, text in changes):
            return None
        chosen = [(key, text) for key, text in changes if inner or key[0] != "fusion"]
        found += [text for _, text in chosen]
        values |= {key: wanted.get(key, known.get(key, _ABSENT)) for key, _ in chosen}
    return None


class _Composed(NamedTuple):
    """A composed config.

    Attributes:
        resolved: its values.
        references: from the key of each value that is a reference to the key that it leads to; None if there are other
            interpolations.
    """

    resolved: Flat
    references: dict[Key, Key] | None


def _followed(choices: tuple[str, ...], values: Flat) -> Flat | None:
    """Return what ``choices`` and overrides of single values compose to: Hydra takes 0.1 s, too much for each run.

    Returns:
        The values, those of references too; None where more than that decides, or the text of an override needs quotes.
    """
    resolved, references = _composed(choices)
    if references is None or not all(key in resolved and _is_plain(value) for key, value in values.items()):
        return None
    found = {**resolved, **values}

    def value(key: Key) -> Any:
        if key in references and key not in values:
            return value(references[key])
        if key in found:
            return found[key]
        return {other[-1]: value(other) for other in found if other[:-1] == key}  # A group.

    return {key: value(key) for key in found}


def _is_plain(value: Any) -> bool:
    """Whether a value is written in overrides as it is."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and _is_word(value))


def _is_word(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS


def _changes(given: Flat, wanted: Flat, known: Flat) -> Iterator[tuple[Key, str]]:
    """Yield the overrides that make ``wanted`` of ``given``; what ``wanted`` lacks has the values ``known``."""
    for key in sorted(given.keys() | wanted.keys()):
        dotted = ".".join(key)
        if key not in wanted:
            if any(other[: len(key)] == key for other in wanted) or given[key] == known.get(key, _ABSENT):
                continue
            yield key, f"{dotted}={as_override(known[key])}" if key in known else f"~{dotted}"
        elif key not in given:
            shorter = any(key[:i] in given for i in range(1, len(key)))
            yield key, f"{'' if shorter else '++'}{dotted}={as_override(wanted[key])}"
        elif given[key] != wanted[key] or type(given[key]) is not type(wanted[key]):
            yield key, f"{dotted}={as_override(wanted[key])}"


@lru_cache(maxsize=1024)
def _composed(overrides: tuple[str, ...]) -> _Composed:
    tree, unresolved = compose_twice(overrides)
    texts = {key: value for key, value in _flatten(unresolved).items() if "${" in str(value)}
    found = {key: _REFERENCE.fullmatch(value) if isinstance(value, str) else None for key, value in texts.items()}
    references = {key: tuple(match[1].split(".")) for key, match in found.items() if match}
    return _Composed(_flatten(tree), references if len(references) == len(texts) else None)


def _flatten(config: Mapping[str, Any]) -> Flat:
    # An option is overridden as a whole: its default may be null, or a reference to a group.
    return dict(flatten(config, whole=lambda path: len(path) == 2))


def as_override(value: Any) -> str:
    """Return a value in Hydra's grammar of overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_override, value)) + "]"
    text = str(value)
    if _is_word(text):
        return text
    return QuotedString(text, Quote.double).with_quotes()
