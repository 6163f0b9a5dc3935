"""The options of a run: the type, range, default and meaning of each.

``RunConfig`` is the configuration of one job.  The options of an operator are described by its constructor; only the
check of operator options imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Annotated, Any, Literal, TypeVar

import yaml  # type: ignore[import-untyped, unused-ignore]
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    TypeAdapter,
    create_model,
)

from fusionkit import registry
from fusionkit._util.trees import flatten, to_python
from fusionkit.config.keys import CONTROL_KEYS, refuse, walk
from fusionkit.config.nodes import yaml_file
from fusionkit.config.sentences import expected, mistakes
from fusionkit.config.types import Text, options_of
from fusionkit.core.traits import StandIn
from fusionkit.errors import ConfigError, RegistryError, nearest
from fusionkit.registry import Operator

Size = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Widths = Annotated[
    Annotated[tuple[Size, ...], Field(strict=False, min_length=1)] | None,
    Field(json_schema_extra={"expected": "a list of integers of at least 1, or null"}),
]
Device = Annotated[
    str, Field(pattern=r"^[a-z]+(:[0-9]+)?$", json_schema_extra={"expected": "a device such as cpu, cuda or cuda:1"})
]
_GROUP: dict[str, Any] = {"expected": "a mapping, chosen by {key}=NAME"}


def _option(default: Any, description: str, **more: Any) -> Any:
    return Field(default, description=description, **more)


def _named(kind: Operator) -> Any:
    return Field(description=f"Of the {kind}.", json_schema_extra={"expected": f"the name of a {kind}"})


class Options(BaseModel):
    """A group of options: immutable, without unknown keys, without conversions except of an integer to a float."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra=_GROUP)


class DataOptions(Options):
    """The group ``data``: a registered data set."""

    name: Annotated[Text, Field(min_length=1)] = Field(json_schema_extra={"expected": "the name of a data set"})
    path: Annotated[Text, Field(min_length=1)] | None = _option(
        None, "The file or folder of a data set that is not installed; null looks for the installed one."
    )
    dims: Widths = _option(None, "Widths of the views; null takes them from the data, other widths are an error.")
    test_size: Fraction = _option(
        0.2, "Part of the rows that is held out for the metrics, stratified by class; 0 trains on all rows."
    )
    validation_size: Fraction = _option(
        0.0, "Part of the other rows that is held out to choose the epoch and to rank runs; 0: none."
    )
    fold: Annotated[int, Field(ge=0)] | Annotated[Text, Field(min_length=1)] | None = _option(
        None,
        "Which of the 1/test_size folds, or which value of data.folds, is held out; null draws one test part.",
        json_schema_extra={"expected": "an integer of at least 0, a value of data.folds, or null"},
    )


class FileOptions(DataOptions):
    """The group ``data``: what every form of a user's own data has."""

    path: Annotated[Text, Field(min_length=1)] = _option(
        ..., "The file; absolute, or relative to the directory in which the command is started."
    )
    test_path: Annotated[Text, Field(min_length=1)] | None = _option(
        None, "A file of the same form with the test part; null takes the test part from the file."
    )
    missing: Literal["nan", "mask"] = _option(
        "nan", "What says that a row lacks a view: nan, numbers that are all NaN; mask, the array `mask` of the file."
    )
    impute: Literal["mean"] | None = _option(
        None, "What stands for some NaN in a row: mean, of the training part; null refuses such rows."
    )


class NpzOptions(FileOptions):
    """The group ``data``: the arrays of an npz file."""

    name: Literal["npz"]


class FolderOptions(FileOptions):
    """The group ``data``: a folder of arrays, each in an npy file."""

    name: Literal["folder"]
    path: Annotated[Text, Field(min_length=1)] = _option(
        ..., "The folder; absolute, or relative to the directory in which the command is started."
    )
    test_path: Annotated[Text, Field(min_length=1)] | None = _option(
        None, "A folder of the same form with the test part; null takes the test part from the folder."
    )
    missing: Literal["nan", "mask"] = _option(
        "nan", "What says that a row lacks a view: nan, numbers that are all NaN; mask, the array in mask.npy."
    )
    memory_gb: Annotated[float, Field(ge=0)] = _option(
        1.0, "Views larger than this, in gigabytes (10^9 bytes of their files), stay on the disk and are streamed."
    )


