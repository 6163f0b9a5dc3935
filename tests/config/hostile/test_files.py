"""Hostile files: tags and aliases of YAML, pickles, templates of the help."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fusionkit.errors import ConfigError
from tests.config import application as app
from tests.config.hostile.attacks import CALL, EVIL, Evil, arm_resolver, experiment, fired, refused


def test_yaml_tags_are_refused(folder: Callable[[dict[str, str]], Path]) -> None:
    import yaml  # type: ignore[import-untyped, unused-ignore]

    text = "name: !!python/object/apply:tests.tripwire.fire []\n"
    yaml.load(text, Loader=yaml.UnsafeLoader)
    assert fired()
    untrusted = folder({"data/evil.yaml": text, "data/name.yaml": "name: !!python/name:tests.tripwire.fire\n"})
    refused(["--config-dir", str(untrusted), "data=evil"], "data/evil", "python/object/apply:tests.tripwire.fire")
    refused(["--config-dir", str(untrusted), "data=name"], "data/name", "python/name:tests.tripwire.fire")


def test_aliases_that_multiply_are_refused(folder: Callable[[dict[str, str]], Path]) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    untrusted = folder(
        {
            "data/evil.yaml": "\n".join(lines),
            "data/long.yaml": "name: " + "x" * 2_000_000,
            "data/few.yaml": "name: npz\npath: &p x.npz\ndims: null\ntest_size: 0.2\nother: *p\n",
        }
    )
    argv = ["--config-dir", str(untrusted)]
    refused([*argv, "data=evil"], "data/evil", "found aliases that expand to more")
    refused([*argv, "data=long"], "data/long", "found 2000006")
    refused([*argv, "data=few"], "data.other", "There is no key")


@pytest.mark.exhaustive
def test_a_help_text_with_foreign_placeholders_is_refused(folder: Callable[[dict[str, str]], Path]) -> None:
    untrusted = folder(experiment("hydra: {help: {template: $NOTHING}}\n"))
    refused(["--config-dir", str(untrusted), *EVIL, "--help"], "hydra.help.template", "NOTHING")


def test_a_pickle_is_not_rerun(tmp_path: Path) -> None:
    file = tmp_path / "config.pickle"
    file.write_bytes(pickle.dumps(Evil()))
    pickle.loads(file.read_bytes())
    assert fired()
    refused(["--experimental-rerun", str(file)], "--experimental-rerun", "trusts")


def test_an_untrusted_primary_config_is_checked(folder: Callable[[dict[str, str]], Path]) -> None:
    primary = f"defaults: [data: mfeat, _self_]\nhydra:\n  callbacks:\n    x: {CALL}\n"
    untrusted = folder({"config.yaml": primary})
    refused(["--config-path", str(untrusted)], "hydra.callbacks.x._target_", "tests.tripwire.Fire")


def test_completion_resolves_nothing(
    folder: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arm_resolver()
    untrusted = folder({"data/evil.yaml": "name: ${tripwire:1}\n"})
    try:
        monkeypatch.setenv("COMP_LINE", f"fusionkit run --config-dir {untrusted} data=evil data.na")
        with contextlib.suppress(ConfigError):
            app.main(["--config-dir", str(untrusted), "-sc", "query=bash"])
    finally:
        OmegaConf.clear_resolver("tripwire")
    assert not fired()
