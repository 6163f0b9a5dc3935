from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.types import RunMode
from omegaconf import OmegaConf

import fusionkit
from fusionkit import config, registry
from fusionkit.config.composition import CheckingLoader, CompositionError, prepare, search_path
from fusionkit.errors import ConfigError, FusionError

#: Hydra 1.4 warns about the argument that 1.3 asks for.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


@pytest.mark.parametrize("name", ["fusionkit/average", "tensor-fusionkit/mean"])
def test_a_qualified_name_with_and_without_the_prefix(name: str) -> None:
    cfg = config.compose([f"fusion={name}", "model.encoder=linear", "fabrication=tensor-fusionkit/lowrank"])
    assert (cfg["fusion"]["name"], cfg["fabrication"]["name"]) == ("average", "lowrank")


def test_compose_gives_plain_containers() -> None:
    cfg = config.compose(["fabrication=lowrank", "n=3"])
    assert json.loads(json.dumps(cfg)) == cfg
    groups = {"fusion", "fabrication", "data", "model", "train"}
    assert set(cfg) == {"n", "dims", "device", "task", "metric", "seed"} | groups
    assert cfg["fusion"]["parameter_fabrication"] == {"name": "lowrank", "r": None}
    assert cfg["fusion"]["parameter_fabrication"] is not cfg["fabrication"]


def test_compose_takes_an_experiment_that_is_a_sweep() -> None:
    assert config.compose(["+experiment=operators", "n=3"])["n"] == 3


def test_compose_raises_a_config_error() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'summation'"):
        config.compose(["fusion=sumation"])


def test_compose_works_inside_a_hydra_application_and_leaves_it_alone() -> None:
    from hydra.core.global_hydra import GlobalHydra

    with hydra.initialize_config_dir(str(config.conf_dir()), **VERSION_BASE):
        before = GlobalHydra.instance().hydra
        config.compose(["n=3"])
        assert GlobalHydra.instance().hydra is before


def by_plain_hydra(*overrides: str) -> Any:
    prepare()
    with hydra.initialize_config_dir(str(config.conf_dir()), **VERSION_BASE):
        return hydra.compose("config", overrides=list(overrides))


@pytest.mark.filterwarnings("ignore:hydra.utils.instantiate")
@pytest.mark.parametrize(
    "fusion", ["parameterized_concatenation", "concatenation", "lowrank_parameterized_concatenation"]
)
def test_plain_hydra_instantiates_our_nodes(fusion: str) -> None:
    cfg = by_plain_hydra(f"fusion={fusion}")
    operator = hydra.utils.instantiate(cfg.fusion)
    views = [torch.randn(5, width) for width in cfg.dims]
    assert operator(views).shape == (5, operator.calculate_n())
    assert operator.dims == tuple(cfg.dims)
    same: Any = config.build(cfg.fusion)
    assert same.to_config() == operator.to_config()


@pytest.mark.filterwarnings("ignore:hydra.utils.instantiate")
def test_plain_hydra_uses_the_fabrication_and_the_preprocessing() -> None:
    cfg = by_plain_hydra("fabrication=lowrank", "fabrication.r=3", "fusion/preprocess=layer_norm", "n=7")
    operator = hydra.utils.instantiate(cfg.fusion)
    assert operator.calculate_l() == 3 * (7 + 649)
    assert any(isinstance(module, torch.nn.LayerNorm) for module in operator.modules())


def every_fusion() -> list[str]:
    return [record.key for record in registry.records("fusion") if record.distribution == "tensor-fusionkit"]


@pytest.mark.parametrize("name", every_fusion())
def test_every_operator_composes_builds_and_is_written_back(name: str) -> None:
    """Config -> operator -> to_config -> JSON -> create: equal, fabrications' seeds included."""
    overrides = [f"fusion={name}", "dims=[6,6]", "n=4"]
    if name == "weighted_summation":
        overrides.append("fusion.weights=[1,2]")
    try:
        operator: Any = config.build(config.compose(overrides)["fusion"], "fusion")
    except FusionError as error:
        pytest.skip(str(error))
    written = json.loads(json.dumps(operator.to_config()))
    again: Any = fusionkit.create(**written)
    assert again.to_config() == operator.to_config()
    assert (again.calculate_n(), again.calculate_l()) == (operator.calculate_n(), operator.calculate_l())
    again.load_state_dict(operator.state_dict())
    views = [torch.randn(3, 6), torch.randn(3, 6)]
    torch.testing.assert_close(again.eval()(views), operator.eval()(views))


