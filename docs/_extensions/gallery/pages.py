"""Writes a page per registered fusion and fabrication, from the registry and the classes."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from click.testing import CliRunner
from repository_pages import PAGES

import fusionkit
from fusionkit import registry
from fusionkit._util.distribution import DISTRIBUTION, unprefixed
from fusionkit.cli.conf import conf
from fusionkit.config.folders import conf_dir, folder_of
from fusionkit.fusion import Fusion
from fusionkit.registry import Record
from gallery import mathematics, pictures

#: The sizes for fabrications, of which the first is taken at which it saves parameters: n, and the widths of the views.
SIZES_OF_W = ((24, (16, 12, 8)), (32, (32, 24, 16)))
#: The sizes for fusions, of which the first is taken that fits: n, where it is free, and the widths of the views.
SIZES = ((32, (64, 32, 16)), (None, (64, 32, 16)), (None, (16, 16, 16)), (None, (16, 16)))
MOST_PARAMETERS = 15_000_000
#: For a fusion that has more with its defaults.
SMALLER = {"mm_dim": 160}
#: Addresses of the papers that docstrings cite.
REFERENCES = Path(__file__).parents[2] / "references.toml"
#: What means the same in the docstrings of all fusions, of all fabrications, and of both: a pattern, and the meaning.
OF_FUSIONS = {
    r"\bA_[1k]": ":math:`A_i` is view i of k",
    r"\bx_": ":math:`x_i` is view i of k",
    r"\by = ": ":math:`y` is the output",
    r"\bn_i\b": ":math:`n_i` is the width of view i",
}
OF_FABRICATIONS = {
    "W": ":math:`W` maps the concatenated views to the output",
    r"\bw\b": ":math:`w` are its parameters",
    "ij|i, j": ":math:`i` and :math:`j` count its rows and columns from 0",
}
OF_BOTH = {
    r"\bD\b": ":math:`D` is the sum of the widths of the views",
    r"\bn\b": ":math:`n` is the width of the output",
    r"\bl\b": ":math:`l` is the number of parameters",
    "⊔": ":math:`\\sqcup` puts a view behind another",
    r"\[[^]]*;": ":math:`[a; b]` is a with b behind it",
    "⊗": ":math:`\\otimes` is the Kronecker product",
    "∘": ":math:`\\circ` multiplies entry by entry",
}
#: Of a line of code that a page shows whole.
MOST_COLUMNS = 88


@dataclass(frozen=True)
class Entry:
    """One operator: what the registry has, and its class."""

    record: Record
    cls: Any

    @property
    def is_fusion(self) -> bool:
        """Whether it is a fusion, not a fabrication."""
        return self.record.kind == "fusion"

    @property
    def page(self) -> str:
        """The page, below the folder of the gallery."""
        return f"{self.record.kind}s/{self.record.key.replace('/', '-')}"

    @property
    def stem(self) -> str:
        """What the files of its pictures begin with."""
        return self.page.replace("/", "-")

    @property
    def doc(self) -> str:
        """The docstring of the class."""
        return inspect.getdoc(self.cls) or ""

    @property
    def symbols(self) -> set[str]:
        """The words of the docstring that are symbols in formulas: its options, and what it gives a value."""
        return {*inspect.signature(self.cls).parameters, *mathematics.symbols(self.doc)}

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options, at a small size, of the fusion that is shown; the first entry is its name."""
        if not self.is_fusion:
            fitting = (size for size in SIZES_OF_W if self.parameters_of_w(*size) < size[0] * sum(size[1]))
            n, dims = next(fitting, SIZES_OF_W[0])
            shown = {"dims": list(dims), "n": n, "parameter_fabrication": self.record.key}
            return {"name": "parameterized_concatenation", **shown}
        for (n, dims), smaller in product(SIZES, ({}, SMALLER)):
            free = {"n": n} if n and self.cls.traits.free_n else {}
            options: dict[str, Any] = {"name": self.record.key, "dims": list(dims), **free, **smaller}
            try:
                if fusionkit.create(device="meta", **options).calculate_l() <= MOST_PARAMETERS:
                    return options
            except (fusionkit.FusionError, TypeError):
                continue
        return {"name": self.record.key, **next(iter(self.cls.examples()))}

    def parameters_of_w(self, n: int, dims: Sequence[int]) -> int:
        """Return l of the fabrication at a size."""
        options: dict[str, Any] = {"dims": dims, "n": n, "parameter_fabrication": self.record.key}
        return fusionkit.create("parameterized_concatenation", device="meta", **options).calculate_l()

    @cached_property
    def shown(self) -> Fusion:
        """The fusion that is shown: with ``options``, in double precision and evaluation mode."""
        made = fusionkit.create(dtype="float64", **self.options).eval()
        made.reset_parameters(torch.Generator().manual_seed(0))
        return made

    @property
    def group(self) -> str:
        """The heading of the index under which it stands."""
        if self.record.distribution != DISTRIBUTION:
            return f"Plugin: {unprefixed(self.record.distribution)}"
        if self.is_fusion:
            return "Fusions"
        if self.cls.traits.constant:
            return "Fabrications: fixed"
        if "seed" in inspect.signature(self.cls).parameters:
            return "Fabrications: partly random"
        factors = fusionkit.create_fabrication(self.record.key).degree > 1
        return f"Fabrications: {'products of factors' if factors else 'parameters in place'}"


