"""Every kind of broken plugin installed at once, next to a right one: each command works, and names the broken ones.

The commands run in fresh interpreters, as a user's would.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.exhaustive import exhaustive
from tests.fake_distributions import Site

GOOD = """\
import fusionkit

@fusionkit.hookimpl
def fusionkit_fusions():
    return {"fk_gram": "fk_good_ops:Gram"}
"""

OPERATORS = """\
import torch
import fusionkit

class Gram(fusionkit.Fusion):
    "``x_1 + x_1``: twice the first view."

    def calculate_n(self, dims=None):
        return self.resolve_dims(dims)[0]

    def calculate_l(self):
        return 0

    def _fuse(self, x):
        return x[0] + x[0]
"""


def hook(body: str, name: str = "fusionkit_fusions", marked: bool = True) -> str:
    """Return the source of a plugin with one hook."""
    return f"import fusionkit\n{'@fusionkit.hookimpl' if marked else ''}\ndef {name}():\n    {body}\n"


class Broken(NamedTuple):
    """A broken plugin: its source, what is said about it, and the rest of its installation."""

    source: str
    cause: str
    status: str = "failed"
    requires: tuple[str, ...] = ()


BROKEN = {
    "import-error": Broken(
        hook("return {'lost_import': 'a:B'}") + "import fk_nowhere",
        "it cannot be imported: ModuleNotFoundError: No module named 'fk_nowhere'",
    ),
    "syntax-error": Broken("{'lost_syntax': 'a:B'}\ndef f(:\n", "it cannot be imported: SyntaxError: invalid syntax"),
    "system-exit": Broken("{'lost_exit': 'a:B'}\nraise SystemExit(0)", "it cannot be imported: SystemExit: 0"),
    "raising-hook": Broken(
        hook("raise RuntimeError('boom', 'lost_raise')"),
        "fusionkit_fusions should not raise; found RuntimeError: ('boom'",
    ),
    "misspelt-hook": Broken(
        hook("return {'lost_misspelt': 'a:B'}", "fusionkit_fusoins"),
        "found 'fusionkit_fusoins'. Did you mean 'fusionkit_fusions'?",
    ),
    "no-hook": Broken(
        hook("return {'lost_unmarked': 'a:B'}", marked=False),
        "it should mark at least one hook with @fusionkit.hookimpl",
    ),
    "wrong-value": Broken(
        hook("return ['lost_list']"),
        "fusionkit_fusions should return a dict from names to targets; found ['lost_list']",
    ),
    "returns-none": Broken(
        hook("{'lost_none': 'a:B'}"), "fusionkit_fusions should return what its specification says; found None"
    ),
    "invalid-name": Broken(
        hook("return {'lost_name': 'a:B', 'Bad-Name': 'a:B'}"),
        "a name in fusionkit_fusions should match [a-z][a-z0-9_]*; found 'Bad-Name'",
    ),
    "too-new": Broken(
        hook("return {'lost_new': 'a:B'}"),
        "it requires 'fusionkit>=99'; found fusionkit ",
        "incompatible",
        ("fusionkit>=99",),
    ),
    "malformed-requirement": Broken(
        hook("return {'lost_requirement': 'a:B'}"),
        "its requirement on fusionkit should follow PEP 508; found 'fusionkit >>> 1'",
        "incompatible",
        ("fusionkit >>> 1",),
    ),
}

# Listed like right ones; found out when used.
WRONG_TARGETS = {
    "no-target": ("lost_target", "fk_nowhere:X", "cannot be imported from 'fk_nowhere:X'"),
    "no-fusion": ("lost_class", "json:JSONDecoder", "should be a subclass of fusionkit.Fusion"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Install all of them, and a right plugin."""
    site = Site(tmp_path_factory.mktemp("site"))
    for name, broken in BROKEN.items():
        site.install(f"fk-{name}", broken.source, requires=broken.requires)
    for name, (fusion, target, _) in WRONG_TARGETS.items():
        site.fusions(f"fk-{name}", {fusion: target})
    site.install("fk-loud", "print('noise')\n" + hook("return {'fk_loud': 'a:B'}"))
    site.install("fk-good", GOOD)
    (site.folder / "fk_good_ops.py").write_text(OPERATORS)
    return site


