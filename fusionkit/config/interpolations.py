"""Interpolations: parsed before they are resolved, so that only references and harmless resolvers ever run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationToMissingValueError, OmegaConfBaseException
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse

from fusionkit.config.hydra_bridge import is_root, raw, resolved, whole
from fusionkit.config.keys import CONTROL_KEYS, MAX_DEPTH, join, refuse, walk
from fusionkit.errors import ConfigError

#: The classes of the nodes that ``parse`` returns; they have no types.
Grammar: Any = OmegaConfGrammarParser

#: The resolvers that a config may use; fusionkit registers the last two.
RESOLVERS = frozenset({"oc.select", "now", "hydra", "fusionkit.run_name", "fusionkit.before_head"})

#: The greatest size of a config with its references expanded.
MAX_NODES, MAX_CHARACTERS = 100_000, 10_000_000

#: Hydra 1.4 itself puts these, literally, into its own node.
_HYDRAS_OWN = frozenset({"${hydra_override_dirname:}", "${hydra_deprecated_override_dirname:}"})


def check(tree: object, key: str = "") -> None:
    """Refuse interpolations in unresolved plain containers that are neither plain references nor harmless resolvers.

    Raises:
        ConfigError: names each full dotted key, the text and what is wrong with it.
    """
    texts = [(here, value) for here, _, value in walk(tree, key) if isinstance(value, str) and "${" in value]
    refuse(f"{here} should {mistake}." for here, text in texts if (mistake := _mistake(here, text)))
    if texts:
        _check_size(tree, key)


def _check_size(tree: object, key: str) -> None:
    """Refuse a tree that is too large once its references are expanded, by counting, before any of them is.

    A reference that leads nowhere, or out of ``tree``, counts as one value; so does one to what contains it, which is
    refused when it is resolved.
    """
    sizes: dict[tuple[str, ...], tuple[int, int]] = {}

    def size(place: tuple[str, ...], value: object) -> tuple[int, int]:
        """Return how many values and characters the value at a place stands for."""
        if place in sizes:
            return sizes[place]
        sizes[place] = (1, 0)
        parts = [(1, len(value) if isinstance(value, str) else 0)]
        if isinstance(value, Mapping):
            parts += [size((*place, str(name)), item) for name, item in value.items()]
        elif isinstance(value, list):
            parts += [size((*place, str(index)), item) for index, item in enumerate(value)]
        elif isinstance(value, str) and "${" in value:
            targets = (_target(tree, place, reference) for reference in _references(value))
            parts += [size(*target) for target in targets if target is not None]
        values, characters = (sum(counts) for counts in zip(*parts, strict=True))
        if values > MAX_NODES or characters > MAX_CHARACTERS:
            where = join(key, ".".join(place)).rstrip(".") or "The config"
            what = f"at most {MAX_NODES} values and {MAX_CHARACTERS} characters"
            raise ConfigError(f"{where[:80]} should stand for {what}; found references that expand to more.")
        sizes[place] = (values, characters)
        return values, characters

    try:
        size((), tree)
    except RecursionError:
        raise ConfigError(f"{key or 'The config'} should have short chains of references; found a long one.") from None


def _target(tree: Any, place: tuple[str, ...], reference: tuple[int, tuple[str, ...]]) -> tuple[Any, ...] | None:
    """Return the place and the value to which a reference at ``place`` leads, None if nowhere."""
    dots, names = reference
    found: tuple[str, ...] = ()
    value, rest = tree, [*(place[: len(place) - dots] if dots else ()), *names]
    for _ in range(len(rest) + MAX_DEPTH):
        if not rest:
            return found, value
        if isinstance(value, str) and "${" in value:  # The way leads through another reference.
            (dots, names), *_ = _references(value) or ((0, ()),)
            rest = [*(found[: len(found) - dots] if dots else ()), *names, *rest]
            found, value = (), tree
            continue
        name = rest.pop(0)
        try:
            value = value[int(name)] if isinstance(value, list) else value[name]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
        found = (*found, name)
    return None


@lru_cache(maxsize=4096)
def _references(text: str) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Return the references in a text that was checked: how many dots they begin with, and the names that follow."""
    found = []
    for node in _nodes(parse(text)):
        inner = None
        if isinstance(node, Grammar.InterpolationNodeContext):
            inner = _text(node)[2:-1]
        elif isinstance(node, Grammar.InterpolationResolverContext):
            resolver, _, arguments = _text(node)[2:-1].partition(":")
            if resolver.strip() == "fusionkit.run_name":
                inner = ""  # The whole configuration.
            elif resolver.strip() == "fusionkit.before_head":
                inner = "model.head"
            elif resolver.strip() in ("hydra", "oc.select"):
                inner = ("hydra." if resolver.strip() == "hydra" else "") + arguments.partition(",")[0]
        if inner is not None:
            inner = inner.strip()
            dots = len(inner) - len(inner.lstrip("."))
            found.append((dots, tuple(part for name in re.split(r"[.\[\]]", inner) if (part := name.strip()))))
    return tuple(found)


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in getattr(node, "children", None) or []:
        yield from _nodes(child)


