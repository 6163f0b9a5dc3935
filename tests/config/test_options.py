from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from fusionkit.config import compose, conf_dir, config_hash
from fusionkit.config import options as schema
from fusionkit.errors import ConfigError
from tests.fake_distributions import Site


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return compose([])


def changed(base: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    cfg = copy.deepcopy(base)
    *groups, last = key.split(".")
    node = cfg
    for group in groups:
        node = node[group]
    node[last] = value
    return cfg


def test_the_default_is_valid(base: dict[str, Any]) -> None:
    schema.validate(base)
    schema.check(base, deep=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dims", None),
        ("n", 1),
        ("device", "cuda:3"),
        ("data.test_size", 0.5),
        ("train.lr", 1),
        ("train.weight_decay", 0),
        ("train.label_smoothing", 0.0),
        ("fusion.n", None),
        ("fusion.dims", None),
        ("fusion.preprocess", "gelu"),
        ("fusion.preprocess", [{"name": "gelu"}, None]),
        ("fusion.preprocess", {"_target_": "torch.nn.Linear", "in_features": "{view}", "out_features": "{view}"}),
        ("fusion.postprocess", {"_target_": "fusionkit.create", "name": "average"}),
        ("fusion.parameter_fabrication", None),
        ("fusion.parameter_fabrication", "lowrank"),
        ("fusion.parameter_fabrication", {"name": "lowrank", "r": 3}),
        ("fusion.parameter_fabrication", {"_target_": "fusionkit.create_fabrication", "name": "lowrank"}),
        ("fabrication", {"name": "lowrank", "r": None}),
    ],
)
def test_what_is_right(base: dict[str, Any], key: str, value: Any) -> None:
    schema.validate(changed(base, key, value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n", True, "n should be an integer of at least 1; found True."),
        ("n", 0, "n should be an integer of at least 1; found 0."),
        ("n", 2.5, "n should be an integer of at least 1; found 2.5."),
        ("n", "many", "n should be an integer of at least 1; found 'many'."),
        ("fusion.n", -3, "fusion.n should be an integer of at least 1 or null; found -3."),
        ("dims", [4, 0], "dims should be a list of integers of at least 1, or null; found [4, 0]."),
        ("dims", [], "dims should be a list of integers of at least 1, or null; found []."),
        ("device", 7, "device should be a device such as cpu, cuda or cuda:1; found 7."),
        ("seed", -1, "seed should be an integer from 0 to 4294967295; found -1."),
        ("train.epochs", 0, "train.epochs should be an integer of at least 1; found 0."),
        ("train.lr", 0, "train.lr should be a number above 0; found 0."),
        ("train.lr", math.inf, "train.lr should be a number above 0; found inf."),
        ("train.lr", math.nan, "train.lr should be a number above 0; found nan."),
        ("train.lr", "fast", "train.lr should be a number above 0; found 'fast'."),
        ("train.label_smoothing", 2, "train.label_smoothing should be a number of at least 0 and below 1; found 2."),
        ("train.precision", 16, "train.precision should be one of 32-true"),
        ("data.test_size", 1, "data.test_size should be a number of at least 0 and below 1; found 1."),
        (
            "train.optimizer",
            "adma",
            "train.optimizer should be one of adamw, adam, sgd; found 'adma'. Did you mean 'adam' or 'adamw'?",
        ),
        (
            "model.encoder",
            "linaer",
            "model.encoder should be one of none, linear, mlp; found 'linaer'. Did you mean 'linear'?",
        ),
        ("fabrication", {"name": "lowrank", "r": "two"}, "fabrication.r should be an integer or null; found 'two'."),
        ("dims", "4,4", "dims should be a list of integers of at least 1, or null; found '4,4'."),
        ("dims", [True], "dims should be a list of integers of at least 1, or null; found [True]."),
        ("device", "a b", "device should be a device such as cpu, cuda or cuda:1; found 'a b'."),
        ("device", None, "device should be a device such as cpu, cuda or cuda:1; found None."),
        ("seed", 1.0, "seed should be an integer from 0 to 4294967295; found 1.0."),
        ("data", "mfeat", "data should be a mapping, chosen by data=NAME; found 'mfeat'."),
        ("fusion", None, "fusion should be a mapping, chosen by fusion=NAME; found None."),
        (
            "data.name",
            "mfaet",
            "data.name should be one of breast_cancer, digits, folder, mfeat, npz, table; found 'mfaet'. Did you mean "
            "'mfeat'?",
        ),
        (
            "data.path",
            "x",
            "There is no key 'data.path'.  Known are data.name, data.dims, data.test_size, data.validation_size, "
            "data.fold.",
        ),
        ("data.test_size", -0.1, "data.test_size should be a number of at least 0 and below 1; found -0.1."),
        ("data.validation_size", 1, "data.validation_size should be a number of at least 0 and below 1; found 1."),
        ("task", "classify", "task should be one of auto, classification, multilabel, regression; found 'classify'."),
        ("metric", 3, "metric should be the name of a metric, or null; found 3."),
        (
            "train.loss",
            "mee",
            "train.loss should be one of cross_entropy, focal, mse, mae, huber or null; found 'mee'.",
        ),
        ("train.focal_gamma", -1, "train.focal_gamma should be a number of at least 0; found -1."),
        (
            "train.class_weight",
            "balance",
            "train.class_weight should be balanced, a mapping of classes to weights of at least 0, as {yes: 5}, "
            "or null; found 'balance'.",
        ),
        (
            "train.class_weight",
            {"yes": -1},
            "train.class_weight should be balanced, a mapping of classes to weights of at",
        ),
        ("train.patience", 0, "train.patience should be an integer of at least 1 or null; found 0."),
        ("train.refit", 1, "train.refit should be true or false; found 1."),
        ("train.epochs", 1.5, "train.epochs should be an integer of at least 1; found 1.5."),
        ("train.optimizer", 3, "train.optimizer should be one of adamw, adam, sgd; found 3."),
        ("train.scheduler", None, "train.scheduler should be one of onecycle, constant; found None."),
        ("model.encoder", "cnn", "model.encoder should be one of none, linear, mlp; found 'cnn'."),
        ("model.head", ["linear"], "model.head should be one of linear, none; found ['linear']."),
        ("model.heads", "linear", "There is no key 'model.heads'. Did you mean 'model.head'?"),
        (
            "fusion._target_",
            "torch.nn.Linear",
            "fusion._target_ should be 'fusionkit.create'; found 'torch.nn.Linear'.",
        ),
        ("fusion._recursive_", True, "fusion._recursive_ should be false; found True."),
        ("fusion.name", 3, "fusion.name should be the name of a fusion; found 3."),
        ("fusion.rank", 3, "There is no key 'fusion.rank'. "),
        ("fusion.dims", [3, "a"], "fusion.dims should be a list of integers of at least 1, or null; found [3, 'a']."),
        ("fusion.require_parameters", 1, "fusion.require_parameters should be true or false; found 1."),
        ("fabrication", {"name": "lowrnk"}, "fabrication.name: "),
        ("fabrication", {"name": "lowrank", "rank": 3}, "There is no key 'fabrication.rank'. "),
        ("fabrication", {"name": "lowrank", "r": 2.5}, "fabrication.r should be an integer or null; found 2.5."),
        (
            "fabrication",
            {"_target_": "fusionkit.create", "name": "lowrank"},
            "fabrication._target_ should be 'fusionkit.create_fabrication'; found 'fusionkit.create'.",
        ),
        (
            "fusion.parameter_fabrication",
            {"name": "lowrank", "r": "3"},
            "fusion.parameter_fabrication.r should be an integer or null; found '3'.",
        ),
        ("fusion.parameter_fabrication", "lowrnk", "fusion.parameter_fabrication.name: the name of a fabrication"),
        ("fusion.parameter_fabrication", 7, "fusion.parameter_fabrication should be the name of a fabrication, a "),
        ("fusion.preprocess", 3, "fusion.preprocess should be a name, a mapping with a name, a list of them, or null"),
        ("fusion.preprocess", {"p": 0.5}, "fusion.preprocess.name should be one of identity, layer_norm"),
        ("fusion.preprocess", [None, "gleu"], "fusion.preprocess[1].name should be one of identity, layer_norm"),
        ("fusion.postprocess", {"name": "dropout", "q": 1}, "There is no key 'fusion.postprocess.q'. "),
        ("fusion.postprocess", {"name": "dropout", "p": "x"}, "fusion.postprocess.p should be a number; found 'x'."),
        (
            "fusion.preprocess",
            {"_target_": "torch.nn.Linear", "in_features": "{view}", "out_features": 2.5},
            "fusion.preprocess.out_features should be an integer; found 2.5.",
        ),
        ("train.lr", "???", "train.lr should be given, as in train.lr=...; found nothing."),
        ("fusion.preprocess", [{"p": "???"}], "fusion.preprocess[0].p should be given, as in "),
    ],
)
def test_what_is_wrong_names_the_key(base: dict[str, Any], key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        schema.validate(changed(base, key, value))
    assert str(error.value).startswith(message)


def test_several_mistakes_are_reported_together(base: dict[str, Any]) -> None:
    cfg = {**base, "n": 0, "sed": 3, "train": {**base["train"], "lr": -1, "epoch": 3, "optimizer": "???"}}
    cfg["fusion"] = {**base["fusion"], "rank": 3, "preprocess": "gleu"}
    with pytest.raises(ConfigError) as error:
        schema.validate(cfg)
    found = str(error.value)
    for key in (
        "n should",
        "'sed'",
        "train.lr",
        "'train.epoch'",
        "train.optimizer",
        "'fusion.rank'",
        "fusion.preprocess",
    ):
        assert key in found
    assert "\n" not in found


def test_very_many_mistakes_are_counted(base: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"There are 12 more mistakes\.$"):
        schema.validate({**base, **{f"x{i}": i for i in range(20)}})


def test_the_config_of_a_job_is_frozen_typed_and_keeps_what_was_composed(base: dict[str, Any]) -> None:
    made = schema.validate(changed(base, "train.lr", 1))
    assert (made.train.lr, made.n, made.data.test_size, made.model.encoder) == (1.0, 64, 0.2, "none")
    assert made.tree["train"]["lr"] == 1
    assert type(made.tree["train"]["lr"]) is int
    with pytest.raises(ValidationError):
        made.n = 3
    assert pickle.loads(pickle.dumps(made)).tree == made.tree


def test_scalars_of_numpy_are_those_of_python(base: dict[str, Any]) -> None:
    def scalar(tree: Any) -> Any:
        if isinstance(tree, dict | list):
            return {key: scalar(one) for key, one in tree.items()} if isinstance(tree, dict) else [*map(scalar, tree)]
        return tree if tree is None else np.asarray(tree)[()]

    made = schema.validate(scalar(base))
    assert made == schema.validate(base)
    assert config_hash(made.tree) == config_hash(base)
    assert json.dumps(made.tree) == json.dumps(base)


def test_a_file_of_ones_own_needs_only_what_has_no_default(base: dict[str, Any]) -> None:
    made = schema.validate({**base, "train": {"epochs": 2, "batch_size": 8, "lr": 0.1}})
    assert (made.train.optimizer, made.train.weight_decay, made.train.devices) == ("adamw", 0.0, 1)


def test_widths_of_the_inputs_of_the_fusion(base: dict[str, Any]) -> None:
    def dims_and_n(**changes: Any) -> tuple[Any, Any]:
        cfg = base
        for key, value in changes.items():
            cfg = changed(cfg, key.replace("__", "."), value)
        made = schema.validate(cfg)
        node = made.fusion_node((4, 3), 7)
        assert made.tree["fusion"] == cfg["fusion"]
        assert {**node, "dims": None, "n": None} == {**cfg["fusion"], "dims": None, "n": None}
        assert made.fusion_node(None, 7) == {**node, "dims": None}
        return node["dims"], node["n"]

    assert dims_and_n() == ([4, 3], 64)
    assert dims_and_n(model__encoder="mlp") == ([64, 64], 64)
    assert dims_and_n(model__encoder="linear", model__encoder_width=6) == ([6, 6], 64)
    assert dims_and_n(model__head="none") == ([4, 3], 7)
    assert dims_and_n(model__head="none", model__encoder="linear") == ([7, 7], 7)
    assert dims_and_n(model__head="none", model__encoder="linear", model__encoder_width=6) == ([6, 6], 7)
    assert dims_and_n(model__head="none", fusion__n=9) == ([4, 3], 9)
    assert dims_and_n(model__head="none", fusion__n=None) == ([4, 3], None)


@pytest.mark.parametrize(
    ("group", "model"),
    [
        ("train", schema.TrainOptions),
        ("model", schema.ModelOptions),
        ("data", schema.NpzOptions),
        ("folder", schema.FolderOptions),
        ("", schema.RunConfig),
    ],
)
def test_the_comments_of_the_files_are_the_descriptions(group: str, model: type[schema.Options]) -> None:
    files = {"train": "train/default", "model": "model/linear", "data": "data/npz", "folder": "data/folder"}
    file = files.get(group, "config")
    lines = (conf_dir() / f"{file}.yaml").read_text().splitlines()
    described = {name: field.description for name, field in model.model_fields.items() if field.description}
    assert described
    for name, description in described.items():
        (index,) = (i for i, line in enumerate(lines) if line.startswith(f"{name}:"))
        assert lines[index - 1] == f"# {description}"


def test_the_names_are_those_of_the_experiment() -> None:
    from fusionkit.experiment import datasets, model, npz

    words = schema.described("model")
    assert words["activation"] == f"one of {', '.join(model.ACTIVATIONS)}"
    assert words["encoder"] == "one of none, linear, mlp"
    assert {*npz.EMBEDDED, *datasets.DATASETS} == set(get_args(schema.DataOptions.model_fields["name"].annotation))


def test_missing_values_may_wait(base: dict[str, Any]) -> None:
    cfg = changed(base, "train.lr", "???")
    schema.check(cfg, complete=False)


@pytest.mark.parametrize("key", ["n", "dims", "device", "seed", "fusion", "fabrication", "data", "model", "train"])
def test_every_top_level_key_is_needed(base: dict[str, Any], key: str) -> None:
    cfg = {name: value for name, value in base.items() if name != key}
    with pytest.raises(ConfigError, match=rf"^{key} should .*found nothing\.$"):
        schema.validate(cfg)


@pytest.mark.parametrize("key", ["name", "path"])
def test_data_needs_a_name_and_a_file_its_path(base: dict[str, Any], key: str) -> None:
    data = {name: value for name, value in {"name": "npz", "path": "x.npz"}.items() if name != key}
    with pytest.raises(ConfigError, match=rf"^data\.{key} should be "):
        schema.validate({**base, "data": data})


OPERATOR = """
import fusionkit
from typing import Literal

class Op(fusionkit.Fusion):
    def __init__(self, n=None, dims=None, name=None, require_parameters=True, *, path: str, mode: Literal["a", "b"] =
    "a",
                 ranks: list[int] | None = None, preprocess=None, postprocess=None, device=None, dtype=None):
        super().__init__(n, dims, name, require_parameters, preprocess=preprocess, postprocess=postprocess)

class Anything(fusionkit.Fusion):
    def __init__(self, n=None, dims=None, **options):
        super().__init__(n, dims)
"""
PLUGIN = """
import fusionkit

@fusionkit.hookimpl
def fusionkit_fusions():
    return {"op": "ops:Op", "anything": "ops:Anything", "gone": "ops:Gone"}
"""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fusion=op"], "fusion.path should be given, as in fusion.path=...; found nothing."),
        (["fusion=op", "fusion.path=1"], "fusion.path should be a text; found 1."),
        (["fusion=op", "fusion.path=x", "fusion.mode=c"], "fusion.mode should be one of a, b; found 'c'."),
        (["fusion=op", "fusion.path=x", "fusion.ranks=[1,b]"], "fusion.ranks should be a list of which every item is "),
        (["fusion=op", "+fusion.modes=a"], "There is no key 'fusion.modes'. Did you mean 'fusion.mode'?"),
        (["fusion=gone"], "the fusion 'gone'"),
    ],
)
def test_a_plugins_options_are_checked_too(site: Site, overrides: list[str], message: str) -> None:
    site.install("ops-plugin", PLUGIN)
    (site.folder / "ops.py").write_text(OPERATOR)
    if overrides[-1].startswith("+"):
        overrides = [*overrides, "fusion.path=x"]
    with pytest.raises(ConfigError) as error:
        compose(overrides)
    assert message in str(error.value)


def test_a_catch_all_takes_anything(site: Site) -> None:
    site.install("ops-plugin", PLUGIN)
    (site.folder / "ops.py").write_text(OPERATOR)
    assert compose(["fusion=anything", "+fusion.whatever=1"])["fusion"]["whatever"] == 1


def test_columns_may_be_called_by_numbers() -> None:
    node = {"name": "table", "path": "a.csv", "label": 3, "id": 0, "drop": [1, "b"], "views": {"a": 2, "c": ["d", 4]}}
    options = schema.data_options(node)
    assert isinstance(options, schema.TableOptions)
    assert (options.label, options.id, options.drop) == ("3", "0", ["1", "b"])
    assert options.views == {"a": "2", "c": ["d", "4"]}
    for wrong in (True, 1.5, [None]):
        with pytest.raises(ConfigError, match=r"data\.label should be a column, or a list of columns; found "):
            schema.data_options({**node, "label": wrong})
