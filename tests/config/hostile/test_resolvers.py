"""Resolvers of OmegaConf, and computed references: refused before they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fusionkit.config.interpolations import resolve
from fusionkit.errors import ConfigError
from tests.config.hostile.attacks import fired, refused

RESOLVERS = {
    "env": ("${oc.env:SECRET}", "the resolver 'oc.env'"),
    "env_with_default": ("${oc.env:NOTHING,${oc.env:SECRET}}", "the resolver 'oc.env'"),
    "decode": ("${oc.decode:'${oc.env:SECRET}'}", "the resolver 'oc.decode'"),
    "create": ("${oc.create:{a:1}}", "the resolver 'oc.create'"),
    "inside_text": ("a-${oc.env:SECRET}-b", "the resolver 'oc.env'"),
    "keys": ("${oc.dict.keys:train}", "the resolver 'oc.dict.keys'"),
    "deprecated": ("${oc.deprecated:seed}", "the resolver 'oc.deprecated'"),
    "someones": ("${tripwire:1}", "the resolver 'tripwire'"),
    "computed_name": ("${${.kind}:SECRET}", "the computed resolver name"),
    "computed_name_part": ("${oc.${.kind}:SECRET}", "the computed resolver name"),
    "computed_reference": ("${train.${.kind}}", "the computed reference"),
    "computed_argument": ("${oc.select:train.${.kind}}", "the computed argument"),
    "in_a_default": ("${oc.select:nothing,${oc.env:SECRET}}", "the resolver 'oc.env'"),
    "escaped_once": (r"\${oc.env:SECRET}", "should contain no '${'"),
}


@pytest.mark.usefixtures("_tripwire_resolver")
@pytest.mark.parametrize("name", RESOLVERS)
def test_resolver_is_refused_before_it_runs(name: str, folder: Callable[[dict[str, str]], Path]) -> None:
    text, found = RESOLVERS[name]
    if name in ("someones", "env", "env_with_default", "inside_text", "in_a_default"):
        plain = OmegaConf.to_container(OmegaConf.create({"kind": "oc.env", "x": text}), resolve=True)
        assert fired() or "swordfish" in str(plain)
    if name == "computed_name":
        assert OmegaConf.create({"kind": "oc.env", "x": text}).x == "swordfish"
    if name == "escaped_once":
        once = OmegaConf.to_container(OmegaConf.create({"x": text}), resolve=True)
        assert OmegaConf.create(once).x == "swordfish"  # type: ignore[arg-type, union-attr, unused-ignore]
    untrusted = folder(
        {"data/evil.yaml": OmegaConf.to_yaml({"name": "npz", "path": text, "dims": None, "kind": "oc.env"})}
    )
    refused(["--config-dir", str(untrusted), "data=evil"], "data.path", found)


@pytest.mark.usefixtures("_tripwire_resolver")
def test_resolvers_on_the_command_line_are_refused() -> None:
    refused(["n=${oc.env:SECRET}"], "n", "the resolver 'oc.env'")
    refused(["+fusion.extra={a: '${tripwire:1}'}"], "fusion.extra.a", "the resolver 'tripwire'")
    refused(["fusion='${tripwire:1}'"], "fusion", "the resolver 'tripwire'")


@pytest.mark.usefixtures("_tripwire_resolver")
@pytest.mark.parametrize("nest", [lambda cfg: {"a": cfg}, lambda cfg: {"a": [cfg]}], ids=["mapping", "list"])
def test_resolvers_of_a_config_inside_plain_containers_are_refused(nest: Callable[[object], object]) -> None:
    with pytest.raises(ConfigError, match="found the resolver 'tripwire'"):
        resolve(nest(OmegaConf.create({"x": "${tripwire:1}"})))
    assert not fired()
