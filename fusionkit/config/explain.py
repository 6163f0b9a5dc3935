"""Hydra's complaints in one sentence: what should be, what was found, and the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fusionkit.config.keys import unknown_key
from fusionkit.errors import ConfigError, RegistryError, close, nearest

if TYPE_CHECKING:
    from fusionkit.config.composition import CheckingLoader

__all__ = ["explain", "keys_like"]

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
        if "=" not in error.override:
            return (
                f"An override should have the form key=value; found {error.override!r}.{_meant(error.override, loader)}"
            )
        reason = error.message.strip().splitlines()[0].rstrip(".")
        why = "" if error.override in reason else f" ({reason})"
        return f"An override should have the form key=value; found {error.override!r}{why}."
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


def keys_like(name: str, loader: CheckingLoader, overrides: list[str]) -> list[str]:
    """Return the dotted keys of the configuration whose last part is ``name``, or nearly so; at most three.

    Args:
        name: as one would write an option, ``batch-size``.
        loader: composes the configuration.
        overrides: of the command line; ignored where they are wrong themselves.
    """
    from fusionkit.config import interpolations

    cfg = _composed(loader, overrides) or _composed(loader, [])
    if cfg is None:
        return []
    keys = list(_leaves({key: value for key, value in interpolations.raw(cfg).items() if key != "hydra"}))
    wanted = name.replace("-", "_")
    if wanted in keys:
        return [wanted]
    names = [key.rpartition(".")[2] for key in keys]
    near = [wanted] if wanted in names else close(wanted, names)
    return [key for key, last in zip(keys, names, strict=True) if last in near][:3]


def _composed(loader: CheckingLoader, overrides: list[str]) -> Any:
    """Return the configuration, checked for safety only; None where the overrides are wrong."""
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    level, loader.level = loader.level, "safety"
    try:
        return loader.load_configuration(
            config_name="config", overrides=overrides, run_mode=RunMode.RUN, from_shell=False
        )
    except (ConfigError, HydraException, OmegaConfBaseException):
        return None
    finally:
        loader.level = level


def _leaves(tree: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if not str(key).startswith("_"):
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from _leaves(value, f"{prefix}{key}.")


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
        and not _has_files(loader, group)
    ):
        kind, _, below = group.partition("/")
        return _no_operator(kind, f"{below}/{name}", [])
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
        records = registry.records(kind)
        known = [record.qualified for record in records] if "/" in name else options
        aliases = (alias for record in records for alias in record.aliases)
        return reason + nearest(name, dict.fromkeys((*known, *aliases)))
    return f"There should be a config for the {kind} {name!r}; found none."


def _meant(word: str, loader: CheckingLoader) -> str:
    """Return a hint for a word that stands where ``key=value`` should: a key, or an option of a group."""
    groups = [group for group in _groups(loader) if group != "hydra"]
    known = {f"{group}={option}": option for group in groups for option in _options(loader, group)}
    meant = [text for text, option in known.items() if option == word]
    meant = meant or [f"{key}=..." for key in keys_like(word, loader, []) if key.rpartition(".")[2] == word]
    near = close(word, list(known.values()))
    meant = meant or [text for text, option in known.items() if option in near]
    return f" Did you mean {' or '.join(meant[:3])}?" if meant else ""


def _elsewhere(key: str, loader: CheckingLoader) -> str:
    """Return the sentence for a key that another option of its group has, or another part of the configuration."""
    from hydra.core.object_type import ObjectType

    from fusionkit.config import interpolations

    group, _, name = key.partition(".")
    having: dict[str, list[str]] = {}
    for option in _options(loader, group) if name and "." not in name and group in _groups(loader) else ():
        path = f"{group}/{option}"
        source = loader.repository._find_object_source(path, ObjectType.CONFIG)
        # Those that have no file would import their class.
        if source is not None and source.scheme() != "fusionkit":
            found = loader.repository.load_config(path)
            for one in interpolations.raw(found.config) if found is not None else ():
                having.setdefault(str(one), []).append(f"{group}={option}")
    if name in having:
        return f"There is no key {key!r} here.  It belongs to {', '.join(having[name])}."
    if near := close(name, (one for one in having if not one.startswith("_"))):
        meant = " or ".join(f"{group}.{one}, which belongs to {', '.join(having[one])}" for one in near)
        return f"There is no key {key!r}. Did you mean {meant}?"
    others = [other for other in keys_like(key, loader, []) if other.rpartition(".")[2] == key]
    return f"There is no key {key!r}. Did you mean {' or '.join(map(repr, others))}?" if others else ""


def _has_files(loader: CheckingLoader, group: str) -> bool:
    """Whether a group has configs of its own, beside the operators that are offered under their qualified names."""
    from hydra.core.object_type import ObjectType

    sources = [one for one in loader.repository.get_sources() if one.scheme() != "fusionkit" and one.is_group(group)]
    return any(
        source.available() and source.list(group, ObjectType.CONFIG) for source in sources if source.is_group(group)
    )


def _options(loader: CheckingLoader, group: str) -> list[str]:
    from hydra.core.object_type import ObjectType

    return list(loader.repository.get_group_options(group, ObjectType.CONFIG))


def _groups(loader: CheckingLoader) -> list[str]:
    from hydra.core.object_type import ObjectType

    return list(loader.repository.get_group_options("", ObjectType.GROUP))


def _unknown_key(key: str, loader: CheckingLoader, overrides: list[str]) -> str:
    """Name the keys that exist beside an unknown one, by composing again without the overrides that failed."""
    from omegaconf import OmegaConf

    from fusionkit.config import interpolations

    rest = [line for line in overrides if line.partition("=")[0].lstrip("+~") != key]
    known: list[str] = []
    parent = key
    cfg = _composed(loader, rest) if len(rest) < len(overrides) else None
    while cfg is not None and parent and not known:
        parent = parent.rpartition(".")[0]
        raw = interpolations.raw(cfg)
        for part in parent.split("."):
            raw = raw.get(part) if isinstance(raw, dict) else None
        if isinstance(raw, str) and "${" in raw:
            return f"{key} should be set where {parent} is taken from, {raw}; found it below a reference."
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if OmegaConf.is_dict(node):
            known = [f"{parent}.{name!s}" if parent else str(name) for name in map(str, node)]
    if not known:
        known = _groups(loader)
    known = [name for name in known if not name.rpartition(".")[2].startswith("_") and name != "hydra"]
    text = unknown_key(key, known)
    return text if " Did you mean " in text else _elsewhere(key, loader) or text
