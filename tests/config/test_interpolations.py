from __future__ import annotations

from typing import Any

import omegaconf
import pytest
from omegaconf import OmegaConf

from fusionkit.config import interpolations
from fusionkit.config.composition import prepare
from fusionkit.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "$n and {x}",
        "${n}",
        "${data.dims}",
        "${..sibling}",
        "${data[dims]}",
        "a-${n}-${seed}",
        "${oc.select:train.lr}",
        "${oc.select:train.lr,1}",
        "${oc.select:train.lr,${n}}",
        "${now:%Y-%m-%d}",
        "${hydra:runtime.cwd}",
        "${fusionkit.run_name:}",
        "${fusionkit.before_head:layer_norm}",
        r"\${oc.env:HOME}",
        "${hydra_override_dirname:}",
    ],
)
def test_plain_references_and_harmless_resolvers_are_permitted(text: str) -> None:
    interpolations.check({"a": [text]})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("${oc.env:HOME}", "the resolver 'oc.env'"),
        ("a${oc.env:HOME}b", "the resolver 'oc.env'"),
        ("${n}${oc.env:HOME}", "the resolver 'oc.env'"),
        ("${oc.decode:'1'}", "the resolver 'oc.decode'"),
        ("${oc.create:{a:1}}", "the resolver 'oc.create'"),
        ("${fusionkit.other:}", "the resolver 'fusionkit.other'"),
        ("${hydra_override_dirname:{element_resolver: x}}", "the resolver 'hydra_override_dirname'"),
        ("${${n}:x}", "the computed resolver name '${n}'"),
        ("${oc.${n}:x}", "the computed resolver name 'oc.${n}'"),
        ("${a.${n}}", "the computed reference '${a.${n}}'"),
        ("${a[${n}]}", "the computed reference '${a[${n}]}'"),
        ("${now:${n}}", "the computed argument '${n}'"),
        ("${now:'${n}'}", "the computed argument"),
        ("${oc.select:${n}}", "the computed argument '${n}'"),
        ("${oc.select:[${n}]}", "the computed argument '[${n}]'"),
        ("${oc.select:a,${oc.env:HOME}}", "the resolver 'oc.env'"),
        ("${oc.select:a,{b: ${oc.env:HOME}}}", "the resolver 'oc.env'"),
    ],
)
def test_all_others_are_refused_with_key_and_text(text: str, found: str) -> None:
    with pytest.raises(ConfigError) as error:
        interpolations.check({"a": [{"b": text}]}, "top")
    message = str(error.value)
    assert message.startswith(
        "top.a[0].b should use only plain references and fusionkit.before_head, fusionkit.run_name, hydra, now, "
        "oc.select; "
    )
    assert f"found {found}" in message
    assert repr(text) in message


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(ConfigError) as error:
        interpolations.check({"a": "${oc.env:HOME}", "b": [{"c": "${"}], "_target_": "${n}", "d": "${n}"})
    assert [key for key in ("a", "b[0].c", "_target_", "d") if f"{key} should " in str(error.value)] == [
        *("a", "b[0].c", "_target_")
    ]


@pytest.mark.parametrize("text", ["${", "${n", "${}", "${a:", "${a b}"])
def test_malformed_interpolations_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^a should .*found "):
        interpolations.check({"a": text})


@pytest.mark.parametrize("key", ["_target_", "_recursive_", "_partial_", "_convert_", "_args_"])
def test_keys_that_control_instantiation_are_written_out(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^fusion\.{key} should .*found "):
        interpolations.check({"fusion": {key: "${n}"}})


def test_resolve_gives_plain_containers_and_keeps_what_is_missing() -> None:
    cfg = OmegaConf.create({"n": 3, "a": {"b": "${n}", "c": ["${.0}", "x${n}"], "d": "???"}})
    cfg.a.c[0] = "${n}"
    found = interpolations.resolve(cfg)
    assert found == {"n": 3, "a": {"b": 3, "c": [3, "x3"], "d": "???"}}
    assert type(found["a"]) is dict
    assert type(found["a"]["c"]) is list


def test_resolve_refers_to_the_whole_of_which_a_node_is_part() -> None:
    cfg = OmegaConf.create({"n": 3, "fusion": {"n": "${n}"}})
    assert interpolations.resolve(cfg.fusion) == {"n": 3}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": "${nothing}"}, "a should lead to a value; found: Interpolation key 'nothing' not found"),
        ({"a": {"b": "${a}"}}, "should "),
        ({"a": "${b}", "b": "${a}"}, "should "),
        ({"a": "${b}", "b": "???"}, "should refer to a value; found one that is missing"),
    ],
)
def test_resolve_refuses_what_leads_nowhere(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        interpolations.resolve(OmegaConf.create(tree))


def test_nothing_is_resolved_before_everything_was_checked() -> None:
    """A harmless reference to a harmful one must not be followed."""
    fired: list[int] = []
    prepare()
    old = omegaconf.__version__.startswith("2.3")
    register: Any = OmegaConf.register_new_resolver if old else OmegaConf.register_resolver
    register("late", lambda: fired.append(1))
    try:
        with pytest.raises(ConfigError, match=r"z should use only plain references .*'late'"):
            interpolations.resolve(OmegaConf.create({"a": "${z}", "z": "${late:}"}))
        with pytest.raises(ConfigError, match="'late'"):
            interpolations.resolve({"a": "${z}", "z": "${late:}"})
    finally:
        OmegaConf.clear_resolver("late")
    assert not fired