_Files: Any = Annotated[
    Annotated[Text, Field(min_length=1)] | Annotated[dict[str, Text], Field(min_length=1)],
    Field(json_schema_extra={"expected": "a file, or a mapping of a file per view such as {rna: rna.csv}"}),
]
#: Numbers too, which Hydra reads as such: pandas names columns so.
_Name: Any = Annotated[
    Text, Field(min_length=1), BeforeValidator(lambda name: str(name) if type(name) is int else name)
]
_Column: Any = _Name | None
_Columns: Any = Annotated[_Name | list[_Name], Field(json_schema_extra={"expected": "a column, or a list of columns"})]


class TableOptions(FileOptions):
    """The group ``data``: a table, or a table per view."""

    name: Literal["table"]
    path: _Files = _option(..., "A .csv, .tsv, .csv.gz or .parquet file, or a mapping with a file per view.")
    test_path: _Files | None = _option(
        None, "A file of the same form with the test part; null takes the test part from the table."
    )
    label: _Columns = _option(..., "The column to predict, or a list of several.")
    id: _Column = _option(None, "The column that names the rows; it joins a file per view.")
    group: _Column = _option(
        None, "The column whose rows of one value stay on one side of every split, as of a patient."
    )
    split: _Column = _option(None, "The column that says train, validation or test.")
    folds: _Column = _option(None, "The column with the number of the fold; data.fold says which one is the test part.")
    weight: _Column = _option(None, "The column of numbers that multiply the loss of their rows.")
    join: Literal["outer", "inner"] = _option(
        "outer", "With a file per view: outer keeps ids that lack a view, inner those that have all."
    )
    views: dict[str, _Columns] | None = _option(
        None,
        "The columns of each view, with * and ? in patterns; null takes the prefix of view__column, else one view.",
        json_schema_extra={"expected": "a mapping of views to columns such as {a: [age, sex], b: 'scan_*'}, or null"},
    )
    drop: _Columns | None = _option(None, "Columns to leave out, with * and ? in patterns.")
    categorical: _Columns | None = _option(None, "Numeric columns that are categories, with * and ? in patterns.")
    max_categories: Size = _option(100, "A text column with more different values is refused.")
    separator: Annotated[Text, Field(min_length=1, max_length=1)] | None = _option(
        None, "Between the columns; null finds it in the header, among comma, semicolon, tab and |."
    )
    decimal: Annotated[Text, Field(min_length=1, max_length=1)] = _option(".", "The decimal point.")
    label_separator: Annotated[Text, Field(min_length=1)] | None = _option(
        None, "Between the tags in one column of label, for task=multilabel."
    )
    missing: Literal["nan"] = _option("nan", "A view is absent from a row in which all its cells are missing.")


class ModelOptions(Options):
    """The group ``model``."""

    head: Literal["linear", "none"] = _option(
        "linear",
        "linear: a linear layer on the fused views; none: the fusion itself returns the outputs (late fusion).",
    )
    encoder: Literal["none", "linear", "mlp"] = _option(
        "none", "One encoder per view in front of the fusion: none, linear or mlp.  It makes unequal widths equal."
    )
    encoder_width: Size | None = _option(
        None, "Output width of every encoder; null takes the top-level n, without a head the number of outputs."
    )
    activation: Literal["none", "gelu", "relu", "tanh"] = _option(
        "none", "Applied to the fused views, in front of the head, so never without one: none, gelu, relu or tanh."
    )

    def width(self, n: int, outputs: int) -> int:
        """Return what the top-level n stands for: itself, without a head the number of outputs of the task."""
        return n if self.head == "linear" else outputs

    def fusion_dims(self, dims: Sequence[int], width: int) -> list[int]:
        """Return the widths of the fusion's inputs for views of widths ``dims``: encoders change them to ``width``."""
        return list(dims) if self.encoder == "none" else [self.encoder_width or width] * len(dims)


