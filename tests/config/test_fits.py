from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionkit.config import compose
from fusionkit.config.fits import check_operator, preflight, uses_n
from fusionkit.config.options import RunConfig, validate
from fusionkit.errors import ConfigError, DimsError, FusionError
from tests.fake_distributions import Site


def config(*overrides: str, **changes: Any) -> RunConfig:
    return validate({**compose(list(overrides)), **changes})


def test_the_default_may_run() -> None:
    preflight(config())
    check_operator(config())


@pytest.mark.parametrize("device", ["nothing", "cuda:99", "cpu:1", "meta"])
def test_a_device_should_be_one_of_this_machine(device: str) -> None:
    with pytest.raises(FusionError, match=rf"^device should .*found '{device}'\.$"):
        preflight(config(device=device))


def test_the_machines_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(FusionError, match="one of this machine: cpu, cuda:0, cuda:1; found 'nothing'"):
        preflight(config(device="nothing"))


def test_a_fabrication_needs_a_fusion_that_takes_one() -> None:
    with pytest.raises(ConfigError) as error:
        preflight(config("fusion=average", "fabrication=lowrank"))
    expected = "fabrication should be dense, because the fusion 'average' takes none; found 'lowrank'."
    assert str(error.value) == expected


def test_a_preset_keeps_its_own() -> None:
    preset = config("fusion=lowrank_parameterized_concatenation", "fabrication=lowrank")
    preflight(preset)
    with pytest.raises(ConfigError, match=r"this fusion fixes its own, 'lowrank'; found 'lowrank'\."):
        preflight(preset, fabrication_of_group=False)


@pytest.mark.parametrize("fusion", ["average", "median", "summation"])
def test_unequal_widths_are_found_before_a_run(fusion: str) -> None:
    with pytest.raises(DimsError, match=r"216.*model\.encoder=linear makes the views equally wide\.$"):
        check_operator(config(f"fusion={fusion}"))
    check_operator(config(f"fusion={fusion}", "model.encoder=linear"))
    check_operator(config(f"fusion={fusion}", "data=npz", "data.path=views.npz"))


def test_widths_of_the_data_may_be_given() -> None:
    cfg = config("fusion=average", "data=npz", "data.path=views.npz")
    assert check_operator(cfg, [3, 3]) == 3
    with pytest.raises(DimsError, match=r"found dims \[3, 4\]"):
        check_operator(cfg, [3, 4])


@pytest.mark.parametrize(
    ("overrides", "uses"),
    [
        ([], True),
        (["fusion=average", "model.encoder=linear"], True),
        (["fusion=average", "model.encoder=mlp", "model.encoder_width=8"], False),
        (["fusion=concatenation"], False),
        (["model.head=none"], False),
        (["fusion=average", "model.encoder=linear", "model.head=none"], False),
    ],
)
def test_who_uses_n(overrides: list[str], uses: bool) -> None:
    assert uses_n(config(*overrides)) == uses


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        ([], 64),
        (["model.head=none"], 10),
        (["model.head=none", "n=32"], 10),
        (["model.head=none", "fusion.n=10"], 10),
        (["model.head=none", "fusion=average", "model.encoder=mlp"], 10),
        (["model.head=none", "fusion=average", "model.encoder=mlp", "model.encoder_width=10"], 10),
    ],
)
def test_the_width_of_the_output(overrides: list[str], found: int) -> None:
    assert check_operator(config(*overrides), outputs=10) == found


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["fusion.n=32"], "found 32.  model.head=linear takes any width."),
        (["fusion=concatenation"], "found 649.  model.head=linear takes any width."),
        (["fusion=concatenation", "model.encoder=linear"], "found 60.  model.head=linear takes any width."),
        (
            ["fusion=average", "model.encoder=linear", "model.encoder_width=7"],
            "found 7.  model.encoder_width=null gives it views of that width; model.head=linear takes any width.",
        ),
        (
            ["fusion=average", "data=npz", "data.path=views.npz", "data.dims=[3,3]"],
            "found 3.  model.encoder=linear gives it views of that width; model.head=linear takes any width.",
        ),
    ],
)
def test_without_a_head_the_fusion_gives_the_outputs(overrides: list[str], found: str) -> None:
    cfg = config("model.head=none", *overrides)
    should = "should have the width 10, the number of classes, labels or targets, because model.head is none"
    with pytest.raises(DimsError) as error:
        check_operator(cfg, outputs=10)
    assert str(error.value) == f"The output of {cfg.fusion.name!r} {should}; {found}"
    assert check_operator(cfg) is None  # The number of outputs is not known yet.


OPERATORS = """
import fusionkit
from fusionkit.fusion import ElementwiseFusion

class Needs(fusionkit.Fusion):
    def __init__(self, n=None, dims=None, name=None):
        super().__init__(n, dims, name)
        self.k = len(dims)

class Leaves(fusionkit.Fusion):
    def calculate_n(self, dims=None):
        raise SystemExit(3)

class Complete(ElementwiseFusion):
    def _fuse(self, x):
        return x[0]
"""
PLUGIN = """
import fusionkit

@fusionkit.hookimpl
def fusionkit_fusions():
    return {"needs": "odd:Needs", "leaves": "odd:Leaves", "complete": "odd:Complete"}
"""


@pytest.mark.parametrize("fusion", ["needs", "leaves"])
def test_what_else_an_operator_does_is_left_to_the_run(fusion: str, site: Site) -> None:
    site.install("odd-plugin", PLUGIN)
    (site.folder / "odd.py").write_text(OPERATORS)
    check_operator(config(f"fusion={fusion}"))


def test_an_operator_that_refuses_masks_is_found_before_a_run_with_view_dropout(site: Site) -> None:
    site.install("odd-plugin", PLUGIN)
    (site.folder / "odd.py").write_text(OPERATORS)
    refused = ("fusion=complete", "model.encoder=linear", "train.view_dropout=0.25")
    check_operator(config(*refused[:2]))
    check_operator(config(*refused, "fusion.missing=placeholder"))
    check_operator(config("train.view_dropout=0.25"))
    for data in ([], ["data=npz", "data.path=views.npz"]):
        with pytest.raises(FusionError) as error:
            check_operator(config(*refused, *data))
        assert "'complete'" in str(error.value)
        assert "train.view_dropout is 0.25" in str(error.value)
        assert "fusion.missing=placeholder" in str(error.value)
