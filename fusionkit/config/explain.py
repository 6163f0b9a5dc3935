"""Rewords each error of Hydra as one sentence: what should be, what was found, and the nearest name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped, unused-ignore]

from fusionkit import registry
from fusionkit._util.distribution import install_command
from fusionkit._util.text import one_line
from fusionkit.config.hydra_bridge import raw, source_of
from fusionkit.config.keys import unknown_key, walk
from fusionkit.errors import ConfigError, RegistryError, close, nearest

if TYPE_CHECKING:
    from fusionkit.config.composition import CheckingLoader

#: The launchers that the extra ``launchers`` installs.
LAUNCHERS = ("joblib", "ray", "submitit_local", "submitit_slurm")

#: Patterns of Hydra's messages, and the sentences that replace them; {0}, {1} are the groups of the pattern, the lines
#: of each joined by commas.
SENTENCES = (
    (
        r"(?:Ambiguous value for argument|Sweep parameters) '([^'=]*)=?([^']*)'",
        "{0} should be one value in a single run; found {1!r}.  "
        "Add -m to sweep over it, or write {0}=[...] for a list.",
    ),
    (
        r"Config group override must be a string or a list. Got (\w+)",
        "A group should be set to the name of one of its options; found {0}.",
    ),
    (r"You must specify '([^']+)'[^\n]*\n[^\n]*\n((?s:.*))", "{0} should be chosen, one of {1}; found nothing."),
    (
        r"Could not append to config. An item is already at '([^']+)'",
        "{0} should be overridden without '+', because it exists; found '+{0}'.",
    ),
)


def explain(error: BaseException, loader: CheckingLoader, overrides: list[str]) -> str:
    """Return one sentence for an error of composition.

    Args:
        error: what Hydra, OmegaConf, the YAML parser or a check raised.
        loader: knows the groups and their options.
        overrides: the command line, to find keys similar to an unknown one.
    """
    if isinstance(error, ConfigError | RegistryError):
        return str(error.args[0] if error.args else error)
    if isinstance(error, OverrideParseException):
        return _malformed_override(error, loader)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_config(error, loader)
    chain = _chain(error)
    if wrong := next((cause for cause in chain if isinstance(cause, YAMLError)), None):
        return f"A config should be plain YAML; found {one_line(str(wrong))}."
    messages = [text for cause in chain if (text := str(cause).strip())] or [type(error).__name__]
    if unknown := re.match(r"Could not override '([^']+)'", messages[0]):
        return _unknown_key(unknown[1], loader, overrides)
    for pattern, sentence in SENTENCES:
        if match := re.match(pattern, messages[0]):
            lines = (group.replace("NoneType", "null").split("\n") for group in match.groups())
            return sentence.format(*(", ".join(filter(None, map(str.strip, group))) for group in lines))
    if messages[0].startswith("Error merging override") and len(messages) > 1:
        return f"{one_line(messages[0])}: {messages[1].splitlines()[0]}."
    return f"{one_line(messages[0]).rstrip('.')}."


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and its causes."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found


# -- overrides ---------------------------------------------------------------------------------------------------------


def _malformed_override(error: Any, loader: CheckingLoader) -> str:
    text = f"An override should have the form key=value; found {error.override!r}"
    if "=" not in error.override:
        return f"{text}.{_meant(error.override, loader)}"
    key, _, value = error.override.partition("=")
    special = re.search(r"[^\w=\[\]{}'\"]", value, re.ASCII)
    if re.fullmatch(r"[+~]*[\w./@-]+", key) and special and value[0] not in "=[{'\"":
        quoted = shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
        return f"The value of {key} should be in quotes, because of its special characters; write {quoted}."
    if name := re.search(r"""[{,]\s*("[^"]*"|'[^']*'|\w*[^\x00-\x7f]\w*)\s*:""", value):
        plain = "Names before a colon should have plain letters, without quotes"
        return f"{text}.  {plain}; a mapping with {name[1]} can stand in a config file alone (--config-dir)."
    if word := next((word for word in re.findall(r"\w+", value) if not word.isascii()), None):
        return f'{text}.  Names with other letters or signs should be in quotes: write "{word}" in it.'
    reason = error.message.strip().splitlines()[0].rstrip(".")
    return f"{text}." if error.override in reason else f"{text} ({reason})."


def _meant(word: str, loader: CheckingLoader) -> str:
    """Return a hint for a word in place of ``key=value``: a key, or an option of a group."""
    groups = [group for group in _groups(loader) if group != "hydra"]
    known = {f"{group}={option}": option for group in groups for option in _options(loader, group)}
    meant = [text for text, option in known.items() if option == word]
    meant = meant or [f"{key}=..." for key in keys_like(word, loader, []) if key.rpartition(".")[2] == word]
    near = close(word, list(known.values()))
    meant = meant or [text for text, option in known.items() if option in near]
    return f" Did you mean {' or '.join(meant[:3])}?" if meant else ""


# -- keys --------------------------------------------------------------------------------------------------------------


def keys_like(name: str, loader: CheckingLoader, overrides: list[str]) -> list[str]:
    """Return the dotted keys of the configuration whose last part is ``name``, or nearly so; at most three.

    Args:
        name: as one would write an option, ``batch-size``.
        loader: composes the configuration.
        overrides: of the command line; ignored where they are wrong themselves.
    """
    cfg = _composed(loader, overrides) or _composed(loader, [])
    tree = {key: value for key, value in (raw(cfg) or {}).items() if key != "hydra"}
    keys = [key for key, name, _ in walk(tree) if name and not re.search(r"(^|\.)_|\[", key)]
    wanted = name.replace("-", "_")
    if wanted in keys:
        return [wanted]
    names = [key.rpartition(".")[2] for key in keys]
    near = [wanted] if wanted in names else close(wanted, names)
    return [key for key, last in zip(keys, names, strict=True) if last in near][:3]