class TrainOptions(Options):
    """The group ``train``.  Options without a default here get theirs from ``conf/train/default.yaml``."""

    epochs: Size = _option(..., "Passes over the training part.")
    batch_size: Size = _option(..., "Rows per step.")
    lr: Annotated[float, Field(gt=0)] = _option(..., "Peak learning rate.")
    optimizer: Literal["adamw", "adam", "sgd"] = _option("adamw", "adamw, adam or sgd.")
    weight_decay: Annotated[float, Field(ge=0)] = _option(
        0.0, "Decay of the weights per step, relative to the learning rate."
    )
    scheduler: Literal["onecycle", "constant"] = _option("onecycle", "onecycle or constant.")
    loss: Literal["cross_entropy", "focal", "mse", "mae", "huber"] | None = _option(
        None, "cross_entropy or focal; for a regression mse, mae or huber.  null: the first of the task."
    )
    focal_gamma: Annotated[float, Field(ge=0)] = _option(2.0, "How much the focal loss turns to the hard rows.")
    class_weight: Literal["balanced"] | dict[Any, Annotated[float, Field(ge=0)]] | None = _option(
        None,
        "Weights of the classes in the loss: balanced, a mapping of classes to weights, or null.",
        json_schema_extra={"expected": "balanced, a mapping of classes to weights of at least 0, as {yes: 5}, or null"},
    )
    patience: Size | None = _option(
        None, "Stop after this number of epochs without a better one on the validation part; null never stops."
    )
    refit: bool = _option(
        False, "Train once more, on training and validation part together, for as many epochs as the best had."
    )
    label_smoothing: Fraction = _option(0.0, "Part of the probability that is spread over the other classes.")
    input_dropout: Fraction = _option(0.0, "Part of the standardized inputs that is zeroed while training.")
    view_dropout: Fraction = _option(
        0.0, "Part of the views that is dropped while training, row by row; one that is present stays."
    )
    importance: bool = _option(
        True, "Measure by how much the metric gets worse without each view: views in result.json, views.png."
    )
    devices: Size | Literal["auto"] = _option(
        1, "Devices (processes) to train on; auto: all of this machine.  With torchrun or srun: those that it starts."
    )
    num_nodes: Size = _option(1, "Machines to train on, by torchrun or srun.")
    strategy: Literal["auto", "ddp", "fsdp", "by_output"] = _option(
        "auto", "How processes share the model: ddp, a copy each; fsdp, parts of it; by_output, rows of W.  auto: ddp."
    )
    timeout: Annotated[float, Field(gt=0)] = _option(600.0, "Seconds that a process waits for another one.")
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"] = _option(
        "32-true", "32-true, bf16-mixed, 16-mixed, bf16-true, 16-true or 64-true."
    )
    checkpoint_every: Size | None = _option(
        None, "Epochs between two checkpoints, from which fusionkit run --resume goes on; null writes none."
    )


class FusionNode(Options):
    """The node ``fusion``: the options of every operator; further ones are checked against its constructor."""

    model_config = ConfigDict(extra="allow")

    target: Literal["fusionkit.create"] = Field(alias="_target_")
    recursive: Literal[False] = Field(alias="_recursive_")
    name: Text = _named("fusion")
    n: Size | None = _option(None, "Output width.  null: it follows from the widths.")
    dims: Widths = _option(None, "Widths of the views; they follow from the data.")
    device: Device = _option("cpu", "Where the parameters live.")
    require_parameters: bool = _option(True, "Whether the operator owns its parameters.")
    parameter_fabrication: Text | dict[str, Any] | None = _option(
        None,
        "How the matrices are made: the group fabrication.",
        json_schema_extra={"expected": "the name of a fabrication, a mapping with its name, or null"},
    )


class FabricationNode(Options):
    """The node ``fabrication``; its options are checked against the constructor."""

    model_config = ConfigDict(extra="allow")

    target: Literal["fusionkit.create_fabrication"] = Field("fusionkit.create_fabrication", alias="_target_")
    name: Text = _named("fabrication")


#: The forms of a user's own data; every other name is that of a registered data set.
_OWN: dict[str, type[FileOptions]] = {"npz": NpzOptions, "folder": FolderOptions, "table": TableOptions}


#: The models by the tags of ``_form``, for the sentences about what is wrong.
_FORMS = {"registered": "#/$defs/DataOptions"} | {tag: f"#/$defs/{form.__name__}" for tag, form in _OWN.items()}


def _form(data: Any) -> str:
    name = data.get("name") if isinstance(data, Mapping) else getattr(data, "name", None)
    return name if isinstance(name, str) and name in _OWN else "registered"


AnyData = Annotated[
    Annotated[DataOptions, Tag("registered")]
    | Annotated[NpzOptions, Tag("npz")]
    | Annotated[FolderOptions, Tag("folder")]
    | Annotated[TableOptions, Tag("table")],
    Discriminator(_form),
    Field(json_schema_extra={**_GROUP, "discriminator": {"propertyName": "name", "mapping": _FORMS}}),
]


