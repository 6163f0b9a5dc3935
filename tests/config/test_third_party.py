"""A distribution with operators and configs of its own, from its wheel and from an editable install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

FILES = {
    "pyproject.toml": """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "fusionkit-gram"
version = "0.1"
dependencies = ["tensor-fusionkit"]
[project.entry-points.fusionkit]
gram = "fusionkit_gram.plugin"
[tool.hatch.build.targets.wheel]
packages = ["fusionkit_gram"]
""",
    "fusionkit_gram/__init__.py": "raise_if_imported_for_a_config = True\n",
    "fusionkit_gram/plugin.py": """
import fusionkit

@fusionkit.hookimpl
def fusionkit_fusions():
    return {"gram": "fusionkit_gram.gram:Gram", "plain": "fusionkit_gram.gram:Gram"}

@fusionkit.hookimpl
def fusionkit_conf():
    return ["pkg://fusionkit_gram.conf"]
""",
    "fusionkit_gram/gram.py": '''
import fusionkit

class Gram(fusionkit.Fusion):
    """The inner product of the first two views: `sum(A_1 * A_2)`."""

    def __init__(self, n=None, dims=None, name=None, require_parameters=True, *, scale: float = 1.0,
                 preprocess=None, postprocess=None, device=None, dtype=None):
        super().__init__(n, dims, name, require_parameters, preprocess=preprocess, postprocess=postprocess,
                         device=device, dtype=dtype)
        self.scale = scale

    def calculate_n(self, dims=None):
        self.resolve_dims(dims)
        return 1

    def calculate_l(self):
        return 0

    def _fuse(self, x):
        return self.scale * (x[0] * x[1]).sum(-1, keepdim=True)
''',
    "fusionkit_gram/conf/__init__.py": "",
    "fusionkit_gram/conf/fusion/gram.yaml": """\
# The inner product of the first two views.
_target_: fusionkit.create
_recursive_: false
_convert_: all
name: gram
n: null
dims: ${dims}
device: ${device}
# A factor.
scale: 0.5
""",
    "fusionkit_gram/conf/experiment/gram_quick.yaml": """\
# @package _global_
defaults:
  - override /fusion: gram
model: {encoder: linear}
train: {epochs: 1}
""",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def environment(folder: Path, package: Path, *, editable: bool) -> Path:
    """Make an environment that sees this one's packages, install the package into it, and return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if path.endswith("site-packages")]
    (site / "parent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in seen))
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
    ]
    command += ["--no-index", "--disable-pip-version-check", *(["-e"] if editable else []), str(package)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return python


@pytest.mark.exhaustive
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_its_operators_configs_and_experiments_are_there(editable: bool, package: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", package, editable=editable)

    def fusionkit(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python), "-m", "fusionkit", *argv],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    shown = fusionkit("run", "--cfg", "job", "fusion=gram")
    assert "name: gram" in shown.stdout, shown.stderr
    assert "scale: 0.5" in shown.stdout
    generated = fusionkit("run", "--cfg", "job", "fusion=plain")
    assert "name: plain" in generated.stdout, generated.stderr
    assert "scale: 1.0" in generated.stdout
    checked = fusionkit("conf", "check", "--json")
    assert checked.returncode == 0, checked.stdout
    found = {
        (result["group"], result["option"]): result["distribution"] for result in json.loads(checked.stdout)["results"]
    }
    assert found["fusion", "gram"] == found["experiment", "gram_quick"] == found["fusion", "plain"] == "fusionkit-gram"
    ran = fusionkit("run", "+experiment=gram_quick", "hydra.run.dir=out")
    assert ran.returncode == 0, ran.stderr
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["fusion"] == "gram"
    assert record["provenance"]["versions"]["fusionkit-gram"] == "0.1"
    wrong = fusionkit("run", "fusion=gram", "fusion.scael=3")
    assert wrong.stderr == "error: There is no key 'fusion.scael'. Did you mean 'fusion.scale'?\n"