def _composed(loader: CheckingLoader, overrides: list[str]) -> Any:
    """Return the configuration, checked for safety only; None where the overrides are wrong."""
    level, loader.level = loader.level, "safety"
    try:
        return loader.load_configuration("config", overrides, RunMode.RUN, from_shell=False)
    except (ConfigError, HydraException, OmegaConfBaseException):
        return None
    finally:
        loader.level = level


def _unknown_key(key: str, loader: CheckingLoader, overrides: list[str]) -> str:
    """Name the keys that exist beside an unknown one, by composing again without the overrides that failed."""
    rest = [line for line in overrides if line.partition("=")[0].lstrip("+~") != key]
    cfg: Any = _composed(loader, rest) if len(rest) < len(overrides) else None
    names: list[str] = []
    parent = key if cfg is not None else ""
    while parent and not names:
        parent = parent.rpartition(".")[0]
        if reference := _reference(raw(cfg), parent):
            return f"{key} should be set where {parent} is taken from, {reference}; found it below a reference."
        node = OmegaConf.select(cfg, parent) if parent else cfg
        names = list(map(str, node)) if OmegaConf.is_dict(node) else []
    names = [name for name in names or _groups(loader) if name != "hydra" and not name.startswith("_")]
    text = unknown_key(key, parent, names)
    return text if " Did you mean " in text else _elsewhere(key, loader) or text


def _reference(tree: Any, key: str) -> str | None:
    """Return the interpolation at a dotted key of an unresolved tree, or None."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree if isinstance(tree, str) and "${" in tree else None


def _elsewhere(key: str, loader: CheckingLoader) -> str:
    """Return the sentence for a key that another option of its group has, or another part of the configuration."""
    group, _, name = key.partition(".")
    having: dict[str, list[str]] = {}
    options = _options(loader, group) if name and "." not in name and group in _groups(loader) else []
    for option in options:
        path = f"{group}/{option}"
        source = source_of(loader.repository, path)
        # Those that have no file would import their class.
        if source is not None and source.scheme() != "fusionkit":
            found: Any = loader.repository.load_config(path)
            for one in raw(found.config):
                having.setdefault(str(one), []).append(f"{group}={option}")
    if name in having:
        return f"There is no key {key!r} here.  It belongs to {', '.join(having[name])}."
    if near := close(name, (one for one in having if not one.startswith("_"))):
        meant = " or ".join(f"{group}.{one}, which belongs to {', '.join(having[one])}" for one in near)
        return f"There is no key {key!r}. Did you mean {meant}?"
    others = [other for other in keys_like(key, loader, []) if other.rpartition(".")[2] == key]
    return f"There is no key {key!r}. Did you mean {' or '.join(map(repr, others))}?" if others else ""


# -- groups and their options ------------------------------------------------------------------------------------------


def _missing_config(error: Any, loader: CheckingLoader) -> str:
    path = error.missing_cfg_file
    group, _, name = path.removesuffix(".yaml").rpartition("/")
    if not group:
        return f"There should be a primary config {path!r} in the config folders; found none."
    kind, _, below = group.partition("/")
    if kind in ("fusion", "fabrication") and below and not _options(loader, group):
        return _no_operator(kind, f"{below}/{name}", [])  # A qualified name contains a slash itself.
    options = list(error.options or _options(loader, group))
    if not options:
        return f"There is no group {group!r}, hence no {path!r}.{nearest(group, _groups(loader))}"
    if group in ("fusion", "fabrication"):
        return _no_operator(group, name, options)
    if group == "hydra/launcher" and name in LAUNCHERS:
        return f"There is no {group} {name!r}.  {install_command('launchers')} installs it."
    if group == "data" and (ending := re.search(r"\.(csv|tsv|csv\.gz|parquet|npz)$", name)):
        form, more = ("npz", "") if ending[1] == "npz" else ("table", " data.label=COLUMN")
        return f"data should be the form of the data, not the file; write data={form} data.path={name}{more}."
    if group == "data" and Path(name).is_dir():
        return f"data should be the form of the data, not the folder; write data=folder data.path={name}."
    hint = nearest(name, options) or f"  Known are {', '.join(options)}."
    return f"There is no {group} {name!r}.{hint}"


def _no_operator(kind: Any, name: str, options: list[str]) -> str:
    """Return the registry's message for a wrong name, with suggestions among its names and the presets."""
    try:
        registry.resolve(kind, name)
    except RegistryError as error:
        reason = one_line(str(error)).partition(" Did you mean ")[0]
        records = registry.records(kind)
        known = [record.qualified for record in records] if "/" in name else options
        aliases = (alias for record in records for alias in record.aliases)
        return reason + nearest(name, dict.fromkeys((*known, *aliases)))
    return f"There should be a config for the {kind} {name!r}; found none."


def _options(loader: CheckingLoader, group: str) -> list[str]:
    return list(loader.repository.get_group_options(group, ObjectType.CONFIG))


def _groups(loader: CheckingLoader) -> list[str]:
    return list(loader.repository.get_group_options("", ObjectType.GROUP))
