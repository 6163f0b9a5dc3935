"""What every name means, computed from the plugins that were found.  Plain data; nothing is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from fusionkit.errors import RegistryError, nearest
from fusionkit.hookspecs import Spec
from fusionkit.registry.discovery import canonical
from fusionkit.registry.loading import Kind, Plugin, PluginProblem, mentions

__all__ = ["KINDS", "Record", "Snapshot", "instead"]

Status = Literal["ok", "deprecated", "shadowed", "ambiguous"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Record:
    """One name of the registry.

    Attributes:
        kind: fusion or fabrication.
        name: the short name.
        qualified: ``<distribution>/<name>``.
        distribution: who offers it.
        version: of the distribution, None where it has none.
        target: ``package.module:Class``.
        aliases: its other names.
        summary: one line, or empty.
        status: ok, deprecated, shadowed (the short name is the core's) or ambiguous (several plugins have it).
        spec: what the plugin registered.
        plugin: the name of the plugin.
        local: registered at run time, hence known to this process only.
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
    spec: Spec
    plugin: str
    local: bool = False

    @property
    def key(self) -> str:
        """Return the shortest name that means this operator and no other."""
        return self.name if self.status in ("ok", "deprecated") else self.qualified

    def to_dict(self) -> dict[str, Any]:
        """Return the record that ``fusionkit list --json`` prints."""
        return {
            "kind": self.kind,
            "name": self.name,
            "qualified": self.qualified,
            "distribution": self.distribution,
            "version": self.version,
            "target": self.target,
            "aliases": list(self.aliases),
            "summary": self.summary,
            "status": self.status,
        }


class _Names:
    """What the names of one kind mean."""

    def __init__(self, kind: Kind, plugins: Iterable[Plugin]) -> None:
        self.short: dict[str, list[Record]] = {}
        self.qualified: dict[str, Record] = {}
        self.removed: dict[str, str] = {}
        offers = [(plugin, name, spec) for plugin in plugins for name, spec in plugin.specs.get(kind, {}).items()]
        self.claims: dict[str, list[Plugin]] = {}
        for plugin, name, spec in offers:
            if spec.removed is None:
                for short in _shorts(name, spec):
                    self.claims.setdefault(short, []).append(plugin)
        for plugin, name, spec in offers:
            if spec.removed is None:
                self._enter(kind, plugin, name, spec)
            else:
                for short in _shorts(name, spec):
                    self.removed.setdefault(short, spec.removed)
                    self.removed[_normal(f"{plugin.distribution}/{short}")] = spec.removed

    def meanings(self, name: str) -> list[Record]:
        """Return what a short or qualified name, or an alias, may mean."""
        if "/" in name:
            record = self.qualified.get(_normal(name))
            return [record] if record else []
        return self.short.get(name, [])

    def owners(self, short: str) -> list[Plugin]:
        """Return the plugins that a short name may mean: the core alone, if it is the core's."""
        claims = self.claims.get(short, [])
        return [plugin for plugin in claims if plugin.core] or claims

    def _enter(self, kind: Kind, plugin: Plugin, name: str, spec: Spec) -> None:
        record = Record(
            kind=kind,
            name=name,
            qualified=f"{plugin.distribution}/{name}",
            distribution=plugin.distribution,
            version=plugin.version,
            target=_target(spec),
            aliases=spec.aliases,
            summary=spec.summary,
            status=self._status(plugin, name, spec),
            spec=spec,
            plugin=plugin.name,
            local=plugin.local,
        )
        for short in _shorts(name, spec):
            self.qualified[_normal(f"{plugin.distribution}/{short}")] = record
            if plugin in self.owners(short):
                self.short.setdefault(short, []).append(record)

    def _status(self, plugin: Plugin, name: str, spec: Spec) -> Status:
        owners = self.owners(name)
        if plugin not in owners:
            return "shadowed"
        if len(owners) > 1:
            return "ambiguous"
        return "ok" if spec.deprecated is None else "deprecated"


class Snapshot:
    """The registry at one moment: the plugins as they were loaded (``given``), and what follows from them."""

    def __init__(self, given: Iterable[Plugin], *, sealed: bool = False) -> None:
        self.given = tuple(given)
        self.sealed = sealed  # Isolated from what is installed: refresh() must not look.
        plugins = _without_clashes(self.given)
        self.names = {kind: _Names(kind, [plugin for plugin in plugins if plugin.status == "loaded"]) for kind in KINDS}
        self.plugins = tuple(replace(plugin, warnings=tuple(self._unusable(plugin))) for plugin in plugins)
        self.loaded = tuple(plugin for plugin in self.plugins if plugin.status == "loaded")
        self.quarantined = tuple(plugin for plugin in self.plugins if plugin.status in ("failed", "incompatible"))
        found = {id(record): record for kind in KINDS for record in self.names[kind].qualified.values()}
        self.records = tuple(
            sorted(found.values(), key=lambda r: (KINDS.index(r.kind), r.name, canonical(r.distribution)))
        )
        self.classes: dict[tuple[Kind, str], tuple[Record, type]] = {}  # Filled by the registry, by the names used.

    def _unusable(self, plugin: Plugin) -> Iterator[str]:
        """Yield a sentence for each name and alias of a plugin that does not work in its short form."""
        for kind in KINDS if plugin.status == "loaded" else ():
            for name, spec in plugin.specs.get(kind, {}).items():
                for short in _shorts(name, spec) if spec.removed is None else ():
                    owners = self.names[kind].owners(short)
                    qualified = f"{plugin.distribution}/{short}"
                    if plugin not in owners:
                        yield f"the {kind} {short!r} is the core's: this one is {qualified!r}"
                    elif len(owners) > 1:
                        others = " and ".join(owner.title for owner in owners if owner is not plugin)
                        yield f"the {kind} {short!r} comes from {others} too: this one is {qualified!r}"

    def resolve(self, kinds: Sequence[Kind], name: str) -> Record:
        """Return what ``name`` means among ``kinds``.

        Raises:
            RegistryError: it means nothing, or more than one thing.
        """
        if not isinstance(name, str):
            raise RegistryError(f"the name of a {' or '.join(kinds)} should be a string; found {name!r}.")
        found = [record for kind in kinds for record in self.names[kind].meanings(name)]
        if len(found) == 1:
            return found[0]
        if len({record.kind for record in found}) > 1:
            raise RegistryError(
                f"the name {name!r} should be of one kind; found a fusion and a fabrication: say which (--kind)."
            )
        if found:
            choices = " or ".join(repr(f"{record.distribution}/{name}") for record in found)
            raise RegistryError(
                f"the {found[0].kind} {name!r} should come from one plugin; found {len(found)}: use {choices}."
            )
        for kind in kinds:
            if replacement := self.names[kind].removed.get(_normal(name)):
                raise RegistryError(f"the {kind} {name!r} was removed: {instead(replacement)}.")
        raise RegistryError(self._unknown(kinds, name))

    def _unknown(self, kinds: Sequence[Kind], name: str) -> str:
        """Return the message for a name that nobody has, with whatever may help."""
        known = {kind: self.names[kind].qualified if "/" in name else self.names[kind].short for kind in KINDS}
        wanted = _normal(name) if "/" in name else name.lower().replace("-", "_")
        parts = [
            f"the name of a {' or '.join(kinds)} should be one that 'fusionkit list' shows; found {name!r}."
            f"{nearest(wanted, [other for kind in kinds for other in known[kind]])}"
        ]
        parts += [f"There is a {kind} of this name." for kind in KINDS if kind not in kinds and name in known[kind]]
        missing = [plugin for plugin in self.plugins if plugin.status != "loaded"]
        likely = [plugin for plugin in missing if _would_have(plugin, kinds, name)]
        for plugin in likely:
            what = "failed" if plugin.status == "failed" else f"is {plugin.status}"
            parts.append(f"It would come from {plugin.title}, which {what} because {plugin.error}.")
        if missing and not likely:
            parts.append(f"Not loaded: {', '.join(p.title for p in missing)} ('fusionkit plugins' says why).")
        return " ".join(parts)


def _would_have(plugin: Plugin, kinds: Sequence[Kind], name: str) -> bool:
    """Whether a plugin that is not loaded would probably have ``name``."""
    distribution, slash, short = name.rpartition("/")
    if slash:
        return canonical(distribution) == canonical(plugin.distribution)
    return any(mentions(plugin, kind, short) for kind in kinds)


def _normal(name: str) -> str:
    """Return a name with its distribution, if it has one, in canonical form."""
    distribution, slash, short = name.rpartition("/")
    return f"{canonical(distribution)}{slash}{short}"


def _target(spec: Spec) -> str:
    if isinstance(spec.target, str):
        return spec.target
    # By the descriptors themselves: a metaclass can have others, which fail.
    module, name = (vars(type)[attribute].__get__(spec.target) for attribute in ("__module__", "__qualname__"))
    return f"{module if isinstance(module, str) else None}:{name}"


def _shorts(name: str, spec: Spec) -> list[str]:
    return [name, *(alias for alias in dict.fromkeys(spec.aliases) if alias != name)]


def instead(replacement: str) -> str:
    """Return the replacement of a deprecated or removed name as a phrase; it is given as a name or as a phrase."""
    return replacement if " " in replacement else f"use {replacement!r}"


def _without_clashes(plugins: Iterable[Plugin]) -> list[Plugin]:
    """Return the plugins; of two that give one qualified name two meanings, the later one is quarantined."""
    taken: dict[tuple[Kind, str], Plugin] = {}
    result = []
    for plugin in plugins:
        offers = [
            (kind, _normal(f"{plugin.distribution}/{short}"))
            for kind, specs in plugin.specs.items()
            for name, spec in specs.items()
            for short in _shorts(name, spec)
            if plugin.status == "loaded"
        ]
        clash = next(((kind, name) for kind, name in offers if (kind, name) in taken), None)
        if clash is None:
            taken.update(dict.fromkeys(offers, plugin))
        else:
            first = taken[clash].name
            problem = f"the {clash[0]} {clash[1]!r} should be registered once; found it in the plugin {first!r} already"
            plugin = plugin.failed(PluginProblem(problem))
        result.append(plugin)
    return result
