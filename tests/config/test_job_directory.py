from __future__ import annotations

from hydra.types import RunMode
from omegaconf import OmegaConf

from fusionkit.config import config_hash
from fusionkit.config.composition import CheckingLoader, plain_config, prepare, search_path


def test_the_directory_of_a_job_is_the_hash_of_its_configuration() -> None:
    prepare()
    loader = CheckingLoader(search_path())
    cfg = loader.load_configuration("config", ["seed=3", "device=cuda:1"], RunMode.RUN)
    name = config_hash(plain_config(cfg))
    assert OmegaConf.select(cfg, "hydra.sweep.subdir") == name
    cfg.hydra.sweep.subdir = "${fusionkit.run_name:device}"
    assert OmegaConf.select(cfg, "hydra.sweep.subdir") == f"{name}-cuda1"