def entries() -> list[Entry]:
    """Return all fusions and fabrications, in the order of the index."""
    records = [record for record in registry.records() if record.kind != "dataset"]
    found = [Entry(record, registry.load(record.kind, record.qualified)) for record in records]  # type: ignore[arg-type]
    return sorted(found, key=lambda e: (e.record.distribution != DISTRIBUTION, not e.is_fusion, e.group, e.page))


# -- parts of a page ---------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Return text in which reStructuredText sees no markup."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def block(directive: str, body: str, **options: str) -> str:
    """Return a directive with its options and its content."""
    fields = "".join(f":{name.replace('_', '-')}: {value}\n" for name, value in options.items())
    content = textwrap.indent(f"{fields}\n{body}".rstrip(), "   ")
    return f".. {directive}\n{content}\n\n"


def package(entry: Entry) -> str:
    """Return where the plugin of an operator is described, if it is one of this repository."""
    about = f"packages/{unprefixed(entry.record.distribution).removeprefix('fusionkit-')}"
    if about not in PAGES:
        return ""
    link = f":doc:`{entry.record.distribution} </{about}>`"
    return f"It belongs to the plugin {link}, whose page says how to install it.\n\n"


def section(title: str, text: str, line: str = "-") -> str:
    """Return a section with its heading."""
    return f"{title}\n{line * len(title)}\n\n{text.strip()}\n\n"


def description(entry: Entry) -> str:
    """Return the docstring up to the arguments, with its formulas in LaTeX, and those that it begins with displayed."""
    text = entry.doc.partition("\nArgs:")[0].partition("\nRaises:")[0]
    shown, start, end = mathematics.displayed(text, entry.symbols)
    before, after = (prose(part, entry.symbols) for part in (text[:start], text[end:].lstrip(" ,;.:")))
    return f"{before}\n\n.. math:: {shown}\n\n{after}\n\n{legend(entry, text)}\n\n"


def prose(text: str, names: Collection[str]) -> str:
    """Return the text of a docstring, with its formulas in LaTeX, and links at the titles of papers."""
    parts, end = [], 0
    for found in mathematics.PIECE.finditer(text):
        code = mathematics.content(found)
        formula = mathematics.formula(found, names)
        parts += [linked(escaped(text[end : found.start()]))]
        parts += [f"``{code}``" if formula is None else rf"\ :math:`{formula}`\ "]
        end = found.end()
    return "".join(parts) + linked(escaped(text[end:]))


def linked(text: str) -> str:
    """Return text in which the titles of papers are links."""

    def link(title: re.Match[str]) -> str:
        url = references().get(" ".join(title[1].split()))
        return f'"`{title[1]} <{url}>`__"' if url else title[0]

    return re.sub(r'"([^"]+)"', link, text)


@cache
def references() -> dict[str, str]:
    """Return the addresses of papers by their titles."""
    found: dict[str, str] = tomllib.loads(REFERENCES.read_text(encoding="utf-8"))
    return found