def reported(done: subprocess.CompletedProcess[str]) -> None:
    """Expect a line on stderr for each broken plugin, with its distribution and its cause; nothing else went wrong."""
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: the plugin ")]
    assert len(notes) == len(BROKEN)
    for name, broken in BROKEN.items():
        (note,) = [note for note in notes if f" of fk-{name} 1.0 is not loaded: " in note]
        assert broken.cause in note
    assert "Traceback" not in done.stdout + done.stderr


def plugins(site: Site, *argv: str, status: int = 0) -> dict[str, dict[str, Any]]:
    done = site.command("plugins", "--json", *argv)
    assert done.returncode == status, done.stderr
    return {record["distribution"]: record for record in json.loads(done.stdout)}


def test_list(site: Site) -> None:
    done = site.command("list")
    assert done.returncode == 0, done.stderr
    assert " fk_gram " in done.stdout
    assert " summation " in done.stdout
    assert "Traceback" not in done.stderr
    reported(done)


def test_list_json(site: Site) -> None:
    records = {record["name"]: record for record in json.loads(site.command("list", "--json").stdout)}
    assert {"fk_gram", "fk_loud", "summation", "lost_target", "lost_class"} <= set(records)
    broken = {f"fk-{name}" for name in BROKEN}
    assert broken.isdisjoint(record["distribution"] for record in records.values())


def test_plugins_names_each_with_its_cause(site: Site) -> None:
    found = plugins(site)
    for name, broken in BROKEN.items():
        record = found[f"fk-{name}"]
        assert record["status"] == broken.status
        assert broken.cause in record["error"]
        assert (record["fusions"], record["fabrications"]) == ([], [])
    for name in ("tensor-fusionkit", "fk-good", "fk-loud", "fk-no-target", "fk-no-fusion"):
        assert (found[name]["status"], found[name]["error"]) == ("loaded", None)


@pytest.mark.exhaustive
def test_plugins_table(site: Site) -> None:
    done = site.command("plugins")
    assert done.returncode == 0
    for name, broken in BROKEN.items():
        (line,) = [line for line in done.stdout.splitlines() if f" fk-{name} 1.0 " in line]
        assert broken.cause in line


@pytest.mark.exhaustive
def test_plugins_strict_imports_the_targets(site: Site) -> None:
    found = plugins(site, "--strict", status=1)
    for name, (_, _, cause) in WRONG_TARGETS.items():
        assert found[f"fk-{name}"]["status"] == "failed"
        assert cause in found[f"fk-{name}"]["error"]
    assert found["fk-good"]["status"] == "loaded"
    assert found["tensor-fusionkit"]["status"] == "loaded"


@pytest.mark.exhaustive
def test_show_a_right_one(site: Site) -> None:
    found = json.loads(site.command("show", "fk_gram", "dims=[3,4]", "--json").stdout)
    assert (found["distribution"], found["n"], found["l"], found["formula"]) == ("fk-good", 3, 0, "x_1 + x_1")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lost_name", "It would come from 'plugin' of fk-invalid-name 1.0, which failed because a name in "),
        ("fk-import-error/lost_import", "It would come from 'plugin' of fk-import-error 1.0, which failed because it "),
        ("fk_too.new/lost_new", "It would come from 'plugin' of fk-too-new 1.0, which is incompatible because it "),
        ("lost_import", "Not loaded: 'plugin' of fk-"),
    ],
)
def test_using_a_name_of_a_broken_one_says_why(name: str, hint: str, site: Site) -> None:
    code = (
        f"from fusionkit import errors, registry\ntry:\n    registry.resolve('fusion', {name!r})\n"
        "except errors.RegistryError as error:\n    print(error)"
    )
    assert hint in site.python("-c", code).stdout


@pytest.mark.exhaustive
def test_the_command_says_why_a_name_is_not_there(site: Site) -> None:
    done = site.command("show", "lost_name")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "It would come from 'plugin' of fk-invalid-name 1.0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["no-fusion", *exhaustive(["no-target"])])
