"""What ``fusionkit new`` writes: all or nothing; clean code; updatable."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import fusionkit
from fusionkit import ConfigError, registry
from fusionkit.config import build, compose
from fusionkit.registry.loading import Operator
from fusionkit.scaffold import answers, generate, versions
from fusionkit.scaffold.answers import Answers
from fusionkit.testing import isolated_registry
from tests.exhaustive import exhaustive

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a package."""

    def write(
        directory: str = "fusionkit-gram", kind: Operator = "fusion", name: str = "gram", **options: bool
    ) -> Path:
        target = tmp_path / "work" / directory
        generate.new(target, Answers.of(target, kind, name, **options))
        return target

    return write


@pytest.fixture
def imports() -> Iterator[Callable[[Path], object]]:
    """Return a function that imports the plugin module of a package; nothing of it remains."""
    packages: list[Path] = []

    def plugin(target: Path) -> object:
        packages.append(target)
        sys.path.insert(0, str(target))
        return importlib.import_module(f"{target.name.replace('-', '_')}.plugin")

    yield plugin
    for target in packages:
        sys.path.remove(str(target))
        for name in [name for name in sys.modules if name.partition(".")[0] == target.name.replace("-", "_")]:
            del sys.modules[name]


def files(target: Path) -> set[str]:
    return {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["fusion", "fabrication"])
def test_files(package: Callable[..., Path], kind: Operator) -> None:
    target = package("fusionkit-gram", kind)
    assert files(target) == {
        ".copier-answers.yml",
        ".github/workflows/test.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "fusionkit_gram/__init__.py",
        "fusionkit_gram/py.typed",
        "fusionkit_gram/plugin.py",
        "fusionkit_gram/gram.py",
        "tests/test_contract.py",
        "tests/test_values.py",
    }
    for path in target.rglob("*"):
        text = path.read_text() if path.is_file() else ""
        assert not [mark for mark in ("{%", "%}", "{{ ", "_copier_conf") if mark in text.replace("${{ ", "")]
        assert text == "" or (text.endswith("\n") and not text.endswith("\n\n")), path
        assert "\n\n\n\n" not in text
    assert list(target.parent.iterdir()) == [target]  # No temporary folder remains.


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("fusion", "plugin"),
        ("fabrication", "none"),
        *exhaustive([("fabrication", "conf"), ("fusion", "lambda"), ("fusion", "tensor"), ("fabrication", "on")]),
    ],
)
def test_odd_names_work(
    package: Callable[..., Path], imports: Callable[[Path], object], kind: Operator, name: str
) -> None:
    module = imports(package("fusionkit-odd", kind, name))
    with isolated_registry(module):
        report = fusionkit.check(
            name, kind=kind, select=["config_*", "documented", "signature", "n_matches_output", "l_matches_parameters"]
        )
    assert {result.check for result in report.results} >= {"config_composes", "n_matches_output"}
    assert report.ok, [result for result in report.results if result.bad]


def test_an_operator_with_parameters(package: Callable[..., Path], imports: Callable[[Path], object]) -> None:
    target = package("fusionkit-wsum", name="wsum", parameters=True)
    module = imports(target)
    with isolated_registry(module):
        node = compose(["fusion=wsum", "fusion.shared=true", "dims=[3,3]"])["fusion"]
        assert build(node, "fusion").calculate_l() == 2
        report = fusionkit.check("wsum", tier=1, skip=["config_*"])
        values: dict[str, Any] = {}
        exec((target / "tests/test_values.py").read_text(), values)
        values["test_values"]()
        values["test_shared_weights"]()
    assert report.ok, [result for result in report.results if result.bad]


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["fusion", "fabrication"])
def test_passes_the_checks_that_are_made_on_request(
    package: Callable[..., Path], imports: Callable[[Path], object], kind: Operator
) -> None:
    # Tiers 1 and 2 are run by the package's own tests: see test_author_page.
    module = imports(package("fusionkit-third", kind))
    with isolated_registry(module):
        assert registry.find("gram", kind).summary
        report = fusionkit.check("gram", select=["activation_checkpoint", "compile_dynamic", "onnx"])
    assert report.ok, [result for result in report.results if result.bad]


