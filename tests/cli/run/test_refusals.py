"""What is wrong before anything is written: one sentence, and no file.  Wrong values: tests/config/test_options.py."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest

from fusionkit import cli
from fusionkit.errors import ConfigError
from tests.exhaustive import exhaustive, exhaustive_unless

REFUSED = {
    "unknown_operator": (["fusion=sumation"], "found 'sumation'. Did you mean 'summation'"),
    "qualified_operator": (
        ["fusion=fusionkit/sumation"],
        "found 'fusionkit/sumation'. Did you mean 'fusionkit/summation'",
    ),
    "wrong_distribution": (["fusion=other/summation"], "found 'other/summation'. Did you mean 'fusionkit/summation'?"),
    "malformed_value": (["n==3"], "An override should have the form key=value; found 'n==3'."),
    "unknown_fabrication": (["fabrication=lowrnk"], "found 'lowrnk'. Did you mean 'lowrank'"),
    "unknown_preset": (["fusion=lowrank_parametrized_concatenation"], "'lowrank_parameterized_concatenation'"),
    "file_as_data": (["data=mine.csv"], "not the file; write data=table data.path=mine.csv data.label=COLUMN."),
    "arrays_as_data": (["data=mine.npz"], "not the file; write data=npz data.path=mine.npz."),
    "unknown_data": (["data=mfaet"], "There is no data 'mfaet'. Did you mean 'mfeat'?"),
    "unknown_group": (["fabricaton=dense"], "There is no key 'fabricaton'. Did you mean 'fabrication'?"),
    "unknown_experiment": (["+experiment=debgu"], "There is no experiment 'debgu'. Did you mean 'debug'?"),
    "unknown_key": (["fusion.nn=3"], "There is no key 'fusion.nn'. Did you mean 'fusion.n'?"),
    "unknown_deep_key": (["fabrication=lowrank", "fabrication.rr=3"], "Did you mean 'fabrication.r'?"),
    "unknown_top_key": (["ssed=3"], "There is no key 'ssed'. Did you mean 'seed'?"),
    "added_key": (["+train.epoch=3"], "There is no key 'train.epoch'. Did you mean 'train.epochs'?"),
    "added_option": (
        ["+fusion.prepocess=linear"],
        "There is no key 'fusion.prepocess'. Did you mean 'fusion.preprocess' or",
    ),
    "added_top_key": (["+nn=3"], "There is no key 'nn'. Did you mean 'n'?"),
    "deleted_key": (["~seed"], "seed should be in the configuration; found nothing."),
    "deleted_group": (["~data"], "data should be in the configuration; found nothing."),
    "quoted_name_in_a_mapping": (
        ["data=npz", "data.path=x.npz", 'train.class_weight={no: 1, "Größe": 5}'],
        'should have plain letters, without quotes; a mapping with "Größe" can stand in a config file alone',
    ),
    "name_in_a_mapping_with_other_letters": (["train.class_weight={Größe: 5}"], "a mapping with Größe can stand in"),
    "malformed": (["fusion={"], "An override should have the form key=value; found 'fusion={'"),
    "no_value": (["fusion"], "An override should have the form key=value; found 'fusion'. Did you mean fusion=...?"),
    "bare_option": (["lowrank"], "the form key=value; found 'lowrank'. Did you mean fabrication=lowrank?"),
    "misspelt_bare_option": (["mfaet"], "found 'mfaet'. Did you mean data=mfeat?"),
    "bare_key": (["seed", "3"], "the form key=value; found 'seed'. Did you mean seed=...?"),
    "bare_nonsense": (["a b"], "An override should have the form key=value; found 'a b'."),
    "flag_for_key": (["--epochs", "3"], "found '--epochs 3'. Did you mean train.epochs=3?"),
    "flag_with_value": (["--batch-size=8"], "found '--batch-size=8'. Did you mean train.batch_size=8?"),
    "flag_alone": (["--lr", "seed=1"], "the form key=value; found '--lr'. Did you mean train.lr=...?"),
    "flag_for_option": (["fabrication=lowrank", "--r", "4"], "found '--r 4'. Did you mean fabrication.r=4?"),
    "flag_beside_a_mistake": (["fusion=nope", "--seed", "4"], "found '--seed 4'. Did you mean seed=4?"),
    "short_flag": (["-n", "32"], "found '-n 32'. Did you mean n=32?"),
    "unknown_flag": (["--bogus"], "--from; found '--bogus'. Overrides have the form key=value."),
    "abbreviated_flag": (["--multi"], "found '--multi'. Did you mean '--multirun'?"),
    "key_of_another_option": (
        ["data.path=x.npz"],
        "There is no key 'data.path' here. It belongs to data=folder, data=npz, data=table.",
    ),
    "key_of_another_option_misspelt": (
        ["fabrication.rank=4"],
        "There is no key 'fabrication.rank'. Did you mean fabrication.r, which belongs to "
        "fabrication=dual_lowrank_kronecker, fabrication=khatri_rao, fabrication=lowrank,",
    ),
    "key_by_its_meaning": (
        ["fabrication=lowrank", "fabrication.rank=4"],
        "There is no key 'fabrication.rank'. Did you mean 'fabrication.r'?",
    ),
    "key_of_a_group": (["epochs=3"], "There is no key 'epochs'. Did you mean 'train.epochs'?"),
    "key_below_a_value": (["n.m=3"], "There is no key 'n.m', because n is a single value."),
    "null_group": (["fusion=null"], "A group should be set to the name of one of its options; found null."),
    "sweep_without_m": (
        ["seed=0,1"],
        "seed should be one value in a single run; found '0,1'.  Add -m to sweep over it",
    ),
    "missing_value": (["data=npz"], "data.path should be given, as in data.path=...; found nothing."),
    "negative_n": (["n=-3"], "error: n should be an integer of at least 1; found -3.\n"),
    "wrong_dims": (["dims=[0]"], "error: dims should be a list of integers of at least 1, or null; found [0].\n"),
    "wrong_data_dims": (
        ["data.dims=3"],
        "error: data.dims should be a list of integers of at least 1, or null; found 3.\n",
    ),
    "launcher_as_a_key": (
        ["-m", "seed=0,1", "hydra.launcher=joblib"],
        "hydra.launcher should be a mapping, written out; found 'joblib'. Did you mean hydra/launcher=joblib?",
    ),
    "path_as_name": (["fusion.name=os:system"], "fusion.name"),
    "two_modes": (["--cfg", "job", "--info"], "Only one of --run, --multirun, --cfg, --info"),
    "resolve_alone": (["--resolve"], "--resolve should be given with --cfg or --help"),
    "no_config_dir": (["--config-dir", "nowhere"], "--config-dir should be an existing folder; found 'nowhere'."),
    "no_config_path": (["--config-path", "nowhere"], "--config-path should be an existing folder; found 'nowhere'."),
    "no_config_name": (["--config-name", "confg"], "There should be a primary config 'confg'"),
    "dangling": (["n=${nothing}"], "error: n should lead to a value; found: Interpolation key 'nothing' not found"),
    "no_group_value": (["+fusion@x=average"], "x"),
}
if find_spec("submitit") is None:
    REFUSED["missing_launcher"] = (
        ["-m", "seed=0,1", "hydra/launcher=submitit_slurm"],
        "There is no hydra/launcher 'submitit_slurm'. pip install 'tensor-fusionkit[launchers]' installs it.",
    )
if hydra.__version__.startswith("1.3"):
    # The other line writes the reference out and changes the copy.
    REFUSED["below_a_reference"] = (
        ["fusion.parameter_fabrication.name=lowrank"],
        "fusion.parameter_fabrication.name should be set where fusion.parameter_fabrication is taken from, "
        "${fabrication}; found it below a reference.",
    )

# Each is one more instance of a mistake that is among the others.
REPEATED = {
    "unknown_fabrication",
    "unknown_preset",
    "unknown_data",
    "unknown_group",
    "unknown_experiment",
    "unknown_top_key",
    "flag_beside_a_mistake",
    "wrong_data_dims",
    "no_config_path",
    "unknown_deep_key",
    "key_by_its_meaning",
    "added_option",
    "added_top_key",
    "deleted_group",
    "bare_key",
    "misspelt_bare_option",
    "flag_with_value",
    "flag_for_option",
    "short_flag",
}


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name not in REPEATED, REFUSED))
def test_a_wrong_command_line_is_one_sentence_and_writes_nothing(
    name: str, run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    argv, message = REFUSED[name]
    status, out, err = run(*argv)
    assert status == 2
    assert " ".join(message.split()) in err, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert list(Path.cwd().iterdir()) == []
    assert trained == []


def test_a_folder_in_place_of_the_form_of_the_data(run: Callable[..., tuple[int, str, str]]) -> None:
    Path("arrays").mkdir()
    status, _, err = run("data=arrays")
    assert (status, err.count("\n")) == (2, 1)
    assert "not the folder; write data=folder data.path=arrays." in err


@pytest.mark.parametrize("argv", [["--cfg", "jbo"], ["--cfg"], ["--resolve=yes"]])
def test_other_mistakes_are_reported_by_hydras_parser(
    argv: list[str], run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: fusionkit run ")
    assert f"Error: argument {argv[0].partition('=')[0]}" in err
    assert trained == []


def test_debug_leaves_the_error_to_the_interpreter_with_its_cause() -> None:
    with pytest.raises(ConfigError, match="sumation") as error:
        cli.main(["run", "--debug", "fusion=sumation"])
    assert "MissingConfigException" in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fusion=summation"], "216"),
        (["fusion=median"], "model.encoder=linear makes the views equally wide."),
        (["fusion=average", "dims=null", "fusion.dims=null"], "216"),
        (["fusion=average", "data=npz", "data.path={unequal}"], "model.encoder=linear makes the views equally wide."),
        (["fusion=concatenation", "fusion.n=32"], "should be 649 for concatenation with dims [76, "),
        (["device=cuda:99"], "device should be one of this machine: cpu"),
        (["device=tpu"], "found 'tpu'"),
        (["device=meta"], "device should be one that computes; found 'meta'."),
        (["device=cpu:3"], "found 'cpu:3'"),
        (
            ["fusion=concatenation", "fabrication=lowrank"],
            "fabrication should be dense, because the fusion 'concatenation' takes none; found 'lowrank'.",
        ),
        (
            ["fusion=lowrank_parameterized_concatenation", "fabrication=lowrank", "fabrication.r=3"],
            "fabrication should be left at dense, because this fusion fixes its own, 'lowrank'",
        ),
        (["fusion=lowrank_parameterized_concatenation", "fabrication=toeplitz"], "this fusion fixes its own"),
        (
            ["fusion=concatenation", "model.head=none"],
            "The output of 'concatenation' should have the width 10, the number of classes, labels or targets, because "
            "model.head is none; found 649.",
        ),
        (
            ["data=npz", "data.path={equal}", "fusion=average", "model.head=none"],
            "should have the width 2, the number of classes, labels or targets, because model.head is none; found 4. "
            "model.encoder=linear gives it views of that width; model.head=linear takes any width.",
        ),
        (["fusion.n=32", "model.head=none"], "because model.head is none; found 32. model.head=linear takes any"),
        (["n=32", "model.head=none"], "n should be 10, the number of classes, labels or targets, or not given"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    argv: list[str],
    message: str,
    run: Callable[..., tuple[int, str, str]],
    trained: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("data")
    label = np.arange(8) % 2
    np.savez(folder / "equal.npz", a=np.ones((8, 4)), b=np.ones((8, 4)), label=label)
    np.savez(folder / "unequal.npz", a=np.ones((8, 4)), label=label, b=np.ones((8, 3)))
    places = {name: folder / f"{name}.npz" for name in ("equal", "unequal")}
    status, _, err = run(*(argument.format(**places) for argument in argv))
    assert status == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []
    assert trained == []


@pytest.mark.parametrize(
    ("argv", "width"),
    [
        (["fusion=concatenation", "n=32"], 649),
        (["fusion=average", "data=digits", "n=32"], 16),
        (["fusion=concatenation"], None),
        (["-m", "fusion=concatenation,parameterized_concatenation", "n=32"], None),
        (["fusion.n=10", "model.head=none"], None),
        *exhaustive(
            [(["fusion=concatenation", "++n=32"], 649), (["fusion=concatenation", "n=649"], None), (["n=32"], None)]
        ),
    ],
)
def test_an_n_that_is_not_used_is_told(
    argv: list[str], width: int | None, run: Callable[..., tuple[int, str, str]], trained: list[Any]
) -> None:
    status, _, err = run(*argv)
    assert status == 0
    assert trained != []
    assert ("note: n=" in err) == (width is not None)
    assert (
        width is None
        or f"n=32 is not used, because the output of the fusion '{argv[0][7:]}' has the width {width}," in err
    )


def test_a_single_run_is_composed_once_and_validated_once(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusionkit.config import composition, options

    calls: Counter[str] = Counter()
    for module, name in ((composition, "plain_config"), (options, "check")):
        whole = getattr(module, name)

        def counted(*args: Any, whole: Any = whole, name: str = name, **kwargs: Any) -> Any:
            calls[name] += 1
            return whole(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)
    assert run()[0] == 0
    assert calls == {"plain_config": 1, "check": 1}