def _mistake(key: str, text: str) -> str | None:
    """Return what a text with interpolations should be, and what was found in it, or None."""
    if text in _HYDRAS_OWN:
        return None
    if key.rpartition(".")[2] in (*CONTROL_KEYS, "_args_"):
        return f"be written out, without an interpolation; found {text!r}"
    return _mistake_of_text(text)


@lru_cache(maxsize=4096)
def _mistake_of_text(text: str) -> str | None:
    try:
        problem = _problem(parse(text))
    except GrammarParseError as error:
        return f"be a valid interpolation; found {text!r} ({error})"
    known = ", ".join(sorted(RESOLVERS))
    return problem and f"use only plain references and {known}; found {problem} in {text!r}"


def _problem(node: Any) -> str | None:
    """Return what is not permitted at or below a node of the grammar's parse tree, or None."""
    below = getattr(node, "children", None) or []
    if isinstance(node, Grammar.InterpolationNodeContext):
        return f"the computed reference {_text(node)!r}" if any(map(_computed, below)) else None
    if isinstance(node, Grammar.InterpolationResolverContext):
        name, sequence = node.resolverName(), node.sequence()
        below = sequence.element() if sequence is not None else []
        if _computed(name):
            return f"the computed resolver name {_text(name)!r}"
        if _text(name) not in RESOLVERS:
            return f"the resolver {_text(name)!r}"
        # A default is the only argument that may come from elsewhere in the config.
        fixed = below[:1] if _text(name) == "oc.select" else below
        if computed := next(filter(_computed, fixed), None):
            return f"the computed argument {_text(computed)!r}"
    return next(filter(None, map(_problem, below)), None)


def _computed(node: Any) -> bool:
    """Whether a node of the parse tree is an interpolation, or contains one."""
    return isinstance(node, Grammar.InterpolationContext) or any(map(_computed, getattr(node, "children", None) or []))


def _text(node: Any) -> str:
    return str(node.getText())


def resolve(cfg: Any, key: str = "") -> Any:
    """Return ``cfg`` as plain containers with every interpolation resolved, once, after all of them were checked.

    Missing values stay ``"???"``.

    Raises:
        ConfigError: an interpolation is not permitted, leads nowhere or leads to itself.
    """
    if OmegaConf.is_config(cfg):
        # The references of a part of a config may lead anywhere in the whole.
        check(raw(whole(cfg)))
        return to_plain(cfg, key)
    try:
        plain = _plain(cfg)
    except RecursionError:
        raise ConfigError(f"{key or 'It'} should be nested at most {MAX_DEPTH} levels deep; found more.") from None
    check(plain, key)
    interpolated = any(isinstance(value, str) and "${" in value for _, _, value in walk(plain))
    return to_plain(OmegaConf.create(plain), key) if interpolated else plain


def _plain(value: Any) -> Any:
    """Return plain containers in which nothing is resolved, also where configs are nested in mappings and lists."""
    if isinstance(value, Mapping) and not OmegaConf.is_config(value):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
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
        return resolved(value)
    except OmegaConfBaseException as error:
        where = join(above, error.full_key) if error.full_key else key or "The config"
        if isinstance(error, InterpolationToMissingValueError):
            raise ConfigError(f"{where} should refer to a value; found one that is missing.") from error
        raise ConfigError(f"{where} should lead to a value; found: {str(error).strip().splitlines()[0]}.") from error
    except RecursionError as error:
        raise ConfigError(f"{key} should not refer to itself; found a circle of interpolations.") from error
