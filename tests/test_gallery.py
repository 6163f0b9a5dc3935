"""The gallery of the site: what its pages and pictures say is what the registry and the classes say."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml  # type: ignore[import-untyped, unused-ignore]

import fusionkit
from fusionkit import registry
from fusionkit.cli.show import formula
from fusionkit.config.fits import check_operator, preflight
from fusionkit.config.options import validate
from fusionkit.fusion import Layer, LayeredFusion, Layers
from fusionkit.testing import isolated_registry
from tests.fake_distributions import Site

EXTENSIONS = Path(__file__).parents[1] / "docs/_extensions"
if not EXTENSIONS.is_dir():
    pytest.skip("the site is no part of this distribution", allow_module_level=True)

NAMES = [(record.kind, record.qualified) for record in registry.records() if record.kind != "dataset"]
#: Whether those of this repository whose operators cite papers are installed.
ALL_PLUGINS = {"attention", "bilinear", "decision"} <= {
    name.split("/")[0].removeprefix("fusionkit-") for _, name in NAMES
}
every_operator = pytest.mark.parametrize(("kind", "name"), NAMES, ids=[name for _, name in NAMES])


@pytest.fixture(scope="module")
def pages() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXTENSIONS))
        yield importlib.import_module("gallery.pages")
    for name in [name for name in sys.modules if name.partition(".")[0] == "gallery"]:
        del sys.modules[name]


def entry_of(pages: ModuleType, kind: Any, name: str) -> Any:
    return pages.Entry(registry.find(name, kind), registry.load(kind, name))


#: Words of formulas with a fixed meaning.
FUNCTIONS = re.compile(
    "sum|prod|mean|median|min|max|log1?p?|expm?1?|logsumexp|softmax|sqrt|abs|norm|cos|tanh|relu|gelu|sigmoid|floor|mod"
    "|if|else|with|and|hash|sign|diag|reshape|Re|T|i|j"
)


def displayed(pages: ModuleType, entry: Any) -> tuple[str, str]:
    """Return the formulas of a docstring that its page displays, and the docstring without them."""
    text = entry.doc.partition("\nRaises:")[0]
    _, start, end = pages.mathematics.displayed(text, entry.symbols)
    return text[start:end], text[:start] + text[end:]


def test_sphinx_is_not_needed(pages: ModuleType) -> None:
    assert inspect.isfunction(importlib.import_module("gallery").setup)
    assert "sphinx" not in {name.partition(".")[0] for name in vars(pages)}


def test_every_operator_has_an_entry(pages: ModuleType) -> None:
    found = pages.entries()
    assert sorted((e.record.kind, e.record.qualified) for e in found) == sorted(NAMES)
    assert len({e.page for e in found}) == len(found)
    groups = [e.group for e in found]
    assert groups == [group for group in dict.fromkeys(groups) for e in found if e.group == group]


@every_operator
def test_page(pages: ModuleType, kind: Any, name: str) -> None:
    entry = entry_of(pages, kind, name)
    text = pages.page(entry, [])
    scope: dict[str, Any] = {}
    exec(pages.three_lines(entry), scope)
    stated = re.search(r"# \((\d+), (\d+)\)", text)
    assert stated is not None
    assert scope["out"].shape == tuple(map(int, stated.groups()))
    assert f"has l = {scope['fusion'].calculate_l()}.\n" in text
    node = fusionkit.config.node(kind, entry.record.key)
    assert node is not None
    assert yaml.safe_load(pages.shown_config(kind, entry.record.key)) == yaml.safe_load(node)
    for trait, value in entry.cls.traits.declared().items():
        assert f"* - ``{trait}``\n     - {'yes' if value is True else value}\n     - {pages.meanings()[trait]}" in text
    if kind == "fusion":
        assert pages.escaped(entry.cls.absent_view()) in text
    assert f".. autoclass:: {entry.cls.__module__}.{entry.cls.__qualname__}\n" in text
    assert "/" not in entry.record.key
    assert f"{kind}={entry.record.key}" in pages.command(entry)


@every_operator
def test_formula(pages: ModuleType, kind: Any, name: str) -> None:
    # The first formulas of the docstring are displayed in LaTeX: letters, digits and words in their order.
    entry = entry_of(pages, kind, name)
    code, shown = displayed(pages, entry)[0], re.search(r"\.\. math:: (.+)", pages.description(entry))
    assert shown is not None
    assert (formula(entry.doc) or "none") in code
    latex = re.sub(r"\\(operatorname|mathrm|text|sqcup|otimes|circ|dots|times|lt|gt|le|ge|ne|cdot)\b", "", shown[1])
    assert re.findall(r"[A-Za-z0-9]", latex) == re.findall(r"[A-Za-z0-9]", re.sub("σ", "sigma", code).replace("²", "2"))
    assert latex.count("{") == latex.count("}")


@every_operator
def test_every_symbol_of_the_formula_is_explained(pages: ModuleType, kind: Any, name: str) -> None:
    # Each letter is also in the text below, with or without a subscript, in the legend, or is given by the formula.
    entry = entry_of(pages, kind, name)
    code, text = displayed(pages, entry)
    text += pages.legend(entry, entry.doc)
    symbols = {word.partition("_")[0] for word in re.findall(r"[A-Za-zσ]\w*", code)}
    given = {word.partition("_")[0] for word in re.findall(r"`(\w+) = ", f"`{code}")}
    symbols = {symbol for symbol in symbols - given if not FUNCTIONS.fullmatch(symbol)}
    assert {symbol for symbol in symbols if not re.search(rf"(?<![\w\\]){symbol}(?![A-Za-z0-9])", text)} == set()


@pytest.mark.exhaustive
@every_operator
def test_the_command_is_accepted(pages: ModuleType, kind: Any, name: str) -> None:
    overrides = pages.command(entry_of(pages, kind, name)).split()[2:]
    config = validate(fusionkit.config.compose(overrides))
    preflight(config)
    assert check_operator(config, outputs=10) is not None


@pytest.mark.skipif(not ALL_PLUGINS, reason="needs tensor-fusionkit-decision")
def test_late_fusion(pages: ModuleType) -> None:
    assert pages.command(entry_of(pages, "fusion", "log_pool")).endswith(" model.encoder=linear model.head=none")
    assert "head" not in pages.command(entry_of(pages, "fusion", "gaussian_product"))


def test_the_example_of_a_fabrication_saves_parameters(pages: ModuleType) -> None:
    sizes = {}
    for kind, name in NAMES:
        if kind == "fabrication":
            shown = entry_of(pages, kind, name).shown
            sizes[name] = shown.calculate_l() < shown.n * sum(shown.dims)
    assert [name for name, saves in sizes.items() if not saves] == ["fusionkit/dense"]


def test_papers_are_linked(pages: ModuleType) -> None:
    # Every title with a year is in the table, and every title of the table is cited.
    docs = " ".join(" ".join(entry.doc.split()) for entry in pages.entries())
    cited = set(re.findall(r'"([^"]+)", (?:19|20)\d\d', docs))
    assert cited <= set(pages.references())
    assert cited == set(pages.references()) or not ALL_PLUGINS
    shown = pages.linked('Hu et al., "LoRA", 2021; "another"')
    assert shown == f'Hu et al., "`LoRA <{pages.references()["LoRA"]}>`__", 2021; "another"'


def test_text_of_a_page(pages: ModuleType) -> None:
    shown = pages.prose("The ``x_1`` of `a + b` and P_i^j, a_b(c) is mm_dim*2 of `code`.", {"mm_dim"})
    assert shown == (
        "The \\ :math:`x_{1}`\\  of \\ :math:`a +b`\\  and \\ :math:`P_{i}^j`\\ , a\\_b(c) is mm\\_dim\\*2 of ``code``."
    )


def test_formulas_that_belong_together(pages: ModuleType) -> None:
    shown, start, end = pages.mathematics.displayed("Twice: `a = b` with `b = c`, `c = d` of `d = 1`")
    assert shown == r"& a =b \\ & \text{with }b =c \\ & c =d"
    assert (start, end) == (7, 36)


def test_no_latex_for_what_is_no_formula(pages: ModuleType) -> None:
    latex = pages.mathematics.latex
    assert latex("the mean") is None
    assert latex("f(x") is None
    assert latex('a = "b"') is None
    assert latex("nb*c") is None
    assert latex("nb*c", {"nb"}) == r"\mathrm{nb} *c"
    assert latex("mm_dim^(k+1)", {"mm_dim"}) == r"\mathrm{mm\_dim} ^{k +1 }"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("dense", 24 * 36),
        ("toeplitz", 24 + 36 - 1),
        ("block_circulant", 6 * 9 * 4),  # A circulant block of size 4 has 4 different entries.
        ("kronecker", 24 * 36),  # Every product of an entry of A and one of B occurs once.
        ("hashed", 54),
        ("duplicated_padding", 12 * 18),
        ("one", 0),
    ],
)
def test_shared_entries(pages: ModuleType, name: str, count: int) -> None:
    made = entry_of(pages, "fabrication", name).shown.fabrication
    groups = pages.pictures.shared_entries(made, 24, 36)
    assert groups.shape == (24, 36)
    assert set(groups[groups >= 0].tolist()) == set(range(count))


def test_toeplitz_entries_are_shared_along_diagonals(pages: ModuleType) -> None:
    groups = pages.pictures.shared_entries(entry_of(pages, "fabrication", "toeplitz").shown.fabrication, 24, 36)
    assert (groups[1:, 1:] == groups[:-1, :-1]).all()


def test_constant_entries(pages: ModuleType) -> None:
    pictures = pages.pictures
    groups = pictures.shared_entries(entry_of(pages, "fabrication", "constant_eye").shown.fabrication, 24, 36)
    assert (groups == pictures.ZERO - pictures.ZERO * (groups == pictures.CONSTANT) // 2).all()
    assert (groups.diagonal() == pictures.CONSTANT).all()
    assert (groups == pictures.CONSTANT).sum() == 24


def test_dependence(pages: ModuleType) -> None:
    made = entry_of(pages, "fabrication", "lowrank").shown.fabrication
    groups = pages.pictures.dependence(made, 24, 36)
    assert (groups["A"] == torch.arange(24)[:, None].numpy()).all()
    assert (groups["B"] == torch.arange(36).numpy()).all()


def test_jacobian(pages: ModuleType) -> None:
    fusion = fusionkit.create("parameterized_concatenation", dims=[3, 2], n=4, dtype="float64")
    weight: Any = fusion.weight
    assert pages.pictures.jacobian(fusion) == pytest.approx(weight.detach().abs().numpy())


class Summed(LayeredFusion):
    per_view = ("inputs",)

    def __init__(self, n: int | None = None, dims: Sequence[int] | None = None) -> None:
        super().__init__(n, dims)
        self.create()

    def layers(self) -> Layers:
        n = self.calculate_n()
        return {"inputs": [Layer(n, width) for width in self.resolve_dims()], "output": [Layer(n, n, bias=False)]}


def test_parameters_by_view(pages: ModuleType) -> None:
    of_view, shared = pages.pictures.parameters_by_view(Summed(4, [3, 2]))
    assert of_view == [["matrix 4 × 3", "bias 4"], ["matrix 4 × 2", "bias 4"]]
    assert shared == ["matrix 4 × 4"]
    weighted = fusionkit.create("parameterized_weighted_summation", dims=[3, 3])
    assert pages.pictures.parameters_by_view(weighted) == ([["a weight of 2"]] * 2, [])


class Repeated(Summed):
    def layers(self) -> Layers:
        return {
            "inputs": [layer for layer in super().layers()["inputs"] for _ in range(2)],
            "output": [Layer(4, 4, bias=False)] * 5,
        }


def test_parameters_of_one_shape_are_counted(pages: ModuleType) -> None:
    of_view, shared = pages.pictures.parameters_by_view(Repeated(4, [3, 2]))
    assert of_view == [["2 matrices 4 × 3", "2 biases 4"], ["2 matrices 4 × 2", "2 biases 4"]]
    assert shared == ["5 matrices 4 × 4"]


@pytest.mark.parametrize(
    ("kind", "name", "n"), [("fabrication", "lowrank", 64), ("fusion", "parameterized_weighted_summation", None)]
)
def test_curve(pages: ModuleType, kind: Any, name: str, n: int | None) -> None:
    costs = pages.pictures.curve(name, kind, n)
    assert [sum(cost["dims"]) for cost in costs] == [16, 256, 4096]
    for cost in costs:
        if kind == "fabrication":
            assert cost["l"] == fusionkit.create_fabrication(name).calculate_l(64, sum(cost["dims"]))
        else:
            assert cost["l"] == fusionkit.create(name, dims=cost["dims"], device="meta").calculate_l()


def test_plot(pages: ModuleType) -> None:
    # The points of each curve, from left to right; what is 0 everywhere has no point, and its label says so.
    costs = [
        {"dims": [width] * 4, "n": 1, "l": l, "macs": 0, "elementwise": 64 * l}
        for width, l in ((4, 10), (64, 100), (1024, 10_000))
    ]
    svg = ElementTree.fromstring(pages.pictures.plot(costs))
    tag = "{http://www.w3.org/2000/svg}"
    dense, *curves = [line.attrib["points"] for line in svg.iter(f"{tag}polyline")]
    assert curves == ["65,205 220,160 375,70", "", "65,205 220,160 375,70"]
    assert [point.split(",")[0] for point in dense.split()] == ["65", "220", "375"]
    texts = [text.text for text in svg.iter(f"{tag}text")]
    assert texts[:5] == ["1", "10", "100", "1k", "10k"]
    assert {"16", "256", "4096", "l", "multiply-adds per row: 0", "other operations per row"} < set(texts)


def test_flow(pages: ModuleType) -> None:
    svg = ElementTree.fromstring(pages.pictures.flow(Summed(4, [3, 2]), "a<b"))
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    first, second = ["matrix 4 × 3", "bias 4", "view 0: 3"], ["matrix 4 × 2", "bias 4", "view 1: 2"]
    assert texts == [*first, *second, "a<b", "matrix 4 × 4", "output: 4"]


def test_presets(pages: ModuleType) -> None:
    found = pages.presets(entry_of(pages, "fusion", "parameterized_concatenation"))
    assert found["lphm_parameterized_concatenation"].startswith("A preset: the concatenated views times W = A ⊗ (S T).")
    assert pages.presets(entry_of(pages, "fusion", "average")) == {}


def test_a_foreign_operator(pages: ModuleType, site: Site, tmp_path: Path) -> None:
    source = '''
        import fusionkit
        from fusionkit.fusion import ElementwiseFusion

        class Twice(ElementwiseFusion):
            """Twice the sum: `2 (A_1 + ... + A_k)`; the tally is l = 0."""

            traits = fusionkit.Traits(linear=True)

            def _fuse(self, x):
                return 2 * sum(x)

        @fusionkit.hookimpl
        def fusionkit_fusions():
            return {"twice": "fk_twice:Twice"}
    '''
    site.install("fk-twice", source)
    with isolated_registry(importlib.import_module("fk_twice")):
        pages.write(tmp_path / "gallery")
    text = (tmp_path / "gallery/fusions/twice.rst").read_text(encoding="utf-8")
    assert ".. math:: 2 (A_{1}+\\dots +A_{k})" in text
    images = re.findall(r"figure:: /(gallery/images/\S+)", text)
    assert len(images) == 3
    for image in images:
        assert (tmp_path / image).is_file()
    assert len(re.findall(r":alt: \S", text)) == 3
    assert "refused; missing=placeholder" in text
    index = (tmp_path / "gallery/index.rst").read_text(encoding="utf-8")
    assert ":link: /gallery/fusions/twice\n" in index