def test_using_a_wrong_target_says_why(name: str, site: Site) -> None:
    fusion, _, cause = WRONG_TARGETS[name]
    done = site.command("show", fusion)
    assert done.returncode == 2
    assert f"error: the fusion {fusion!r} of fk-{name} 1.0 {cause}" in done.stderr


def test_strict_environment(site: Site) -> None:
    done = site.command("list", FUSIONKIT_STRICT="1")
    assert done.returncode == 2
    for name, broken in BROKEN.items():
        assert f"fk-{name} 1.0: " in done.stderr
        assert broken.cause in done.stderr


@pytest.mark.exhaustive
def test_strict_environment_of_the_command_plugins(site: Site) -> None:
    assert site.command("plugins", FUSIONKIT_STRICT="1").returncode == 1


def test_allow_list(site: Site) -> None:
    done = site.command("list", "--json", FUSIONKIT_PLUGINS="fk-good", FUSIONKIT_STRICT="1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "fk_gram" in {record["name"] for record in json.loads(done.stdout)}
    only_core = json.loads(site.command("list", "--json", FUSIONKIT_PLUGINS="").stdout)
    assert {record["distribution"] for record in only_core} == {"tensor-fusionkit"}


@pytest.fixture(scope="module")
def ran(site: Site, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Train once, and return the folder of the run."""
    folder = tmp_path_factory.mktemp("work")
    return folder, site.command("run", "fusion=fk_gram", "train.epochs=1", "hydra.run.dir=out", cwd=folder)


@pytest.mark.exhaustive
def test_run(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = ran
    assert done.returncode == 0, done.stderr + done.stdout
    reported(done)
    result = json.loads((folder / "out/result.json").read_text())
    assert (result["status"], result["fusion"]) == ("completed", "fk_gram")


@pytest.mark.exhaustive
def test_leaderboard(site: Site, ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = site.command("leaderboard", "out", cwd=ran[0])
    assert done.returncode == 0, done.stderr
    assert "fk_gram" in done.stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("argv", "output"),
    [
        (["check", "fk_gram", "--select", "forward_shape"], "fk-good/fk_gram"),
        (["conf", "show", "fusion=fk_gram"], "name: fk_gram"),
        (["new", "fusionkit-new", "--fusion", "fk_new"], "written: fusionkit-new"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_other_commands_work(argv: list[str], output: str, site: Site, tmp_path: Path) -> None:
    done = site.command(*argv, cwd=tmp_path, XDG_DATA_HOME=str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr + done.stdout
    assert output in done.stdout
    reported(done)


@pytest.mark.exhaustive
def test_conf_check(site: Site) -> None:
    """It finds the wrong targets, and nothing else."""
    done = site.command("conf", "check")
    assert done.returncode == 1
    assert {line.split()[1] for line in done.stdout.splitlines() if line.startswith("failed")} == {
        f"fk-{name}:" for name in (*WRONG_TARGETS, "loud")
    }
    reported(done)


@pytest.mark.parametrize("command", ["plugins", *exhaustive(["bench", "check"])])
def test_help_loads_no_plugin(command: str, site: Site) -> None:
    done = site.command(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Example" in done.stdout


@pytest.mark.exhaustive
def test_create(site: Site) -> None:
    code = "import fusionkit, torch; print(fusionkit.create('fk_gram', dims=[2])([torch.ones(2)]).tolist())"
    done = site.python("-c", code)
    assert done.stdout.splitlines()[-1] == "[2.0, 2.0]", done.stderr


def test_malformed_entry_points_of_any_distribution(site: Site, tmp_path: Path) -> None:
    """Not even torch can be imported next to such a file, so it stands in a folder of its own."""
    other = Site(tmp_path)
    other.install("fk-garbage", entry_points="[fusionkit]\nno equals sign\n")
    other.install("fk-unrelated", entry_points="[console_scripts]\nno equals sign\n")
    other.install("fk-good", GOOD)
    assert " fk_gram " in other.command("list").stdout
    found = plugins(other)
    assert found["fk-good"]["status"] == "loaded"
    assert found["fk-garbage"]["status"] == "failed"
    assert "its entry_points.txt should have lines of the form name = module" in found["fk-garbage"]["error"]
    assert "fk-unrelated" not in found