class RunConfig(Options):
    """The whole configuration of one job, checked."""

    n: Size = _option(
        ...,
        "Output width of the fusion, for the operators that let you choose it; without a head the number of outputs.",
    )
    dims: Widths = _option(..., "Widths of the views, in their order; they follow from the data.")
    device: Device = _option(..., "Where everything is computed: cpu, cuda, cuda:1, ...")
    # Configurations of earlier versions lack the key; all their runs were classifications.
    task: Literal["auto", "classification", "multilabel", "regression"] = _option(
        "classification", "What to learn: auto (by the label), classification, multilabel or regression."
    )
    metric: Text | None = _option(
        None,
        "Which metric ranks and picks the epoch; null: the first of the task.",
        json_schema_extra={"expected": "the name of a metric, or null"},
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = _option(
        ..., "Seed of the split, of the initial values and of the order of the batches."
    )
    fusion: FusionNode
    fabrication: FabricationNode
    data: AnyData
    model: ModelOptions
    train: TrainOptions
    _tree: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def tree(self) -> dict[str, Any]:
        """The configuration as it was composed, for records and ``config_hash``: integers stay integers."""
        return self._tree

    def fusion_node(self, dims: Sequence[int] | None, outputs: int) -> dict[str, Any]:
        """Return the node ``fusion`` for views of widths ``dims``, None where unknown, and a task with these outputs.

        Encoders may change the widths; without a head an n that is the top-level one gives way to ``outputs``.
        """
        width = self.model.width(self.n, outputs)
        node = {**self.tree["fusion"], "dims": None if dims is None else self.model.fusion_dims(dims, width)}
        return {**node, "n": width} if node.get("n") == self.n else node


#: Keys that refer to another, of which a mistake is told once.
_SOURCES = {"fusion.n": "n", "fusion.dims": "dims", "fusion.device": "device", "dims": "data.dims"}

_RUN: TypeAdapter[RunConfig] = TypeAdapter(RunConfig)
_DATA: TypeAdapter[Any] = TypeAdapter(AnyData)
_FABRICATION: TypeAdapter[FabricationNode] = TypeAdapter(FabricationNode)
_STAND_IN: TypeAdapter[Any] = TypeAdapter(create_model("StandIn", __base__=Options, missing=(StandIn | None, None)))
G = TypeVar("G", bound=Options)


def validate(cfg: Mapping[str, Any]) -> RunConfig:
    """Check keys, types and ranges of a plain configuration without the ``hydra`` node; no operator is built.

    Raises:
        ConfigError: a sentence for every mistake, with the dotted key, what should be, what was found, the nearest key.
    """
    cfg = to_python(cfg)
    check(cfg)
    made = _RUN.validate_python(cfg)
    made._tree = dict(cfg)
    return made


def check(cfg: Mapping[str, Any], *, deep: bool = True, complete: bool = True) -> None:
    """Check a plain configuration as ``validate`` does.

    Args:
        cfg: the whole, without the ``hydra`` node.
        deep: check the options of every operator against its constructor.  Otherwise only where the
            config has an option that the operator's YAML file does not list; no other operator is imported.
        complete: whether a missing value (``???``) is an error.

    Raises:
        ConfigError: as ``validate``.
    """
    missing = [key for key, _, value in walk(cfg) if value == "???"]
    known = _without_missing(cfg)
    found = mistakes(_RUN, known, given=missing)
    if complete:
        found.update({key: f"{key} should be given, as in {key}=...; found nothing." for key in missing})
    for key, sentence in _operators(known, missing, deep):
        found.setdefault(key, sentence)
    values = {".".join(path): value for path, value in flatten(known)}
    repeated = [key for key, source in _SOURCES.items() if source in found and values.get(key) == values.get(source)]
    refuse(sentence for key, sentence in found.items() if key not in repeated)


def validate_group(group: type[G], values: Mapping[str, Any], prefix: str) -> G:
    """Return the options of one group, from values that do not come from a config.

    Raises:
        ConfigError: as ``validate``.
    """
    adapter, values = TypeAdapter(group), to_python(values)
    refuse(mistakes(adapter, values, prefix).values())
    return adapter.validate_python(values)


def data_options(values: Mapping[str, Any]) -> DataOptions:
    """Return the options of the group ``data``.

    Raises:
        ConfigError: as ``validate``.
    """
    values = to_python(values)
    refuse(mistakes(_DATA, values, "data").values())
    made: DataOptions = _DATA.validate_python(values)
    return made


def described(group: str, name: str = "table") -> dict[str, str]:
    """Return what each option of ``data`` of this name, ``model`` or ``train`` may be, in words."""
    groups: dict[str, type[Options]] = {"model": ModelOptions, "train": TrainOptions}
    groups["data"] = _OWN.get(name, DataOptions)
    whole = groups[group].model_json_schema()
    return {name: expected(schema, whole) for name, schema in whole["properties"].items()}


def defaults(cfg: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Return the defaults of a config's options by path: what those are that a config of an earlier version lacks."""
    node = cfg.get("data")
    return dict(_defaults(_OWN.get(str(node.get("name")) if isinstance(node, Mapping) else "", DataOptions)))


@cache
def _defaults(data: type[Options]) -> Mapping[tuple[str, ...], Any]:
    groups: dict[str, type[Options]] = {"model": ModelOptions, "train": TrainOptions, "fusion": FusionNode}
    groups["data"] = data
    found: dict[tuple[str, ...], Any] = {(name,): field for name, field in RunConfig.model_fields.items()}
    found |= {(group, name): field for group, one in groups.items() for name, field in one.model_fields.items()}
    known = {path: field.default for path, field in found.items() if not field.is_required()}
    return {**known, ("fusion", "missing"): None}  # Of every operator; its constructor does not see it.


def _without_missing(node: Any) -> Any:
    """Return ``node`` without the values that are missing (``???``)."""
    if isinstance(node, Mapping):
        return {name: _without_missing(value) for name, value in node.items() if value != "???"}
    if isinstance(node, list | tuple):
        return [_without_missing(value) for value in node if value != "???"]
    return node


# -- operators ---------------------------------------------------------------------------------------------------------


def _operators(cfg: Mapping[str, Any], missing: list[str], deep: bool) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the options of the operators and the name of the data set, by key.

    The keys in ``missing`` may be absent.
    """
    fusion, group, data = cfg.get("fusion"), cfg.get("fabrication"), cfg.get("data")
    if isinstance(data, Mapping) and isinstance(name := data.get("name"), str) and name and name not in _OWN:
        try:
            registry.resolve("dataset", name)
        except RegistryError as error:
            yield "data.name", f"data.name: {error}{nearest(name, _OWN)}"
    yield from _operator("fusion", fusion, "fusion", missing, deep)
    yield from _operator("fabrication", group, "fabrication", missing, deep)
    if not isinstance(fusion, Mapping):
        return
    nested, key = fusion.get("parameter_fabrication"), "fusion.parameter_fabrication"
    if isinstance(nested, str | Mapping) and nested != group:
        node = {"name": nested} if isinstance(nested, str) else nested
        yield from mistakes(_FABRICATION, node, key, missing).items()
        yield from _operator("fabrication", node, key, missing, deep)
    if deep:
        for role in ("preprocess", "postprocess"):
            yield from _processing(fusion.get(role), f"fusion.{role}")


def _operator(kind: Operator, node: Any, key: str, missing: list[str], deep: bool) -> Iterator[tuple[str, str]]:
    """Check the options of an operator against the keys of its file, or against its constructor.

    A node that is no mapping, or has no name, is reported elsewhere.
    """
    if not isinstance(node, Mapping) or not isinstance(name := node.get("name"), str):
        return
    options = _options(node)
    if kind == "fusion":
        yield from mistakes(_STAND_IN, {"missing": options.pop("missing", None)}, key, missing).items()
    try:
        registry.resolve(kind, name)
        if deep or not set(options) <= _file_keys(kind, name):
            yield from mistakes(options_of(registry.load(kind, name)), options, key, missing).items()
    except RegistryError as error:
        yield f"{key}.name", f"{key}.name: {error}"


def _options(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in CONTROL_KEYS and name != "name"}


@lru_cache(maxsize=256)
def _file_keys(kind: Operator, name: str) -> frozenset[str]:
    file = yaml_file(kind, name)
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file is not None else None
    return frozenset(content) if isinstance(content, dict) else frozenset()


def _processing(spec: Any, key: str) -> Iterator[tuple[str, str]]:
    """Check names and options of what is applied before or after an operator."""
    from fusionkit.core.processing import pop_class  # It imports torch.

    if isinstance(spec, list | tuple):
        for index, one in enumerate(spec):
            yield from _processing(one, f"{key}[{index}]")
        return
    if not isinstance(spec, str | Mapping):
        if spec is not None:
            yield key, f"{key} should be a name, a mapping with a name, a list of them, or null; found {spec!r}."
        return
    node = {"name": spec} if isinstance(spec, str) else dict(spec)
    try:
        cls, _ = pop_class(key, node)
    except ConfigError as error:
        yield f"{key}.name", str(error)
        return
    if isinstance(cls, type):  # Else an operator of fusionkit: its factory checks it.
        # The width of the view is filled in later, in place of "{view}" or of a missing option.
        options = {option: value for option, value in _options(node).items() if value != "{view}"}
        yield from mistakes(options_of(cls), options, key, complete=False).items()
