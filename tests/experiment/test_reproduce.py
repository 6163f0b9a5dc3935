from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fusionkit.config import compose, config_hash
from fusionkit.config.composition import compose_twice
from fusionkit.experiment import reproduce
from fusionkit.experiment.reproduce import command
from tests.exhaustive import exhaustive

RUN = Path("some where/run")


def command_of(words: list[str]) -> tuple[str | None, dict[str, Any]]:
    config = compose(words)
    return command({"config": config}, RUN), config


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fusion.preprocess=[{_target_: torch.nn.GELU}]", "train.optimizer=sgd"],
        ["data=npz", "data.path='a b/$x.npz'"],
        [
            "data=table",
            "data.path={rna: a.csv, scan: 'b c.csv'}",
            "data.label=[x,y]",
            "data.views={a: [p, q], b: 'scan_*'}",
        ],
        ["data=table", "data.path=a.csv", "data.label='\"Größe\"'", "train.class_weight={yes: 5}", "metric=f1_macro"],
        ["fabrication=view_lowrank", "fabrication.r=[1,2,3,1,2,3]", "train.precision='64-true'"],
        *exhaustive(
            [
                ["seed=3", "data=digits", "data.fold=2"],
                ["fabrication=lowrank", "fabrication.r=4", "n=32"],
                ["fusion=summation", "model.encoder=linear", "train.lr=0.005"],
                ["fusion=lowrank_parameterized_concatenation"],
                ["fusion/preprocess=tanh"],
            ]
        ),
    ],
    ids=lambda words: " ".join(words) or "default",
)
def test_the_command_composes_to_the_config_of_the_record(words: list[str]) -> None:
    found, config = command_of(words)
    assert found is not None
    program, run, *overrides = shlex.split(found)
    assert (program, run) == ("fusionkit", "run")
    assert compose(overrides) == config
    assert config_hash(compose(overrides)) == config_hash(config)


def test_the_command_is_short() -> None:
    assert command_of([])[0] == "fusionkit run"
    words = ["data=digits", "fabrication=lowrank", "fabrication.r=4", "seed=3", "data.fold=2"]
    assert command_of(words)[0] == f"fusionkit run {' '.join(words)}"


def test_the_keys_that_a_record_of_before_lacks_are_at_the_defaults_of_their_options() -> None:
    config = compose(["data=npz", "data.path=/x.npz", "train.epochs=3"])
    assert config["task"] == "auto"
    for group, keys in {
        "data": ("test_path", "validation_size", "missing", "impute"),
        "train": ("loss", "focal_gamma", "class_weight", "patience", "refit", "view_dropout"),
        "fusion": ("missing",),
    }.items():
        config[group] = {key: value for key, value in config[group].items() if key not in keys}
    for key in ("task", "metric"):
        del config[key]
    # What was learnt is said: by default the label decides now.
    expected = "fusionkit run data=npz 'data.path=\"/x.npz\"' task=classification train.epochs=3"
    assert command({"config": config}, RUN) == expected


def counted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list that is filled with the overrides that are composed."""
    calls: list[list[str]] = []

    def composing(overrides: Sequence[str]) -> Any:
        calls.append(list(overrides))
        return compose_twice(overrides)

    reproduce._composed.cache_clear()
    monkeypatch.setattr(reproduce, "compose_twice", composing)
    return calls


def test_runs_that_differ_in_values_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [compose(["train.epochs=7"]), compose(["n=9", "train.lr=0.5"]), compose(["fusion.n=9", "seed=2"])]
    calls = counted(monkeypatch)
    found = [command({"config": {**config, "seed": seed}}, RUN) for config in configs for seed in range(2)]
    words = ["train.epochs=7", "n=9 train.lr=0.5", "fusion.n=9"]
    assert found == [f"fusionkit run {overrides}{tail}" for overrides in words for tail in ("", " seed=1")]
    assert calls == [[]]


@pytest.mark.parametrize(
    "words",
    [
        ["n=9"],
        ["fusion.n=9", "n=5"],
        ["fabrication=lowrank", "fabrication.r=4", "train.epochs=7"],
        ["fusion=summation", "model.encoder=mlp", "train.patience=3", "data.validation_size=0.25"],
        ["data=digits", "task=classification", "fusion.postprocess=relu", "train.lr=1e-05"],
        ["fabrication=view_lowrank", "fabrication.r=[1,2,3,1,2,3]", "train.precision='64-true'", "dims=[1,2]"],
    ],
    ids=" ".join,
)
def test_references_are_followed_as_hydra_does(words: list[str]) -> None:
    choices = tuple(word for word in words if word.split("=")[0] in ("data", "fusion", "fabrication"))
    others = [word for word in words if word not in choices]
    flat = reproduce._flatten(compose(words))
    values = {
        tuple(key.split(".")): flat[tuple(key.split("."))] for key, _, _ in (one.partition("=") for one in others)
    }
    followed = reproduce._followed(choices, values)
    assert followed == (None if "train.precision='64-true'" in words else flat)


def test_what_cannot_be_composed_is_repeated_from_its_directory() -> None:
    config = compose([])
    config["train"] = {**config["train"], "a_key_of_another_release": 1}
    assert command({"config": config}, RUN) == "fusionkit run --from 'some where/run'"


@pytest.mark.parametrize("config", [None, [], {}, {"fusion": None}, {"fusion": {"name": 3}}])
def test_records_without_a_config(config: Any) -> None:
    assert command({"config": config}, RUN) in (None, "fusionkit run --from 'some where/run'")
