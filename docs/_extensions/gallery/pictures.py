"""The pictures of the gallery, of what an operator computes: its W, its data flow, its Jacobian, its cost."""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray

import fusionkit
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion

Groups = NDArray[np.int64]
Image = NDArray[np.float64]
#: The group of the entries that are 0 for every w, and of those that are another constant.
ZERO, CONSTANT = -2, -1

# -- matrices (n, D) ---------------------------------------------------------------------------------------------------


def save_matrices(path: Path, images: Sequence[Image], dims: Sequence[int]) -> None:
    """Write images (n, D, 3) of matrices side by side, with a black line between two views; no axes, which are slow."""
    height, width, gap = 360, 540 // len(images), 8
    panels = []
    for image in images:
        rows, columns = np.arange(height) * image.shape[0] // height, np.arange(width) * image.shape[1] // width
        panel = image[rows][:, columns]
        for start in np.cumsum(dims)[:-1] * width // sum(dims):
            panel[:, start - 1 : start + 1] = 0
        panels += [panel, np.ones((height, gap, 3))]
    imsave(path, np.hstack(panels[:-1]))


def heat(M: Image) -> Image:
    """Return an image (n, D, 3) of absolute values: 0 is white, the greatest dark blue."""
    return np.asarray(colormaps["Blues"](np.sqrt(M / (M.max() or 1)))[..., :3])


def colours(groups: Groups) -> Image:
    """Return an image (n, D, 3): a colour per group; white for ZERO, gray for CONSTANT.

    Hues a golden section apart: groups of neighbouring numbers, and so of neighbouring entries, differ clearly.
    """
    own = [colorsys.hsv_to_rgb(0.618034 * i % 1, 0.4 + 0.25 * (i % 3), 0.95) for i in range(groups.max() + 1)]
    return np.array([*own, (1.0, 1.0, 1.0), (0.6, 0.6, 0.6)])[groups]


def _matrices(fabrication: Fabrication, w: torch.Tensor, n: int, D: int) -> NDArray[np.float64]:
    """Return W (rows of w, n*D) for each row of w."""
    W = torch.func.vmap(lambda each: fabrication.materialize(each, n, D))(w)
    return W.detach().flatten(1).numpy()


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def shared_entries(fabrication: Fabrication, n: int, D: int) -> Groups:
    """Return groups (n, D) of the entries of W that are equal, but for their sign, for every w.

    The groups are numbered from 0; entries that do not depend on w are in ZERO or CONSTANT.
    """
    W = _matrices(fabrication, _random(3, fabrication.calculate_l(n, D)), n, D).T
    tied = np.round(W * np.sign(W[:, :1]) / (abs(W).max() or 1) * 1e9).astype(np.int64)
    groups = np.unique(tied, axis=0, return_inverse=True)[1].reshape(-1)
    groups[(tied == tied[:, :1]).all(1)] = CONSTANT
    groups[(tied == 0).all(1)] = ZERO
    return _numbered(groups).reshape(n, D)