def legend(entry: Entry, text: str) -> str:
    """Return a sentence about the signs in a docstring that mean the same in every one."""
    signs = (OF_FUSIONS if entry.is_fusion else OF_FABRICATIONS) | OF_BOTH
    found = [meaning for sign, meaning in signs.items() if re.search(sign, text)]
    return f"Here {', '.join(found)}; what stands in parentheses behind a symbol is its shape."


def three_lines(entry: Entry) -> str:
    """Return Python that builds the operator that is shown, and calls it."""
    name, *given = ([key, repr(value).replace("'", '"')] for key, value in entry.options.items())
    options = "".join(f", {key}={value}" for key, value in given)
    call = f"fusion = fusionkit.create({name[1]}{options})"
    if len(call) > MOST_COLUMNS:
        call = call.replace(", parameter_fabrication", f",\n{' ' * call.index(name[1])}parameter_fabrication")
    return (
        f"import torch, fusionkit\n{call}\n"
        f"out = fusion([torch.randn(32, width) for width in fusion.dims])  # (32, {entry.shown.calculate_n()})"
    )


def parameters(entry: Entry) -> str:
    """Return what the docstring says about l, and l of the operator that is shown."""
    said = []
    for found in mathematics.statement_of_l(entry.doc):
        code = None if ", " in found else mathematics.latex(found, entry.symbols)
        said.append(f"l = {found}" if code is None else f":math:`l = {code}`")
    count = f"The operator of the three lines above has l = {entry.shown.calculate_l()}."
    lines = "".join(f"- {line}\n" for line in said)
    return f"{lines}\n{count}" if said else count


def traits(entry: Entry) -> str:
    """Return a table of the declared traits, with the words of the docstring of ``Traits``."""
    declared = entry.cls.traits.declared()
    if not declared:
        return "None is declared."
    rows = "* - Trait\n  - Value\n  - Meaning\n"
    for name, value in declared.items():
        shown = "yes" if value is True else str(value)
        rows += f"* - ``{name}``\n  - {shown}\n  - {meanings()[name]}\n"
    return block("list-table::", rows, header_rows="1", widths="25 15 60")


