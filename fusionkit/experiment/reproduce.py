"""The command line that repeats a run, from its record: the differences of its config from the defaults."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from fusionkit._util.trees import flatten
from fusionkit.config import compose
from fusionkit.config.options import defaults
from fusionkit.errors import ConfigError, FusionError, RegistryError

#: The keys that differ between the runs of a group; they are set at the end, without composing again.
_LOOSE = (("seed",), ("data", "fold"), ("device",))
_ABSENT = object()
#: A longer command is of no use, and takes long to compose.
_MAX_OVERRIDES = 100
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = frozenset({"null", "true", "false", "nan", "inf", "on", "off", "yes", "no"})

Flat = dict[tuple[str, ...], Any]


def command(result: Mapping[str, Any], run_dir: Path) -> str | None:
    """Return the command that repeats the run of a record.

    The command was composed and gives the same config.  If no such overrides are found (an experiment of the user's
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
    base = dict(_composed(()))
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
    known = defaults(config)
    # First the keys to which others may refer, then the options of the operator; the third pass only compares.
    for inner in (False, True, None):
        try:
            given = {key: value for key, value in _composed(tuple(found)) if key not in _LOOSE}
        except (ConfigError, FusionError, RegistryError):
            return None
        given.pop(("fusion", "device"), None)
        changes = list(islice(_changes(given, wanted, known), _MAX_OVERRIDES))
        if not changes:
            return found
        if inner is None or len(changes) == _MAX_OVERRIDES or any("${" in text for _, text in changes):
            return None
        found += [text for key, text in changes if inner or key[0] != "fusion"]
    return None


def _changes(given: Flat, wanted: Flat, known: Flat) -> Iterator[tuple[tuple[str, ...], str]]:
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
def _composed(overrides: tuple[str, ...]) -> tuple[tuple[tuple[str, ...], Any], ...]:
    return tuple(_flatten(compose(list(overrides))).items())


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
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return QuotedString(text, Quote.double).with_quotes()