@pytest.mark.parametrize(
    "name", [r.key for r in registry.records("fabrication") if r.distribution == "tensor-fusionkit"]
)
def test_every_fabrication_composes_builds_and_is_written_back(name: str) -> None:
    cfg = config.compose([f"fabrication={name}", "dims=[12,12]", "n=8"])
    operator: Any = config.build(cfg["fusion"], "fusion")
    again: Any = fusionkit.create(**json.loads(json.dumps(operator.to_config())))
    assert again.calculate_l() == operator.calculate_l()
    assert list(again.state_dict()) == list(operator.state_dict())
    fixed = {key for key, _ in operator.named_buffers()}
    for key, value in again.state_dict().items():
        if key in fixed:
            torch.testing.assert_close(value, operator.state_dict()[key])


@pytest.mark.parametrize(
    "name", sorted(file.stem for file in (config.conf_dir() / "fusion" / "preprocess").glob("*.yaml"))
)
def test_every_preprocessing_builds(name: str) -> None:
    operator: Any = config.build(config.compose([f"fusion/preprocess={name}", "dims=[4,5]", "n=3"])["fusion"])
    assert operator.eval()([torch.randn(2, 4), torch.randn(2, 5)]).shape == (2, 3)


def test_overrides_reach_where_hydra_users_expect() -> None:
    cfg = config.compose(["fusion.n=32", "fabrication=lowrank", "fabrication.r=8", "train.lr=1e-3", "dims=[3,4]"])
    assert cfg["fusion"]["n"] == 32
    assert cfg["n"] == 64
    assert cfg["fusion"]["parameter_fabrication"]["r"] == 8
    assert cfg["train"]["lr"] == 1e-3
    assert cfg["fusion"]["dims"] == [3, 4]


def test_the_loader_survives_the_way_to_a_worker() -> None:
    prepare()
    loader = pickle.loads(pickle.dumps(CheckingLoader(search_path())))
    assert isinstance(loader, CheckingLoader)
    with pytest.raises(CompositionError, match="Did you mean 'summation'"):
        loader.load_configuration("config", ["fusion=sumation"], RunMode.RUN)
    assert loader.load_configuration("config", ["n=3"], RunMode.RUN).n == 3


def test_the_search_path_puts_the_registry_last() -> None:
    providers = [entry.provider for entry in search_path().get_path()]
    assert providers[:2] == ["hydra", "main"]
    assert providers[-2:] == ["registry", "schema"]


def test_other_folders_stand_where_hydra_puts_them(tmp_path: Path) -> None:
    entries = [(entry.provider, entry.path) for entry in search_path(str(tmp_path), str(tmp_path)).get_path()]
    assert entries[1] == ("main", str(tmp_path))
    assert entries[2][0] == "fusionkit"
    assert ("command-line", f"file://{tmp_path}") in entries


def test_a_folder_of_ones_own_adds_options(folder: Callable[[dict[str, str]], Path]) -> None:
    mine = folder({"train/short.yaml": "epochs: 2\nbatch_size: 8\nlr: 0.1\n"})
    prepare()
    loader = CheckingLoader(search_path(None, str(mine)))
    cfg = loader.load_configuration("config", ["train=short"], RunMode.RUN)
    assert OmegaConf.to_container(cfg.train) == {"epochs": 2, "batch_size": 8, "lr": 0.1}


def test_a_reference_to_hydras_node_works(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config.compose(["data=npz", "data.path='${hydra:runtime.cwd}/x.npz'"])
    assert cfg["data"]["path"] == f"{Path.cwd()}/x.npz"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("fusion/mine.yaml", "a: ${b}\nb: ${a}\n", "fusion"),
        ("fusion/mine.yaml", "[1, 2]\n", "fusion should be a mapping"),
        ("fusion/mine.yaml", "just text\n", "fusion._target_ should be"),
        ("fusion/mine.yaml", "a: 1\na: 2\n", "found duplicate key a"),
        ("fusion/mine.yaml", "a: [1\n", "should be plain YAML"),
        ("fusion/mine.yaml", "\xff\x00", "mine"),
        ("fusion/mine.yaml", "defaults: 3\n", "defaults"),
        ("fusion/mine.yaml", "defaults: [{a: b, c: d}]\n", "Too many keys in default item"),
        ("fusion/mine.yaml", "1: 2\n", "fusion"),
    ],
)
def test_a_broken_file_is_one_sentence(
    file: str, text: str, message: str, folder: Callable[[dict[str, str]], Path]
) -> None:
    from tests.config import application as app

    untrusted = folder({file: text})
    with pytest.raises((ConfigError, OSError)) as error:
        app.main(["--config-dir", str(untrusted), "fusion=mine"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(("head", "found"), [("linear", {"name": "relu"}), ("none", None)])
def test_a_postprocess_for_the_head_alone(head: str, found: object) -> None:
    given = "fusion.postprocess='${fusionkit.before_head:relu}'"
    assert config.compose([given, f"model.head={head}"])["fusion"]["postprocess"] == found
