"""Interpolations: parsed before they are resolved, so that only references and harmless resolvers ever run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf, SCMode
from omegaconf.errors import GrammarParseError, InterpolationToMissingValueError, OmegaConfBaseException

from fusionkit.config.hydra_bridge import Grammar, is_root, parse, raw, whole
from fusionkit.config.keys import MAX_DEPTH, join, refuse
from fusionkit.errors import ConfigError

__all__ = ["RESOLVERS", "check", "leaves", "raw", "resolve"]

#: The resolvers that a config may use; fusionkit registers the last.
RESOLVERS = frozenset({"oc.select", "now", "hydra", "fusionkit.run_name"})

#: Hydra 1.4 itself puts these, literally, into its own node.
_HYDRAS_OWN = frozenset({"${hydra_override_dirname:}", "${hydra_deprecated_override_dirname:}"})


def check(tree: object, key: str = "") -> None:
    """Refuse interpolations in unresolved plain containers that are neither plain references nor harmless resolvers.

    Raises:
        ConfigError: names each full dotted key, the text and what is wrong with it.
    """
    refuse(f"{here} should {problem}." for here, text in leaves(tree, key) if (problem := _problem_at(text, here)))


def _problem_at(text: str, key: str) -> str | None:
    if "${" not in text or text in _HYDRAS_OWN:
        return None
    if key.rpartition(".")[2] in ("_target_", "_partial_", "_recursive_", "_convert_", "_args_"):
        return f"be written out, without an interpolation; found {text!r}"
    return _problem_of_text(text)


@lru_cache(maxsize=4096)
def _problem_of_text(text: str) -> str | None:
    """Return what should be and what was found in a text with interpolations, or None."""
    try:
        tree = parse(text)
    except GrammarParseError as error:
        return f"be a valid interpolation; found {text!r} ({error})"
    problem = _problem(tree)
    if problem is None:
        return None
    return f"use only plain references and {', '.join(sorted(RESOLVERS))}; found {problem} in {text!r}"


def _problem(node: Any) -> str | None:
    """Return what is not permitted below a node of the grammar's parse tree, or None."""
    if isinstance(node, Grammar.InterpolationNodeContext):
        return f"the computed reference {_text(node)!r}" if _computed(node) else None
    if isinstance(node, Grammar.InterpolationResolverContext):
        return _problem_of_resolver(node)
    for child in getattr(node, "children", None) or []:
        problem = _problem(child)
        if problem:
            return problem
    return None


def _problem_of_resolver(node: Any) -> str | None:
    name = node.resolverName()
    if _computed(name):
        return f"the computed resolver name {_text(name)!r}"
    if _text(name) not in RESOLVERS:
        return f"the resolver {_text(name)!r}"
    sequence = node.sequence()
    for position, element in enumerate(sequence.element() if sequence is not None else []):
        if not _computed(element):
            continue
        # A default is the only argument that may come from elsewhere in the config.
        if _text(name) != "oc.select" or position == 0:
            return f"the computed argument {_text(element)!r}"
        problem = _problem(element)
        if problem:
            return problem
    return None


def _computed(node: Any) -> bool:
    """Whether there is an interpolation below a node."""
    return any(
        isinstance(child, Grammar.InterpolationContext) or _computed(child)
        for child in getattr(node, "children", None) or []
    )


def _text(node: Any) -> str:
    return str(node.getText())


def leaves(tree: object, key: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield ``(dotted key, text)`` of every text in plain containers."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"{key[:80]} should be nested at most {MAX_DEPTH} levels deep; found more.")
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from leaves(value, join(key, name), depth + 1)
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{key}[{index}]", depth + 1)


def resolve(cfg: Any, key: str = "") -> Any:
    """Return ``cfg`` as plain containers with every interpolation resolved, once, after all of them were checked.

    Missing values stay ``"???"``.

    Raises:
        ConfigError: an interpolation is not permitted, leads nowhere or leads to itself.
    """
    if not OmegaConf.is_config(cfg):
        plain = _plain(cfg, key)
        if not any("${" in text for _, text in leaves(plain, key)):
            return plain
        check(plain, key)
        cfg = OmegaConf.create(plain)
    else:
        # The references of a part of a config may lead anywhere in the whole.
        check(raw(whole(cfg)))
    return to_plain(cfg, key)


def _plain(value: Any, key: str, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{key[:80]} should be nested at most {MAX_DEPTH} levels deep; found more.")
    if isinstance(value, Mapping) and not OmegaConf.is_config(value):
        return {name: _plain(item, join(key, name), depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}[{index}]", depth + 1) for index, item in enumerate(value)]
    return raw(value)


def to_plain(value: Any, key: str) -> Any:
    """Return the resolved value of a config node in plain containers; its interpolations were checked before.

    Raises:
        ConfigError: an interpolation leads nowhere or to itself.
    """
    if not OmegaConf.is_config(value):
        return value.name if isinstance(value, Enum) else value
    # The keys in OmegaConf's messages start at the root, which a node on its own is.
    above = key if is_root(value) else ""
    try:
        return OmegaConf.to_container(
            value, resolve=True, throw_on_missing=False, enum_to_str=True, structured_config_mode=SCMode.DICT
        )
    except OmegaConfBaseException as error:
        where = join(above, error.full_key) if error.full_key else key or "The config"
        if isinstance(error, InterpolationToMissingValueError):
            raise ConfigError(f"{where} should refer to a value; found one that is missing.") from error
        raise ConfigError(f"{where} should lead to a value; found: {str(error).strip().splitlines()[0]}.") from error
    except RecursionError as error:
        raise ConfigError(f"{key} should not refer to itself; found a circle of interpolations.") from error