def meanings() -> dict[str, str]:
    """Return the words of the docstring of ``Traits`` about each trait."""
    attributes = (inspect.getdoc(fusionkit.Traits) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def shown_config(group: str, name: str) -> str:
    """Return what ``fusionkit conf show`` prints, without its first line, which says where the file is."""
    result = CliRunner().invoke(conf, ["show", f"{group}={name}"], catch_exceptions=False)
    return result.output.partition("\n")[2]


def presets(entry: Entry) -> dict[str, str]:
    """Return the configs of other names that choose this operator, with their first comment."""
    record, found = entry.record, {}
    folders = [conf_dir(), *filter(None, (folder_of(path) for _, path in registry.conf_paths()))]
    for file in sorted(file for folder in folders for file in folder.glob(f"{record.kind}/*.yaml")):
        config = re.match(r"((?:#.*\n)*)(?:.*\n)*?name: *(\S+)", file.read_text(encoding="utf-8"))
        if config and config[2] in (record.name, record.qualified) and file.stem != record.name:
            found[file.stem] = " ".join(config[1].replace("#", "").split())
    return found


def command(entry: Entry) -> str:
    """Return a command that trains with the operator on the embedded data, whose views differ in width.

    What a docstring says about the model, as ``model.head=none``, belongs to it.
    """
    widths = [width + i for i, width in enumerate(entry.options["dims"])]
    try:
        fusionkit.create(device="meta", **entry.options | {"dims": widths})
        encoder = ""
    except fusionkit.FusionError:
        encoder = " model.encoder=linear"
    model = "".join(f" {option}" for option in re.findall(r"``(model\.\w+=\w+)``", entry.doc))
    return f"fusionkit run {entry.record.kind}={entry.record.key}{encoder}{model}"


def definition(entry: Entry) -> str:
    """Return the entry of the class, with the methods that count."""
    own = [name for name in ("calculate_n", "calculate_l", "shapes") if name in vars(entry.cls)]
    listed = {"members": ", ".join(own)} if own else {}
    return block(f"autoclass:: {entry.cls.__module__}.{entry.cls.__qualname__}", "", **listed)


# -- pictures ----------------------------------------------------------------------------------------------------------


class Picture(NamedTuple):
    """A picture of a page: its file below images/, its text, and its caption."""

    file: str
    alt: str
    caption: str


def draw(entry: Entry, images: Path) -> list[Picture]:
    """Draw the pictures of an operator into a folder; the first is that of the index."""
    found = (_draw_fusion if entry.is_fusion else _draw_fabrication)(entry, images)
    takes_n = not entry.is_fusion or entry.cls.traits.free_n
    costs = pictures.curve(entry.record.key, entry.record.kind, 64 if takes_n else None)
    if costs:
        file = f"{entry.stem}-cost.svg"
        (images / file).write_text(pictures.plot(costs), encoding="utf-8")
        points = "; ".join(
            f"D = {sum(cost['dims'])}: l = {cost['l']}, {cost['macs'] / pictures.ROWS:.0f} multiply-adds, "
            f"{cost['elementwise'] / pictures.ROWS:.0f} others"
            for cost in costs
        )
        caption = (
            f"Parameters, and operations per row, against D, with 4 views of equal width, {pictures.ROWS} rows and "
        )
        caption += "n = 64." if takes_n else "n that follows from the widths."
        found.append(Picture(file, f"Curves over D. {points}.", caption))
    return found


def _draw_fusion(entry: Entry, images: Path) -> list[Picture]:
    fusion, heat, flow = entry.shown, f"{entry.stem}-jacobian.png", f"{entry.stem}-flow.svg"
    dims, n, J = list(fusion.resolve_dims()), fusion.calculate_n(), pictures.jacobian(fusion)
    pictures.save_matrices(images / heat, [pictures.heat(J)], dims)
    (images / flow).write_text(pictures.flow(fusion, entry.record.key), encoding="utf-8")
    read = [int((part > 0).any(0).sum()) for part in np.split(J, np.cumsum(dims)[:-1], 1)]
    return [
        Picture(
            heat,
            f"Heat map of {n} outputs by {sum(dims)} columns; number of columns of each view that change them: {read}.",
            f"How much each of the {n} outputs (rows) changes with each of the {sum(dims)} columns of random views: "
            f"white 0, darkest blue {J.max():.2g}; black lines between the views."
            f"{'  As the operator is linear, this is its matrix.' if entry.cls.traits.linear else ''}",
        ),
        Picture(
            flow,
            f"Views of the widths {dims} enter {entry.record.key}, which gives an output of width {n}.",
            "Data flow, with the shapes of the parameters: those on an arrow belong to one view.",
        ),
    ]


def _draw_fabrication(entry: Entry, images: Path) -> list[Picture]:
    made: Any = entry.shown.fabrication
    n, dims = entry.options["n"], entry.options["dims"]
    D = sum(dims)
    W = abs(made.materialize(entry.shown.flat_w(), n, D).detach().numpy())
    shared, blocks = pictures.shared_entries(made, n, D), pictures.dependence(made, n, D)
    shares = len(np.unique(shared[shared >= 0])) < int((shared >= 0).sum())
    zeros, constants = int((shared == pictures.ZERO).sum()), int((shared == pictures.CONSTANT).sum())
    counted = f"{n * D} entries: {zeros} zeros (white), {constants} other constants (gray)"
    different = len(np.unique(shared[shared >= 0]))
    counted += f", {different} different functions of w"
    unshared = "" if shares else f"  No two entries are the same function of w.  {counted}."
    found = {
        "shared": (
            [pictures.colours(shared)],
            f"W, with a colour for each group of equal entries. {counted}.",
            f"Shared entries: entries of one colour are equal for every w, up to the sign.  {counted}.",
        ),
        "w": (
            [pictures.heat(W)],
            f"Heat map of |W|, {n} by {D}; {np.mean(W > 0):.0%} of the entries are not 0.",
            f"\\|W\\| for the initial parameters, {n} rows by {D} columns: white 0, darkest blue {W.max():.2g}; "
            f"black lines between the views.{unshared}",
        ),
    }
    if not shares:
        del found["shared"]
    # Where every entry depends on the whole block there is nothing to see.
    if len(blocks) > 1 or any(groups.max() > 0 and (groups != shared).any() for groups in blocks.values()):
        blocks_picture = (
            [pictures.colours(groups) for groups in blocks.values()],
            "W, coloured by the parameters on which an entry depends; number of colours: "
            f"{', '.join(f'{name} {groups.max() + 1}' for name, groups in blocks.items())}.",
            "What an entry depends on: those of one colour depend on the same parameters.  "
            f"{'Blocks of w, from left to right' if len(blocks) > 1 else 'Block of w'}: {', '.join(blocks)}.",
        )
        found = {"blocks": blocks_picture, **found}
    for name, (panels, _, _) in found.items():
        pictures.save_matrices(images / f"{entry.stem}-{name}.png", panels, dims)
    return [Picture(f"{entry.stem}-{name}.png", alt, caption) for name, (_, alt, caption) in found.items()]


# -- pages -------------------------------------------------------------------------------------------------------------


def page(entry: Entry, shown: Iterable[Picture]) -> str:
    """Return the page of an operator, with these pictures."""
    record = entry.record
    items = ""
    for picture in shown:
        figure = block(f"figure:: /gallery/images/{picture.file}", picture.caption, alt=picture.alt)
        items += block("grid-item::", figure)
    also = f"Also named {', '.join(f'``{alias}``' for alias in record.aliases)}.  " if record.aliases else ""
    origin = " ".join(filter(None, (record.distribution, record.version)))
    begins = record.summary.split(" ")[0].isalpha()  # Not with a formula or a name.
    summary = escaped(record.summary[:1].upper() + record.summary[1:] if begins else record.summary)
    text = f"{summary}.  {also}From {origin}, as ``{record.qualified}``.\n\n" if summary else ""
    text += package(entry)
    text += description(entry)
    text += block("code-block:: python", three_lines(entry))
    text += block("grid:: 1 1 2 2", items, gutter="3")
    text += section("Number of parameters", parameters(entry))
    text += section("Definition", definition(entry))
    text += section("Traits", traits(entry))
    if entry.is_fusion:
        absent = f"An absent view: {escaped(entry.cls.absent_view())}.  See :doc:`/missing`."
        text += section("Absent views", absent)
    run = f"On the command line, and what ``fusionkit conf show {record.kind}={record.key}`` prints:\n\n"
    run += block("code-block:: text", command(entry))
    run += block("code-block:: yaml", shown_config(record.kind, record.key))
    named = presets(entry)
    if named:
        lines = "".join(f"- ``{record.kind}={name}``: {escaped(comment)}\n" for name, comment in named.items())
        run += f"Presets of this operator:\n\n{lines}"
    text += section("Config", run)
    return section(record.key, text, "=")


def card(entry: Entry, picture: Picture) -> str:
    """Return the card of an operator in the index."""
    what = "Which columns its outputs read" if entry.is_fusion else "Structure of its W"
    fields = {"link": f"/gallery/{entry.page}", "link_type": "doc", "img_top": f"/gallery/images/{picture.file}"}
    # A zero-width space, where a long name may be broken.
    title = entry.record.key.replace("_", "_\u200b")
    summary = escaped(entry.record.summary)
    return block(f"grid-item-card:: {title}", summary, **fields, img_alt=f"{what}: {entry.record.key}")


def write(folder: Path) -> None:
    """Write the pictures, a page per operator, a page per group, and the index of all; empty the folder first."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "fusions", "fabrications"):
        (folder / name).mkdir(parents=True)
    overview = ""
    for group, members in groupby(entries(), key=lambda entry: entry.group):
        cards, listed = "", ""
        for entry in members:
            shown = draw(entry, folder / "images")
            (folder / f"{entry.page}.rst").write_text(page(entry, shown), encoding="utf-8")
            cards += card(entry, shown[0])
            listed += f"/gallery/{entry.page}\n"
        grid = block("grid:: 2 2 3 4", cards, gutter="2")
        slug = re.sub(r"\W+", "-", group.lower())
        file = folder / f"{slug}.rst"
        file.write_text(section(group, grid + block("toctree::", listed, hidden=""), "="), encoding="utf-8")
        overview += section(group, grid)
    introduction = (
        "Every fusion and every fabrication that is installed.  The picture of a fusion shows which columns of the "
        "views each output reads; that of a fabrication, which entries of W depend on the same parameters."
    )
    (folder / "index.rst").write_text(section("All operators", f"{introduction}\n\n{overview}", "="), encoding="utf-8")
