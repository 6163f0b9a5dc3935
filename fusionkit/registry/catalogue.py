"""Computes what each name means, from what all plugins register.  Imports no operator and no data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from fusionkit._util.distribution import unprefixed
from fusionkit.errors import RegistryError, nearest
from fusionkit.hookspecs import DatasetSpec, Spec
from fusionkit.registry.discovery import canonical
from fusionkit.registry.loading import Kind, Operator, Plugin, PluginProblem, target_name

Status = Literal["ok", "deprecated", "shadowed", "ambiguous"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OPERATORS: tuple[Operator, ...] = get_args(Operator)


@dataclass(frozen=True)
class Record:
    """One name of the registry.

    Attributes:
        kind: fusion, fabrication or dataset.
        name: the short name.
        qualified: ``<distribution>/<name>``, the distribution without its prefix ``tensor-``.
        distribution: the distribution that registers it.
        version: version of the distribution, None if it has none.
        target: ``package.module:Class``; of a data set ``package.module:function``.
        aliases: other short names.
        summary: one line, or empty.
        status: ok, deprecated, shadowed (the short name means one of the core) or ambiguous (several plugins have the
            short name).
        spec: what the plugin registered.
        plugin: name of the plugin.
        local: registered at run time, hence in this process only.
    """

    kind: Kind
    name: str
    qualified: str
    distribution: str
    version: str | None
    target: str
    aliases: tuple[str, ...]
    summary: str
    status: Status
    spec: Spec | DatasetSpec
    plugin: str
    local: bool = False

    @property
    def key(self) -> str:
        """The shortest name that means this one, the short or the qualified one."""
        return self.name if self.status in ("ok", "deprecated") else self.qualified

    def to_dict(self) -> dict[str, Any]:
        """Return the record that ``fusionkit list --json`` prints."""
        printed = {name: getattr(self, name) for name in _PRINTED} | {"aliases": list(self.aliases)}
        about = _ABOUT_DATA if self.kind == "dataset" else ()
        return printed | {name: getattr(self.spec, name) for name in about}


_PRINTED = ("kind", "name", "qualified", "distribution", "version", "target", "aliases", "summary", "status")
_ABOUT_DATA = ("task", "licence", "citation", "origin")


def words(kind: str) -> str:
    """Return a kind as sentences name it."""
    return "data set" if kind == "dataset" else kind


class Snapshot:
    """The state of the registry: the plugins as they were loaded (``given``), and all records and names."""

    def __init__(self, given: Iterable[Plugin], *, sealed: bool = False) -> None:
        self.given = tuple(given)
        self.sealed = sealed  # Without the installed plugins; refresh() keeps it.
        # By the names used so far; filled by lookup.
        self.classes: dict[tuple[Operator, str], tuple[Record, type]] = {}
        self._meanings: dict[tuple[Kind, str], list[Record]] = {}  # By short and by qualified names.
        self._removed: dict[tuple[Kind, str], str] = {}
        self._claims: dict[tuple[Kind, str], list[Plugin]] = {}
        plugins = list(_without_clashes(self.given))
        offers = [(kind, plugin, name, spec) for plugin in plugins for kind, name, spec in _offers(plugin)]
        for kind, plugin, name, spec in offers:
            for short in _short_names(name, spec):
                if spec.removed is None:
                    self._claims.setdefault((kind, short), []).append(plugin)
                else:
                    self._removed.setdefault((kind, short), spec.removed)
                    self._removed[kind, _normalized(_qualified(plugin.distribution, short))] = spec.removed
        warnings = {plugin: list(plugin.warnings) for plugin in plugins}
        records = []
        for kind, plugin, name, spec in offers:
            if spec.removed is None:
                records.append(self._record(kind, plugin, name, spec))
                warnings[plugin] += self._enter(records[-1], plugin)
        self.records = tuple(sorted(records, key=lambda r: (KINDS.index(r.kind), r.name, canonical(r.distribution))))
        self.plugins = tuple(replace(plugin, warnings=tuple(warnings[plugin])) for plugin in plugins)
        self.loaded = tuple(plugin for plugin in self.plugins if plugin.status == "loaded")
        self.quarantined = tuple(plugin for plugin in self.plugins if plugin.status in ("failed", "incompatible"))

    def _owners(self, kind: Kind, short: str) -> list[Plugin]:
        """Return the plugins that a short name may refer to: the core if it has the name, else all that have it."""
        claims = self._claims[kind, short]
        return [plugin for plugin in claims if plugin.core] or claims

    def _record(self, kind: Kind, plugin: Plugin, name: str, spec: Spec | DatasetSpec) -> Record:
        owners = self._owners(kind, name)
        status: Status = "ok" if spec.deprecated is None else "deprecated"
        if plugin not in owners:
            status = "shadowed"
        elif len(owners) > 1:
            status = "ambiguous"
        return Record(
            kind=kind,
            name=name,
            qualified=_qualified(plugin.distribution, name),
            distribution=plugin.distribution,
            version=plugin.version,
            target=target_name(spec.target),
            aliases=spec.aliases,
            summary=spec.summary,
            status=status,
            spec=spec,
            plugin=plugin.name,
            local=plugin.local,
        )

    def _enter(self, record: Record, plugin: Plugin) -> Iterator[str]:
        """Enter the names of a record, and yield a warning for each whose short form does not mean this record."""
        for short in _short_names(record.name, record.spec):
            owners, qualified = self._owners(record.kind, short), _qualified(plugin.distribution, short)
            self._meanings[record.kind, _normalized(qualified)] = [record]
            if plugin in owners:
                self._meanings.setdefault((record.kind, short), []).append(record)
            others = " and ".join(owner.title for owner in owners if owner is not plugin)
            problem = f"comes from {others} too" if plugin in owners else "is the core's"
            if others:
                yield f"the {words(record.kind)} {short!r} {problem}: this one is {qualified!r}"

    def resolve(self, kinds: Sequence[Kind], name: str) -> Record:
        """Return the record that ``name`` means among ``kinds``.

        Raises:
            RegistryError: there is none, or more than one.
        """
        if not isinstance(name, str):
            raise RegistryError(f"the name of {_a(kinds)} should be a string; found {name!r}.")
        found = [record for kind in kinds for record in self._meanings.get((kind, _normalized(name)), [])]
        if len(found) == 1:
            return found[0]
        if len({record.kind for record in found}) > 1:
            several = " and ".join(dict.fromkeys(words(record.kind) for record in found))
            raise RegistryError(f"the name {name!r} should have one kind; found {several}: choose one with --kind.")
        if found:
            kind, choices = (
                words(found[0].kind),
                " or ".join(repr(_qualified(record.distribution, name)) for record in found),
            )
            raise RegistryError(f"the {kind} {name!r} should come from one plugin; found {len(found)}: use {choices}.")
        for kind in kinds:
            if replacement := self._removed.get((kind, _normalized(name))):
                raise RegistryError(f"the {words(kind)} {name!r} was removed: {instead(replacement)}.")
        raise RegistryError(self._unknown(kinds, name))

    def _unknown(self, kinds: Sequence[Kind], name: str) -> str:
        """Return the message for an unknown name: similar names, and plugins not loaded that may have it."""
        alike = [key for key in self._meanings if ("/" in key[1]) == ("/" in name)]
        wanted = _normalized(name) if "/" in name else name.lower().replace("-", "_")
        parts = [
            f"the name of {_a(kinds)} should be one that 'fusionkit list' shows; found {name!r}."
            f"{nearest(wanted, [other for kind, other in alike if kind in kinds])}"
        ]
        parts += [
            f"There is a {words(kind)} of this name." for kind in KINDS if kind not in kinds and (kind, name) in alike
        ]
        missing = [plugin for plugin in self.plugins if plugin.status != "loaded"]
        likely = [plugin for plugin in missing if _may_register(plugin, kinds, name)]
        for plugin in likely:
            what = "failed" if plugin.status == "failed" else f"is {plugin.status}"
            parts.append(f"It would come from {plugin.title}, which {what} because {plugin.error}.")
        if missing and not likely:
            parts.append(f"Not loaded: {', '.join(p.title for p in missing)} ('fusionkit plugins' says why).")
        return " ".join(parts)


def _may_register(plugin: Plugin, kinds: Sequence[Kind], name: str) -> bool:
    """Whether a plugin that is not loaded may register ``name``, by its distribution or what it returned."""
    distribution, slash, short = name.rpartition("/")
    if slash:
        return canonical(distribution) == canonical(plugin.distribution)
    return any(short in _short_names(own, spec) for kind in kinds for own, spec in plugin.specs.get(kind, {}).items())


def _qualified(distribution: str, name: str) -> str:
    """Return the qualified name as it is written, without the prefix: that of before, by which records are compared."""
    return f"{unprefixed(distribution)}/{name}"


def _normalized(name: str) -> str:
    """Return ``name`` with its distribution, if it is qualified, in canonical form."""
    distribution, slash, short = name.rpartition("/")
    return f"{canonical(distribution)}{slash}{short}"


def _short_names(name: str, spec: Spec | DatasetSpec) -> list[str]:
    return list(dict.fromkeys((name, *spec.aliases)))


def _a(kinds: Sequence[Kind]) -> str:
    """Return the kinds in words: ``a fusion``, ``a fusion, fabrication or data set``."""
    *before, last = map(words, kinds)
    return f"a {', '.join(before)} or {last}" if before else f"a {last}"


def instead(replacement: str) -> str:
    """Return what to use in place of a deprecated or removed name, given as a name or a phrase, as a phrase."""
    return replacement if " " in replacement else f"use {replacement!r}"


def _offers(plugin: Plugin) -> Iterator[tuple[Kind, str, Spec | DatasetSpec]]:
    """Yield kind, name and spec of everything that a loaded plugin registers; nothing for other plugins."""
    if plugin.status == "loaded":
        for kind, specs in plugin.specs.items():
            for name, spec in specs.items():
                yield kind, name, spec


def _without_clashes(plugins: Iterable[Plugin]) -> Iterator[Plugin]:
    """Yield the plugins; one that registers a qualified name which an earlier plugin has is quarantined."""
    taken: dict[tuple[Kind, str], Plugin] = {}
    for plugin in plugins:
        names = [
            (kind, _normalized(_qualified(plugin.distribution, short)))
            for kind, name, spec in _offers(plugin)
            for short in _short_names(name, spec)
        ]
        clash = next((name for name in names if name in taken), None)
        if clash is None:
            taken.update(dict.fromkeys(names, plugin))
            yield plugin
        else:
            (kind, name), first = clash, taken[clash].name
            problem = f"the {words(kind)} {name!r} should be registered once; found it in the plugin {first!r} already"
            yield plugin.failed(PluginProblem(problem))