def test_the_operator_is_that_of_the_readme(
    package: Callable[..., Path], imports: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    imports(package("fusionkit-same"))
    ours = importlib.import_module("fusionkit_same.gram").Gram
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("# my_fusions/gram.py")[2].partition("```")[0]
    page = ModuleType("my_fusions_gram")
    monkeypatch.setitem(sys.modules, page.__name__, page)
    exec(text, page.__dict__)
    theirs = page.__dict__["Gram"]
    assert ours.traits == theirs.traits
    assert ours.__doc__.splitlines()[0] == theirs.__doc__.splitlines()[0]
    x = [torch.randn(2, 3) for _ in range(4)]
    one, other = ours(dims=[3] * 4), theirs(dims=[3] * 4)
    assert (one.calculate_n(), one.calculate_l()) == (other.calculate_n(), other.calculate_l()) == (9, 0)
    assert torch.equal(one(x), other(x))
    readme = (Path(sys.modules["fusionkit_same"].__path__[0]).parent / "README.md").read_text(encoding="utf-8")
    assert all(f"`tests/{name}.py`" in readme for name in ("test_contract", "test_values"))


@pytest.mark.parametrize("kind", ["fusion", "fabrication"])
@pytest.mark.parametrize("tool", ["ruff", *exhaustive(["mypy"])])
def test_clean(package: Callable[..., Path], kind: Operator, tool: str) -> None:
    if find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    names = {"fusion": "tensor", "fabrication": "a_rather_long_name_for_a_fabrication"}
    target = package("fusionkit-a-rather-long-name-for-a-package", kind, names[kind])

    def run(*arguments: str) -> None:
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=target, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    if tool == "ruff":
        run("ruff", "check")
        run("ruff", "format", "--check", "--diff")
    else:
        # fusionkit's own settings, which are stricter, find torch in the cache that `mypy` has left here.
        settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
        run("mypy", *settings, target.name.replace("-", "_"), "tests")


class TestPlace:
    def test_parents_are_made(self, package: Callable[..., Path]) -> None:
        assert files(package("a/b/fusionkit-gram")) >= {"pyproject.toml"}

    def test_empty_directory_with_git(self, package: Callable[..., Path], tmp_path: Path) -> None:
        target = tmp_path / "work/fusionkit-gram"
        (target / ".git").mkdir(parents=True)
        before = target.stat().st_ino
        assert package() == target
        assert target.stat().st_ino == before  # A shell in it stays in it.
        assert files(target) >= {"pyproject.toml", ".gitignore"}

    def test_not_empty(self, package: Callable[..., Path], tmp_path: Path) -> None:
        target = tmp_path / "work/fusionkit-gram"
        target.mkdir(parents=True)
        (target / "notes.txt").write_text("mine")
        with pytest.raises(ConfigError) as error:
            package()
        assert str(error.value) == f"DIR should be a new or an empty directory; found 'notes.txt' in {target}."
        assert files(tmp_path / "work") == {"fusionkit-gram/notes.txt"}

    @pytest.mark.parametrize("dangling", [False, True])
    def test_a_file(self, package: Callable[..., Path], tmp_path: Path, dangling: bool) -> None:
        target = tmp_path / "work/fusionkit-gram"
        target.parent.mkdir()
        if dangling:
            target.symlink_to("nowhere")
        else:
            target.write_text("mine")
        with pytest.raises(ConfigError) as error:
            package()
        assert str(error.value) == f"DIR should be a new or an empty directory; found the file {target}."

    def test_below_a_file(self, package: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "work").write_text("mine")
        with pytest.raises(ConfigError, match=r"fusionkit-gram should .*found .*Not a"):
            package()

    @pytest.mark.parametrize("existing", [False, True])
    @pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), *exhaustive([KeyboardInterrupt()])])
    def test_nothing_is_half_written(
        self,
        package: Callable[..., Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        existing: bool,
        failure: BaseException,
    ) -> None:
        target = tmp_path / "work/fusionkit-gram"
        (target if existing else target.parent).mkdir(parents=True)
        rename = os.rename

        def failing(source: Path, to: Path) -> None:
            if Path(to).name in ("fusionkit-gram", "pyproject.toml"):
                raise failure
            rename(source, to)

        monkeypatch.setattr(os, "rename", failing)
        with pytest.raises(ConfigError if isinstance(failure, OSError) else KeyboardInterrupt):
            package()
        assert [path.name for path in (tmp_path / "work").rglob("*")] == (["fusionkit-gram"] if existing else [])

    def test_without_copier(
        self, package: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "copier", None)
        with pytest.raises(ConfigError) as error:
            package()
        assert str(error.value) == (
            "fusionkit new should find copier: pip install 'tensor-fusionkit[new]'; found no module 'copier'."
        )
        assert not (tmp_path / "work").exists()


class TestUpdate:
    """The author and the template go on; ``update`` merges."""

    @pytest.fixture
    def later(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """Return a function that installs a later fusionkit, with one more line in .gitignore and one more file."""

        def install() -> None:
            folder = tmp_path / "later"
            shutil.copytree(versions.SHIPPED, folder)
            ignore = folder / "project/.gitignore.jinja"
            ignore.write_text(ignore.read_text() + "/site/\n")
            (folder / "project/NEWS.md.jinja").write_text("# News of {{ name }}\n")
            monkeypatch.setattr(versions, "SHIPPED", folder)
            monkeypatch.setattr(fusionkit, "__version__", "9.0")

        return install

    @pytest.fixture
    def authored(self, package: Callable[..., Path]) -> Path:
        """Return a package that its author has changed and committed."""
        target = package()
        module = target / "fusionkit_gram/gram.py"
        module.write_text(module.read_text().replace(".flatten(-2)", ".flatten(-2).sin()"))
        (target / "README.md").unlink()
        self.commit(target)
        return target

    @staticmethod
    def commit(target: Path) -> None:
        who = {f"GIT_{role}_{key}": "a" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        for command in ("init --quiet", "add --all", "commit --quiet --allow-empty --message=mine"):
            subprocess.run(["git", *command.split()], cwd=target, check=True, env={**os.environ, **who})

    def merged(self, target: Path) -> None:
        assert (target / ".gitignore").read_text().endswith("/site/\n")
        assert (target / "NEWS.md").read_text() == "# News of gram\n"
        assert ".sin()" in (target / "fusionkit_gram/gram.py").read_text()
        assert not (target / "README.md").exists()
        assert "_commit: '9.0'" in (target / ".copier-answers.yml").read_text()

    @pytest.mark.parametrize("times", [1, *exhaustive([2])])
    def test_by_the_command(self, authored: Path, later: Callable[[], None], times: int) -> None:
        later()
        for _ in range(times):
            assert generate.update(authored) == "9.0"
            self.merged(authored)
            self.commit(authored)

    @pytest.mark.exhaustive
    def test_by_copier_itself(self, authored: Path, later: Callable[[], None]) -> None:
        later()
        versions.keep()  # As any `fusionkit new` does.
        command = [sys.executable, "-m", "copier", "update", "--defaults"]
        subprocess.run(command, cwd=authored, check=True, capture_output=True)
        self.merged(authored)

    @pytest.mark.exhaustive
    def test_nothing_new(self, authored: Path) -> None:
        assert generate.update(authored) == fusionkit.__version__
        status = subprocess.run(["git", "status", "--short"], cwd=authored, check=True, capture_output=True)
        assert status.stdout == b""

    def test_the_requirement_of_before_is_renamed(
        self, package: Callable[..., Path], later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(answers, "requirement", lambda version: "fusionkit>=0.1")
        target = package()
        self.commit(target)
        assert 'dependencies = ["fusionkit>=0.1", "torch"]' in (target / "pyproject.toml").read_text()
        later()
        generate.update(target)
        assert 'dependencies = ["tensor-fusionkit>=0.1", "torch"]' in (target / "pyproject.toml").read_text()

    def test_not_committed(self, authored: Path) -> None:
        (authored / "README.md").write_text("mine")
        with pytest.raises(ConfigError, match=r"^copier should be able to write .*; found: .*dirty"):
            generate.update(authored)
        assert (authored / "README.md").read_text() == "mine"

    def test_no_package(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as error:
            generate.update(tmp_path)
        assert str(error.value) == (
            f"DIR should hold a package that fusionkit new wrote; found no .copier-answers.yml in {tmp_path}."
        )

    @pytest.mark.parametrize(
        ("line", "instead", "message"),
        [
            (
                "_commit: ",
                "_commit: 0.0.7",
                "_commit in .copier-answers.yml should be a template in {data}/fusionkit/template; found 0.0.7: "
                "run this once with that version of fusionkit installed.",
            ),
            (
                "_src_path: ",
                "_src_path: '~/else'",
                "_src_path in .copier-answers.yml should be {data}/fusionkit/template, where the templates of this "
                "user are; found ~/else.",
            ),
        ],
    )
    def test_unknown_template(self, authored: Path, data_home: Path, line: str, instead: str, message: str) -> None:
        answers = authored / ".copier-answers.yml"
        lines = answers.read_text().splitlines()
        answers.write_text("\n".join([instead if old.startswith(line) else old for old in lines]))
        with pytest.raises(ConfigError) as error:
            generate.update(authored)
        assert str(error.value) == message.format(data=data_home)

    def test_without_git(self, package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(tmp_path))
            target = package()
        assert files(target) >= {"pyproject.toml"}
        assert f"_src_path: {versions.SHIPPED}\n" in (target / ".copier-answers.yml").read_text()
        assert "_commit" not in (target / ".copier-answers.yml").read_text()
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(tmp_path))
            with pytest.raises(ConfigError, match=r"^git should be installed, and .* for an update; one is not\.$"):
                generate.update(target)
