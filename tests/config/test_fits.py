from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionkit.config import compose
from fusionkit.config.fits import preflight
from fusionkit.errors import ConfigError, FusionError


def test_the_default_may_run() -> None:
    preflight(compose([]))


@pytest.mark.parametrize("device", ["nothing", "cuda:99", "cpu:x", "meta"])
def test_a_device_should_be_one_of_this_machine(device: str) -> None:
    cfg = {**compose([]), "device": device}
    with pytest.raises(FusionError, match=rf"^device should be one .*; found '{device}'\.$"):
        preflight(cfg)


def test_the_machines_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(FusionError, match="one of this machine: cpu, cuda:0, cuda:1; found 'nothing'"):
        preflight({**compose([]), "device": "nothing"})


def test_a_fabrication_needs_a_fusion_that_takes_one() -> None:
    cfg = compose(["fusion=average", "fabrication=lowrank"])
    with pytest.raises(ConfigError) as error:
        preflight(cfg)
    expected = "fabrication should be dense, because the fusion 'average' takes none; found 'lowrank'."
    assert str(error.value) == expected


def test_a_preset_keeps_its_own() -> None:
    cfg: dict[str, Any] = compose(["fusion=lowrank_parameterized_concatenation", "fabrication=lowrank"])
    preflight(cfg)
    with pytest.raises(ConfigError, match=r"this fusion fixes its own, 'lowrank'; found 'lowrank'\."):
        preflight(cfg, fabrication_of_group=False)
