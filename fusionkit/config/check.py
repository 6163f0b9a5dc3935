"""The static check of all configs: each composes, is safe, fits its constructor, and is not hidden by another file."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hydra.core.default_element import GroupDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fusionkit import registry
from fusionkit._util.distribution import DISTRIBUTION
from fusionkit._util.text import one_line
from fusionkit.config.composition import CheckingLoader, plain_config, prepare, search_path
from fusionkit.config.folders import conf_dir, folder_of
from fusionkit.config.hydra_bridge import raw
from fusionkit.config.nodes import group_of
from fusionkit.config.options import check
from fusionkit.errors import ConfigError, RegistryError, nearest

SCHEMA_VERSION = 1
GENERATED = "generated"
#: Group and option of the primary config in findings.
PRIMARY = ("config", "config")


@dataclass(frozen=True)
class Finding:
    """The result of the check of one option.

    Attributes:
        group: such as ``fusion`` or ``fusion/preprocess``; ``config`` for the primary config.
        option: its name, as in ``group=option``.
        distribution: the distribution that offers it.
        source: its file, or ``generated``.
        status: ok, failed, shadowed (another file of that name comes first) or missing (an offered folder has no
            configs).
        message: what is wrong; empty when ok.
    """

    group: str
    option: str
    distribution: str
    source: str
    status: Literal["ok", "failed", "shadowed", "missing"]
    message: str = ""


def check_all() -> Iterator[Finding]:
    """Check the primary config and every option of every group, fusionkit's and the plugins'; nothing is built.

    Yields:
        one finding per option, once it is checked; before them those of missing folders and hidden files.
    """
    prepare()
    files, findings = _files()
    yield from findings
    examiner = Examiner(CheckingLoader(search_path(), level="options"))
    yield examiner.option(*PRIMARY, DISTRIBUTION, str(conf_dir() / "config.yaml"))
    for (group, option), (distribution, file) in sorted(files.items()):
        yield examiner.option(group, option, distribution, str(file))
    for record in registry.records():
        if (group_of(record.kind), record.key) not in files:
            yield examiner.option(group_of(record.kind), record.key, record.distribution, GENERATED)


def report(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as ``conf check --json`` prints them."""
    counts = Counter(finding.status for finding in findings)
    return {
        "schema_version": SCHEMA_VERSION,
        "results": [asdict(finding) for finding in findings],
        "summary": {status: counts[status] for status in ("ok", "failed", "shadowed", "missing")},
    }


def _files() -> tuple[dict[tuple[str, str], tuple[str, Path]], list[Finding]]:
    """Return the files that Hydra reads, by group and option, with findings on hidden files and missing folders."""
    offers: dict[tuple[str, str], list[tuple[str, Path]]] = defaultdict(list)
    findings = []
    for distribution, path in [(DISTRIBUTION, str(conf_dir())), *registry.conf_paths()]:
        folder = folder_of(path)
        found = [(file, file.relative_to(folder)) for file in sorted(folder.rglob("*.yaml"))] if folder else []
        if not found:
            message = f"{distribution} should have configs in the folder it offers; found none at {path}."
            findings.append(Finding("", "", distribution, path, "missing", message))
        for file, place in found:
            if len(place.parts) > 1:
                offers[place.parent.as_posix(), file.stem].append((distribution, file))
    for (group, option), ((first, _), *hidden) in sorted(offers.items()):
        for distribution, file in hidden:
            message = f"{group}/{option} should come from one place; found that of {distribution} hidden by {first}'s."
            findings.append(Finding(group, option, distribution, str(file), "shadowed", message))
    return {key: files[0] for key, files in offers.items()}, findings


