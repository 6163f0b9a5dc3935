"""Hydra's complaints in one sentence: what should be, what was found, and the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fusionkit.errors import ConfigError, RegistryError, nearest

if TYPE_CHECKING:
    from fusionkit.config.composition import CheckingLoader

__all__ = ["explain", "unknown_key"]

#: What the extra of that name installs.
LAUNCHERS = ("joblib", "ray", "submitit_local", "submitit_slurm")


def explain(error: BaseException, loader: CheckingLoader, overrides: list[str]) -> str:
    """Return one sentence for an error of composition.

    Args:
        error: what Hydra, OmegaConf, the YAML parser or a check raised.
        loader: knows the groups and their options.
        overrides: the command line, to look up what an unknown key could have meant.
    """
    from hydra.errors import MissingConfigException, OverrideParseException
    from yaml import YAMLError  # type: ignore[import-untyped, unused-ignore]

    if isinstance(error, ConfigError | RegistryError):
        return str(error.args[0] if error.args else error)
    if isinstance(error, OverrideParseException):
        reason = error.message.strip().splitlines()[0].rstrip(".")
        return f"An override should have the form key=value; found {error.override!r} ({reason})."
    if isinstance(error, MissingConfigException):
        return _missing_config(error, loader)
    if isinstance(error, YAMLError):
        return f"A config should be plain YAML; found {_one_line(str(error))}."
    chain = [error, *_causes(error)]
    for one in chain:
        if isinstance(one, YAMLError):
            return f"A config should be plain YAML; found {_one_line(str(one))}."
    text = next((str(one) for one in chain if str(one)), type(error).__name__)
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        return _unknown_key(unknown[1], loader, overrides)
    ambiguous = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '([^']*)'", text)
    if ambiguous:
        key, _, values = ambiguous[1].partition("=")
        return (
            f"{key} should be one value in a single run; found {values!r}.  "
            f"Add -m to sweep over it, or write {key}=[...] for a list."
        )
    null = re.match(r"Config group override must be a string or a list. Got (\w+)", text)
    if null:
        return f"A group should be set to the name of one of its options; found {null[1].replace('NoneType', 'null')}."
    mandatory = re.match(r"You must specify '([^']+)'", text)
    if mandatory:
        options = ", ".join(line.strip() for line in text.splitlines()[2:])
        return f"{mandatory[1]} should be chosen, one of {options}; found nothing."
    known_item = re.match(r"Could not append to config. An item is already at '([^']+)'", text)
    if known_item:
        return f"{known_item[1]} should be overridden without '+', because it exists; found '+{known_item[1]}'."
    if text.startswith("Error merging override"):
        detail = next((str(one).strip().splitlines()[0] for one in _causes(error) if str(one)), "")
        return f"{_one_line(text)}: {detail}." if detail else f"{_one_line(text)}."
    return f"{_one_line(text).rstrip('.')}."


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the sentence for a key that does not exist.

    Args:
        key: the dotted key.
        known: the dotted keys beside it, or beside the first part of it that does not exist.
    """
    known = list(known)
    parent = known[0].rpartition(".")[0] if known else ""
    rest = key[len(parent) + 1 :] if parent else key
    wrong, dot, below = rest.partition(".")
    names = [name.rpartition(".")[2] for name in known]
    guesses = [
        f"{parent}.{guess}{dot}{below}" if parent else f"{guess}{dot}{below}" for guess in _nearest(wrong, names)
    ]
    if guesses:
        return f"There is no key {key!r}. Did you mean {' or '.join(map(repr, guesses))}?"
    return f"There is no key {key!r}.  Known are {', '.join(known)}." if known else f"There is no key {key!r}."


def _nearest(name: str, known: list[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, known, n=3, cutoff=0.6)


def _causes(error: BaseException) -> list[BaseException]:
    found = []
    cause = error.__cause__ or error.__context__
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip())


def _missing_config(error: Any, loader: CheckingLoader) -> str:
    path = error.missing_cfg_file
    if not path:
        return f"{_one_line(str(error)).rstrip('.')}."
    group, _, name = str(path).removesuffix(".yaml").rpartition("/")
    if not group:
        return f"There should be a primary config {path!r} in the config folders; found none."
    # A qualified name contains a slash itself.
    if (
        group not in ("fusion", "fabrication")
        and group.split("/")[0] in ("fusion", "fabrication")
        and not error.options
    ):
        kind, _, below = group.partition("/")
        if loader.repository.group_exists(kind) and not loader.repository.group_exists(group):
            group, name = kind, f"{below}/{name}"
    options = list(error.options or _options(loader, group))
    if not options:
        return f"There is no group {group!r}, hence no {path!r}.{nearest(group, _groups(loader))}"
    if group in ("fusion", "fabrication"):
        return _no_operator(group, name, options)
    guess = nearest(name, options) or f"  Known are {', '.join(options)}."
    if group == "hydra/launcher" and name in LAUNCHERS:
        guess = "  pip install 'fusionkit[launchers]' installs it."
    return f"There is no {group} {name!r}.{guess}"


def _no_operator(kind: Any, name: str, options: list[str]) -> str:
    """Let the registry say what is wrong with a name, and suggest among its names and the presets."""
    from fusionkit import registry

    try:
        registry.resolve(kind, name)
    except RegistryError as error:
        reason = " ".join(str(error).split()).partition(" Did you mean ")[0]
        aliases = (alias for record in registry.records(kind) for alias in record.aliases)
        return reason + nearest(name, dict.fromkeys((*options, *aliases)))
    return f"There should be a config for the {kind} {name!r}; found none."


def _options(loader: CheckingLoader, group: str) -> list[str]:
    from hydra.core.object_type import ObjectType

    return list(loader.repository.get_group_options(group, ObjectType.CONFIG))


def _groups(loader: CheckingLoader) -> list[str]:
    from hydra.core.object_type import ObjectType

    return list(loader.repository.get_group_options("", ObjectType.GROUP))


def _unknown_key(key: str, loader: CheckingLoader, overrides: list[str]) -> str:
    """Name the keys that exist beside an unknown one, by composing again without the overrides that failed."""
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from fusionkit.config import interpolations

    rest = [line for line in overrides if line.partition("=")[0].lstrip("+~") != key]
    known: list[str] = []
    parent = key
    if len(rest) < len(overrides):
        level, loader.level = loader.level, "safety"
        try:
            cfg = loader.load_configuration(
                config_name="config", overrides=rest, run_mode=RunMode.RUN, from_shell=False
            )
            while parent and not known:
                parent = parent.rpartition(".")[0]
                raw = interpolations.raw(cfg)
                for part in parent.split("."):
                    raw = raw.get(part) if isinstance(raw, dict) else None
                if isinstance(raw, str) and "${" in raw:
                    return f"{key} should be set where {parent} is taken from, {raw}; found it below a reference."
                node = OmegaConf.select(cfg, parent) if parent else cfg
                known = (
                    [f"{parent}.{name!s}" if parent else str(name) for name in map(str, node)]
                    if OmegaConf.is_dict(node)
                    else []
                )
        except (ConfigError, HydraException, OmegaConfBaseException):
            known = []
        finally:
            loader.level = level
    if not known:
        known, parent = _groups(loader), ""
    known = [name for name in known if not name.rpartition(".")[2].startswith("_") and name != "hydra"]
    return unknown_key(key, known)
