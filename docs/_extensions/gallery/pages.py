"""Writes a page per registered fusion and fabrication, from the registry and the classes."""

from __future__ import annotations

import hashlib
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml  # type: ignore[import-untyped, unused-ignore]
from click.testing import CliRunner

import fusionkit
from fusionkit import config, registry
from fusionkit._util.distribution import DISTRIBUTION, unprefixed
from fusionkit.cli.conf import conf
from fusionkit.config.folders import conf_dir, folder_of
from fusionkit.config.nodes import own_options
from fusionkit.fusion import Fusion
from fusionkit.registry import Record
from gallery import mathematics, pictures

#: The size at which fabrications are shown.
N, DIMS = 24, (16, 12, 8)
#: The sizes for fusions, of which the first is taken that fits: n, where it is free, and the widths of the views.
SIZES = ((8, (10, 6, 4)), (None, (10, 6, 4)), (None, (8, 8, 8)), (None, (8, 8)))
MOST_PARAMETERS = 100_000


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
    def doc(self) -> str:
        """The docstring of the class."""
        return inspect.getdoc(self.cls) or ""

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options, at a small size, of the fusion that is shown; the first entry is its name."""
        if not self.is_fusion:
            shown = {"dims": list(DIMS), "n": N, "parameter_fabrication": self.record.key}
            return {"name": "parameterized_concatenation", **shown}
        for n, dims in SIZES:
            free = {"n": n} if n and self.cls.traits.free_n else {}
            options = {"name": self.record.key, "dims": list(dims), **free}
            try:
                if fusionkit.create(device="meta", **options).calculate_l() <= MOST_PARAMETERS:
                    return options
            except (fusionkit.FusionError, TypeError):
                continue
        return {"name": self.record.key, **next(iter(self.cls.examples()))}

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


def _operators() -> list[Record]:
    return [record for record in registry.records() if record.kind != "dataset"]


def entries() -> list[Entry]:
    """Return all fusions and fabrications, in the order of the index."""
    found = [Entry(record, registry.load(record.kind, record.qualified)) for record in _operators()]
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


def section(title: str, text: str, line: str = "-") -> str:
    """Return a section with its heading."""
    return f"{title}\n{line * len(title)}\n\n{text.strip()}\n\n"


def formula(entry: Entry) -> str:
    """Return the first paragraph of the docstring, with its formulas in LaTeX and the first one displayed."""
    names = {*inspect.signature(entry.cls).parameters, *mathematics.symbols(entry.doc)}
    text, displayed, parts = " ".join(entry.doc.partition("\n\n")[0].split()), False, []
    start = 0
    for span in mathematics.SPAN.finditer(text):
        parts.append(text[start : span.start()])
        start = span.end()
        code = next(group for group in span.groups() if group)
        found = span[3] or mathematics.latex(code, names)
        if found is None or not re.search(r"\w\W|\W\w", code):  # A single word is the name of something.
            parts.append(f"``{code}``")
        elif displayed:
            parts.append(f":math:`{found}`")
        else:
            displayed = True
            parts.append(f"\n\n.. math:: {found}\n\n")
    rest = text[start:].lstrip(" ,;.") if displayed and len(parts) <= 2 else text[start:]
    return re.sub(r"(\.\. math::[^\n]*\n\n)[ ,;.]+", r"\1", "".join([*parts, rest])) + "\n\n"


def three_lines(entry: Entry) -> str:
    """Return Python that builds the operator that is shown, and calls it."""
    name, *given = ([key, repr(value).replace("'", '"')] for key, value in entry.options.items())
    options = "".join(f", {key}={value}" for key, value in given)
    return (
        f"import torch, fusionkit\nfusion = fusionkit.create({name[1]}{options})\n"
        f"out = fusion([torch.randn(32, width) for width in fusion.dims])  # (32, {entry.shown.calculate_n()})"
    )


def parameters(entry: Entry) -> str:
    """Return what the docstring says about l, and l of the operator that is shown."""
    names = {*inspect.signature(entry.cls).parameters, *mathematics.symbols(entry.doc)}
    said = []
    for found in mathematics.statement_of_l(entry.doc):
        code = None if ", " in found else mathematics.latex(found, names)
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


@cache
def _configs() -> list[tuple[str, Path, str, str]]:
    """Return group, file, name of the operator and first comment of every config that chooses an operator."""
    found = []
    for folder in [conf_dir(), *filter(None, (folder_of(path) for _, path in registry.conf_paths()))]:
        for file in sorted((*folder.glob("fusion/*.yaml"), *folder.glob("fabrication/*.yaml"))):
            text = file.read_text(encoding="utf-8")
            name, comment = re.search(r"^name: *(\S+)", text, re.MULTILINE), re.match(r"(?:#.*\n)*", text)
            if name and comment:
                words = " ".join(line.lstrip("# ") for line in comment[0].splitlines())
                found.append((file.parent.name, file, name[1], words))
    return found


def presets(entry: Entry) -> dict[str, str]:
    """Return the configs of other names that choose this operator, with their first comment."""
    record = entry.record
    return {
        file.stem: words
        for group, file, name, words in _configs()
        if group == record.kind and name in (record.name, record.qualified) and file.stem != record.name
    }


def command(entry: Entry) -> str:
    """Return a command that trains with the operator on the embedded data."""
    if not entry.is_fusion:
        return f"fusionkit run fabrication={entry.record.key}"
    node = yaml.safe_load(config.node("fusion", entry.record.key) or "")
    own = {o.name for o in own_options(entry.cls)} - {"parameter_fabrication"}
    options = {key: value for key, value in node.items() if key in own}
    data = yaml.safe_load(config.node("dataset", "mfeat") or "")
    try:
        free = {"n": 64} if entry.cls.traits.free_n else {}
        fusionkit.create(entry.record.key, dims=data["dims"], device="meta", **free, **options)
    except fusionkit.FusionError:
        return f"fusionkit run fusion={entry.record.key} model.encoder=linear"
    return f"fusionkit run fusion={entry.record.key}"


def definition(entry: Entry) -> str:
    """Return the entry of the class, with the methods that count."""
    own = [name for name in ("calculate_n", "calculate_l", "shapes") if name in vars(entry.cls)]
    listed = {"members": ", ".join(own)} if own else {}
    return block(f"autoclass:: {entry.cls.__module__}.{entry.cls.__qualname__}", "", **listed)


# -- pictures ----------------------------------------------------------------------------------------------------------


@dataclass
class Picture:
    """A picture of a page: what draws it, its height in inches, its text, and its caption."""

    name: str
    height: float
    draw: Callable[[Any], None]
    alt: str
    caption: str


def pictures_of(entry: Entry) -> tuple[list[Picture], Any]:
    """Return the pictures of a page, and the image of the index."""
    costs = pictures.curve(entry.record.key, entry.record.kind, 64 if _takes_n(entry) else None)
    found, thumbnail = (_of_fusion if entry.is_fusion else _of_fabrication)(entry)
    if costs:
        first, last = costs[0], costs[-1]
        height = "n = 64" if _takes_n(entry) else "n as it follows"
        alt = (
            f"Two curves over D: l goes from {first['l']} at D = {sum(first['dims'])} to {last['l']} at "
            f"D = {sum(last['dims'])}; multiply-adds per row go from {first['macs'] / pictures.ROWS:.0f} to "
            f"{last['macs'] / pictures.ROWS:.0f}. A dashed gray line shows a dense W."
        )
        caption = (
            f"Parameters and operations against D, counted for 4 views of equal width, {pictures.ROWS} rows, {height}."
        )
        found.append(Picture("cost", 3.6, pictures.draw_curve(costs), alt, caption))
    return found, thumbnail


def _takes_n(entry: Entry) -> bool:
    return not entry.is_fusion or entry.cls.traits.free_n


def _of_fusion(entry: Entry) -> tuple[list[Picture], Any]:
    fusion = entry.shown
    dims, n, J = list(fusion.resolve_dims()), fusion.calculate_n(), pictures.jacobian(fusion)
    read = [int((part > 0).any(0).sum()) for part in np.split(J, np.cumsum(dims)[:-1], 1)]
    always = "It is linear: these are the entries of its matrix, for all views." if entry.cls.traits.linear else ""
    flow = Picture(
        "flow",
        3.2,
        pictures.draw_flow(fusion, entry.record.key),
        f"Data flow: views of the widths {dims} enter {entry.record.key}, which gives an output of width {n}.",
        "Data flow of the operator of the three lines, with the shapes of its parameters: above the box those that "
        "belong to one view.",
    )
    heat = Picture(
        "jacobian",
        3.2,
        pictures.draw_matrix(J, dims, "output"),
        f"Heat map, {n} outputs by {sum(dims)} columns: the output changes with {read} columns of the views.",
        f"How much each output changes with each column of random views: white 0, blue {J.max():.2g}.  {always}",
    )
    return [flow, heat], np.sqrt(J / (J.max() or 1))


def _of_fabrication(entry: Entry) -> tuple[list[Picture], Any]:
    made: Any = entry.shown.fabrication
    n, D = N, sum(DIMS)
    W = abs(made.materialize(entry.shown.flat_w(), n, D).detach().numpy())
    shared, blocks = pictures.shared_entries(made, n, D), pictures.dependence(made, n, D)
    zeros, constants = int((shared == pictures.ZERO).sum()), int((shared == pictures.CONSTANT).sum())
    counted = (
        f"{shared.max() + 1} different functions of w in {n * D} entries, {zeros} zeros, {constants} other constants"
    )
    heat, top = pictures.draw_matrix(W, DIMS, "row"), f"{W.max():.2g}"
    found = [
        Picture(
            "w",
            2.9,
            heat,
            f"Heat map of |W|, {n} by {D}; {np.mean(W > 0):.0%} of the entries are not 0, the greatest is {top}.",
            f"\\|W\\| at the start, n = {n}, views of the widths {', '.join(map(str, DIMS))}: white 0, blue {top}.",
        ),
        Picture(
            "shared",
            2.9,
            pictures.draw_groups({"": shared}, DIMS),
            f"W with a colour for each group of equal entries: {counted}.",
            f"Shared entries: those of one colour are equal for every w, but for the sign.  {counted[0].upper()}"
            f"{counted[1:]} (white and gray).",
        ),
    ]
    if len(blocks) > 1 or any((groups != shared).any() for groups in blocks.values()):
        sets = ", ".join(f"{name} {groups.max() + 1}" for name, groups in blocks.items())
        draw = pictures.draw_groups({f"block {name}": groups for name, groups in blocks.items()}, DIMS)
        alt = f"W, coloured by the parameters of each block on which an entry depends; number of colours: {sets}."
        caption = "What an entry depends on: those of one colour depend on the same parameters of the block."
        found.append(
            Picture("blocks", 2.9 if len(blocks) == 1 else 0.3 + 1.4 * -(-len(blocks) // 2), draw, alt, caption)
        )
    first = next(iter(blocks.values()), shared)
    if len(found) == 2 or first.max() > 0:
        return found, pictures.colours(shared if len(found) == 2 else first)
    return found, np.sqrt(W / (W.max() or 1))


# -- pages -------------------------------------------------------------------------------------------------------------


def page(entry: Entry, shown: Iterable[Picture]) -> str:
    """Return the page of an operator, with these pictures."""
    record = entry.record
    items = ""
    for picture in shown:
        file = f"/gallery/images/{entry.page.replace('/', '-')}-{picture.name}.png"
        items += block("grid-item::", block(f"figure:: {file}", picture.caption, alt=picture.alt))
    also = f"Also named {', '.join(f'``{alias}``' for alias in record.aliases)}.  " if record.aliases else ""
    origin = " ".join(filter(None, (record.distribution, record.version)))
    summary = escaped(record.summary[:1].upper() + record.summary[1:])
    text = f"{summary}.  {also}From {origin}, as ``{record.qualified}``.\n\n" if summary else ""
    text += formula(entry)
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


def cards(group: Iterable[Entry]) -> str:
    """Return the grid of a group's cards."""
    items = ""
    for entry in group:
        image = f"/gallery/images/{entry.page.replace('/', '-')}-small.png"
        what = "Which columns its outputs read" if entry.is_fusion else "Structure of its W"
        fields = {"link": f"/gallery/{entry.page}", "link_type": "doc", "img_top": image}
        summary = escaped(entry.record.summary)
        # A zero-width space, where a long name may be broken.
        title = entry.record.key.replace("_", "_\u200b")
        items += block(f"grid-item-card:: {title}", summary, **fields, img_alt=f"{what}: {entry.record.key}")
    return block("grid:: 2 2 3 4", items, gutter="2")


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Draw the pictures into a folder, and yield each page with its text."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    overview = ""
    for group, members in groupby(entries(), key=lambda entry: entry.group):
        listed = list(members)
        for entry in listed:
            shown, thumbnail = pictures_of(entry)
            stem = entry.page.replace("/", "-")
            for picture in shown:
                pictures.save(images / f"{stem}-{picture.name}.png", picture.height, picture.draw)
            pictures.thumbnail(images / f"{stem}-small.png", thumbnail)
            yield folder / f"{entry.page}.rst", page(entry, shown)
        tree = block("toctree::", "\n".join(f"/gallery/{entry.page}" for entry in listed), hidden="")
        slug = re.sub(r"\W+", "-", group.lower())
        yield folder / f"{slug}.rst", section(group, cards(listed) + tree, "=")
        overview += section(group, cards(listed))
    introduction = (
        "Every fusion and every fabrication that is installed, drawn and described from the registry and the classes.  "
        "The picture of a fusion shows which columns of the views each output reads; that of a fabrication, which "
        "entries of W share parameters."
    )
    yield folder / "index.rst", section("All operators", f"{introduction}\n\n{overview}", "=")


def _digest() -> str:
    """Return a digest of everything that the gallery shows: sources, configs, and what the registry has."""
    folders = {Path(__file__).parent, Path(fusionkit.__file__).parent, conf_dir()}
    found = [(record, registry.load(record.kind, record.qualified)) for record in _operators()]
    folders |= {Path(inspect.getfile(cls)).parent for _, cls in found}
    digest = hashlib.sha256(repr([record.to_dict() for record, _ in found]).encode())
    for file in sorted(file for folder in folders for file in (*folder.rglob("*.py"), *folder.rglob("*.yaml"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write(folder: Path) -> None:
    """Write the gallery, unless it is there already; pages of other operators are removed."""
    made = folder / "digest"
    if made.is_file() and made.read_text(encoding="utf-8") == _digest():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in files(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    made.write_text(_digest(), encoding="utf-8")
