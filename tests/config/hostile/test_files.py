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
from tests.exhaustive import exhaustive_unless


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


# -- what expands without end ------------------------------------------------------------------------------------------


#: How a value refers ten times to the one before it, BELOW.
MULTIPLYING = {
    "texts": "'{}'".format("${evil.BELOW}" * 10),
    "relative": "'{}'".format("${.BELOW}" * 10),
    "lists": "[{}]".format(", ".join(["'${evil.BELOW}'"] * 10)),
    "mappings": "{{{}}}".format(", ".join(f"x{i}: '${{..BELOW}}'" for i in range(10))),
    "selected": "'{}'".format("${oc.select:evil.BELOW,1}" * 10),
    "by_default": "'{}'".format("${oc.select:nothing,${evil.BELOW}}" * 10),
    "by_another_way": "'{}'".format("${evil.way.BELOW}" * 10),
}


@pytest.mark.parametrize("form", exhaustive_unless({"texts", "mappings", "by_default"}.__contains__, MULTIPLYING))
def test_references_that_multiply_are_refused(form: str, folder: Callable[[dict[str, str]], Path]) -> None:
    lines = ["# @package evil", "way: ${evil}", "a0: xxxxxxxxxx"]
    lines += [f"a{i}: {MULTIPLYING[form].replace('BELOW', f'a{i - 1}')}" for i in range(1, 11)]
    untrusted = folder({"experiment/evil.yaml": "\n".join(lines)})
    refused(["--config-dir", str(untrusted), "+experiment=evil"], "a", "found references that expand to more")


def test_defaults_lists_that_multiply_are_refused(folder: Callable[[dict[str, str]], Path]) -> None:
    files = {f"evil/a{i}.yaml": f"defaults: [{', '.join(f'a{i + 1}@x{j}' for j in range(10))}]\n" for i in range(10)}
    untrusted = folder({**files, "evil/a10.yaml": "x: 1\n"})
    refused(["--config-dir", str(untrusted), "+evil=a0"], "The defaults lists", "found more")


def test_references_that_are_many_and_small_are_permitted() -> None:
    from fusionkit.config.interpolations import resolve

    tree = {"a": {"x": "1" * 1000}, "b": [["${a}"] * 100] * 10}
    assert resolve(tree)["b"][9][99] == {"x": "1" * 1000}


@pytest.mark.parametrize(
    ("argv", "jobs"),
    [
        (["seed=range(0,1000000000)"], 10**9),
        (["seed=range(0,1e9,0.5)"], 2 * 10**9),
        (["seed=range(0,101)", "n=range(1,101)"], 10100),
        (["+experiment=evil"], 10**9),
    ],
)
def test_a_sweep_of_too_many_jobs_is_refused(
    argv: list[str], jobs: int, folder: Callable[[dict[str, str]], Path]
) -> None:
    untrusted = folder(experiment("hydra: {mode: MULTIRUN, sweeper: {params: {seed: 'range(0,1000000000)'}}}\n"))
    refused(["-m", "--config-dir", str(untrusted), *argv], "A sweep should have at most 10000 jobs", f"found {jobs}.")