class Examiner:
    """Checks options, each as part of a whole configuration.

    Hydra takes a quarter of a second to compose a configuration, most of it for its own node.  An option without a
    defaults list is therefore put into the composed default configuration, as Hydra would; all others are composed by
    Hydra.

    Args:
        loader: checks every configuration that it composes, except for missing values.
    """

    def __init__(self, loader: CheckingLoader) -> None:
        self.loader = loader
        self._base: DictConfig | None = None

    def option(self, group: str, option: str, distribution: str, source: str) -> Finding:
        """Check the primary config, which comes first, or one option of a group."""
        addition = "+" if group.partition("/")[0] == "experiment" else ""
        try:
            if (group, option) == PRIMARY:
                whole = raw(self._compose([]))
                self._base = OmegaConf.create({name: value for name, value in whole.items() if name != "hydra"})
            elif not self._put(group, option):
                for overrides in self._jobs([f"{addition}{group}={option}"]):
                    # An experiment may be a sweep; each of its jobs is a run.
                    self._compose([*overrides, "hydra.mode=RUN"])
        except (ConfigError, RegistryError) as error:
            return Finding(group, option, distribution, source, "failed", one_line(str(error)))
        return Finding(group, option, distribution, source, "ok")

    def _compose(self, overrides: list[str], *, multirun: bool = False) -> DictConfig:
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        return self.loader.load_configuration("config", overrides, mode, from_shell=False)

    def _put(self, group: str, option: str) -> bool:
        """Put an option into the default configuration and check the whole; False if only Hydra can do that."""
        tree = copy.deepcopy(self._base)
        if tree is None or not self._merge(tree, group, option):
            return False
        check(plain_config(tree), complete=False)
        return True

    def _merge(self, tree: DictConfig, group: str, option: str) -> bool:
        """Merge one config into the unresolved tree as Hydra would; False if only Hydra can do that."""
        with self.loader.explaining_errors([]):
            loaded: Any = self.loader.repository.load_config(f"{group}/{option}")
        if loaded is None or not OmegaConf.is_dict(loaded.config):
            return False
        for default in loaded.defaults_list or ():
            if not (default.is_self() or (_is_plain(default) and self._merge(tree, default.group[1:], default.value))):
                return False
        header, package = loaded.header["package"], group.replace("/", ".")
        if header == "_global_" and "hydra" not in loaded.config:
            tree.merge_with(loaded.config)
        elif header in (None, "_group_", package):
            OmegaConf.update(tree, package, loaded.config, merge=False, force_add=True)
        else:
            return False
        return True

    def _jobs(self, overrides: list[str]) -> Iterator[list[str]]:
        """Yield the overrides of jobs in which every value of every swept key of an experiment occurs once.

        Of a group only the first option: all of them are checked one by one as options.
        """
        master = raw(self._compose(overrides, multirun=True))
        params = (master["hydra"].get("sweeper") or {}).get("params") or {}
        lines = [f"{key}={value}" for key, value in params.items()]
        swept: dict[str, list[str]] = {}
        for override in OverridesParser.create(config_loader=self.loader).parse_overrides(lines):
            values = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
            values = values or [override.get_value_element_as_str()]
            if self.loader.repository.group_exists(override.key_or_group):
                self._known(override.key_or_group, values)
                values = values[:1]
            swept[override.get_key_element()] = values
        for index in range(max(map(len, swept.values()), default=1)):
            yield [*overrides, *(f"{key}={found[min(index, len(found) - 1)]}" for key, found in swept.items())]

    def _known(self, group: str, options: list[str]) -> None:
        for option in options:
            if not self.loader.repository.config_exists(f"{group}/{option}"):
                known = self.loader.repository.get_group_options(group)
                raise ConfigError(f"There is no {group} {option!r}.{nearest(option, known)}")


def _is_plain(default: Any) -> bool:
    """Whether an entry of a defaults list chooses an option by its name, instead of the one chosen elsewhere."""
    if not isinstance(default, GroupDefault) or not default.is_override():
        return False
    return (default.group or "").startswith("/") and isinstance(default.value, str) and "${" not in default.value
