from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from fusionkit.config import compose, config_hash
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


def test_runs_of_a_group_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusionkit.experiment import reproduce

    config = compose(["train.epochs=7"])
    calls: list[Any] = []

    def counted(overrides: list[str]) -> dict[str, Any]:
        calls.append(overrides)
        return compose(overrides)

    reproduce._composed.cache_clear()
    monkeypatch.setattr(reproduce, "compose", counted)
    found = [command({"config": {**config, "seed": seed}}, RUN) for seed in range(3)]
    assert found == [f"fusionkit run train.epochs=7{tail}" for tail in ("", " seed=1", " seed=2")]
    assert calls == [[], ["train.epochs=7"]]


def test_what_cannot_be_composed_is_repeated_from_its_directory() -> None:
    config = compose([])
    config["train"] = {**config["train"], "a_key_of_another_release": 1}
    assert command({"config": config}, RUN) == "fusionkit run --from 'some where/run'"


@pytest.mark.parametrize("config", [None, [], {}, {"fusion": None}, {"fusion": {"name": 3}}])
def test_records_without_a_config(config: Any) -> None:
    assert command({"config": config}, RUN) in (None, "fusionkit run --from 'some where/run'")