def dependence(fabrication: Fabrication, n: int, D: int) -> dict[str, Groups]:
    """Return per block of w groups (n, D) of the entries of W that depend on the same parameters of the block."""
    l = fabrication.calculate_l(n, D)
    w, other = _random(2, l)
    W = _matrices(fabrication, torch.cat([w[None], torch.where(torch.eye(l, dtype=torch.bool), other, w)]), n, D)
    depends = abs(W[1:] - W[0]).T > 1e-12  # (n*D, l)
    found = {}
    for name, block in fabrication.split(torch.arange(l), n, D).items():
        mine = depends[:, block.flatten().numpy()]
        groups = np.unique(np.packbits(mine, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        groups[~mine.any(1)] = ZERO
        found[name] = _numbered(groups).reshape(n, D)
    return found


def _numbered(groups: Groups) -> Groups:
    """Return the groups, numbered in the order of their first entries."""
    order = {group: i for i, group in enumerate(dict.fromkeys(groups[groups >= 0].tolist()))}
    return np.array([order.get(group, group) for group in groups.tolist()])


def jacobian(fusion: Fusion) -> Image:
    """Return the absolute derivatives (n, D) of the output with respect to the views, at random views."""
    dims = fusion.resolve_dims()
    found: torch.Tensor = torch.autograd.functional.jacobian(
        lambda joined: fusion(joined.split(dims)), _random(sum(dims))
    )
    return found.abs().numpy()


# -- the data flow of a fusion -----------------------------------------------------------------------------------------


def parameters_by_view(fusion: Fusion) -> tuple[list[list[str]], list[str]]:
    """Return the parameters of each view (``per_view``), and the others, in words with their shapes."""
    of_view: list[Counter[str]] = [Counter() for _ in fusion.resolve_dims()]
    shared = Counter[str]()
    # A list in ``per_view`` may have several entries for each view: those of the first one stand first.
    entries = Counter(first for first, *_ in {tuple(name.split(".")[:2]) for name, _ in fusion.named_parameters()})
    for name, parameter in fusion.named_parameters():
        first, *rest = name.split(".")
        text = f"{_word(name, parameter.dim())} {' × '.join(map(str, parameter.shape))}"
        if first in fusion.per_view and rest:
            of_view[int(rest[0]) * len(of_view) // entries[first]][text] += 1
        elif first in fusion.per_view:
            for texts in of_view:
                texts[f"a {first} of {len(of_view)}"] += 1
        else:
            shared[text] += 1
    return [_counted(texts) for texts in of_view], _counted(shared)


def _word(name: str, dim: int) -> str:
    """Return a word for a parameter: "matrix", "bias", or its own name."""
    last = name.rpartition(".")[2]
    return "matrix" if last == "weight" and dim == 2 else last.replace("_", " ")


def _counted(texts: Counter[str]) -> list[str]:
    """Return each text, with its number where it is there several times."""
    plural = {"matrix": "matrices", "bias": "biases"}
    found = []
    for text, count in texts.items():
        word, rest = text.split(" ", 1)
        found.append(text if count == 1 else f"{count} {plural.get(word, word)} {rest}")
    return found


def _first(texts: list[str]) -> list[str]:
    """Return at most four lines, the last of which says how many there are beside the others."""
    return texts if len(texts) <= 4 else [*texts[:3], f"and {len(texts) - 3} more"]


def flow(fusion: Fusion, name: str) -> str:
    """Return an SVG of the views, the parameters that each passes, the operator with the others, and the output."""
    dims, (of_view, shared) = fusion.resolve_dims(), parameters_by_view(fusion)
    parts = []
    for i, (width, own) in enumerate(zip(dims, of_view, strict=True)):
        x = (2 * i + 1) * 200 // len(dims)
        parts += [_arrow(x, 40, 120), _text(x, 75, _first(own)), _box(x, 25, 110, 30, [f"view {i}: {width}"])]
    parts += [_box(200, 175, 380, 110, [name, *_first(shared)]), _arrow(200, 230, 260)]
    parts += [_box(200, 275, 110, 30, [f"output: {fusion.calculate_n()}"])]
    return _svg(parts)


def _svg(parts: Sequence[str]) -> str:
    """Return an SVG of 400 by 300 with these parts."""
    marker = 'viewBox="0 0 8 8" refY="4" orient="auto" markerWidth="8" markerHeight="8"'
    tip = f'<marker id="tip" {marker} refX="8"><path d="M0 0L8 4L0 8z"/></marker>'
    style = 'font-family="sans-serif" font-size="12" text-anchor="middle"'
    size = 'width="400" height="300" viewBox="0 0 400 300"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{tip}\n{"".join(parts)}</svg>\n'


def _text(x: int, y: int, lines: Sequence[str]) -> str:
    """Return lines of text on white, centred at a point."""
    found = ""
    for i, line in enumerate(lines):
        at = f'x="{x}" y="{y + 4 + 16 * i - 8 * (len(lines) - 1)}"'
        found += f'<text {at} stroke="white" stroke-width="4" paint-order="stroke">{escape(line)}</text>\n'
    return found


def _box(x: int, y: int, width: int, height: int, lines: Sequence[str]) -> str:
    """Return a box with lines of text, centred at a point."""
    at = f'x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="5"'
    return f'<rect {at} fill="white" stroke="black"/>\n{_text(x, y, lines)}'


def _arrow(x: int, start: int, end: int) -> str:
    return f'<path d="M{x} {start}V{end}" stroke="black" marker-end="url(#tip)"/>\n'


# -- cost --------------------------------------------------------------------------------------------------------------

#: Number of views and of rows of the curves, and the widths of the views.
VIEWS, ROWS, WIDTHS = 4, 64, (4, 64, 1024)


def curve(name: str, kind: Any, n: int | None) -> list[dict[str, Any]]:
    """Return the costs at 4 views of equal width, for widths that grow, as far as the operator accepts them."""
    found = []
    for width in WIDTHS:
        try:
            found.append(fusionkit.cost(name, [width] * VIEWS, n, ROWS, kind=kind))
        except fusionkit.FusionError:
            continue
    return found


def plot(costs: Sequence[dict[str, Any]]) -> str:
    """Return an SVG of l and the operations per row against D, on logarithmic axes that begin at D = 16 and at 1."""
    lines = {  # Label: colour, width of the line, values; the first lines are wider, to be seen under the others.
        "n D, as of a dense W": ("#a0aec0", 7, [cost["n"] * sum(cost["dims"]) for cost in costs]),
        "l": ("#2b6cb0", 5, [cost["l"] for cost in costs]),
        "multiply-adds per row": ("#c05621", 3, [cost["macs"] / ROWS for cost in costs]),
        "other operations per row": ("#276749", 1, [cost["elementwise"] / ROWS for cost in costs]),
    }
    decades = math.ceil(math.log10(max(2, *(value for *_, values in lines.values() for value in values))))
    parts = []
    for decade in range(0, decades + 1, -(-decades // 6)):
        y = 250 - 180 * decade // decades
        parts += [
            f'<path d="M50 {y}H390" stroke="#e2e8f0"/>\n',
            _text(25, y, [f"{10 ** (decade % 3)}{' kMGTPE'[decade // 3].strip()}"]),
        ]
    x = [65 + 155 * math.log(sum(cost["dims"]) / (VIEWS * WIDTHS[0]), 16) for cost in costs]
    parts += [_text(round(at), 268, [f"{sum(cost['dims'])}"]) for at, cost in zip(x, costs, strict=True)]
    parts += [_text(220, 288, ["D"])]
    for i, (label, (colour, width, values)) in enumerate(lines.items()):
        heights = [250 - 180 * math.log10(max(value, 1)) / decades for value in values]
        points = [f"{at:.0f},{y:.0f}" for at, y, value in zip(x, heights, values, strict=True) if value]
        line = f'fill="none" stroke="{colour}" stroke-width="{width}"'
        parts += [f'<polyline points="{" ".join(points)}" {line}/>\n']
        at = 110 + 180 * (i // 2), 20 + 22 * (i % 2)
        parts += [
            f'<path d="M{at[0] - 85} {at[1] + 10}h170" {line}/>\n',
            _text(*at, [label if any(values) else f"{label}: 0"]),
        ]
    return _svg(parts)
