"""The pictures of the gallery, of what an operator computes: its W, its data flow, its Jacobian, its cost."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

import fusionkit
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion

Groups = NDArray[np.int64]
#: The group of the entries that are 0 for every w, and of those that are another constant.
ZERO, CONSTANT = -2, -1
_BLUE, _ORANGE, _GRAY = "#2b6cb0", "#c05621", "#718096"
_STYLE: dict[str, Any] = {"font.size": 9, "axes.titlesize": 9, "legend.frameon": False}


def save(path: Path, height: float, draw: Callable[[Figure], None]) -> None:
    """Draw into a figure of the width of half a page, and write it as PNG."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(4, height))
        # Fixed margins, in inches; the layout engines take half of the time.
        sides = {"left": 0.14, "right": 0.97, "bottom": 0.5 / height, "top": 1 - 0.25 / height}
        figure.subplots_adjust(**sides, hspace=0.35, wspace=0.1)
        draw(figure)
        figure.savefig(path, dpi=160, metadata={"Software": None})


# -- W -----------------------------------------------------------------------------------------------------------------


def values(fabrication: Fabrication, n: int, D: int, draws: int = 3) -> NDArray[np.float64]:
    """Return W (n*D, draws) for random w."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(draws, fabrication.calculate_l(n, D), generator=generator, dtype=torch.float64)
    return torch.stack([fabrication.materialize(each, n, D).flatten() for each in w], -1).detach().numpy()


def shared_entries(fabrication: Fabrication, n: int, D: int) -> Groups:
    """Return groups (n, D) of the entries of W that are equal, but for their sign, for every w.

    The groups are numbered from 0; entries that do not depend on w are in ZERO or CONSTANT.
    """
    W = values(fabrication, n, D)
    tied = np.round(W * np.sign(W[:, :1]) / (abs(W).max() or 1) * 1e9).astype(np.int64)
    groups = np.unique(tied, axis=0, return_inverse=True)[1].reshape(-1)
    groups[(tied == tied[:, :1]).all(1)] = CONSTANT
    groups[(tied == 0).all(1)] = ZERO
    return _numbered(groups).reshape(n, D)


def dependence(fabrication: Fabrication, n: int, D: int) -> dict[str, Groups]:
    """Return per block of w groups (n, D) of the entries of W that depend on the same parameters of the block."""
    l = fabrication.calculate_l(n, D)
    w, other = torch.randn(2, l, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W = fabrication.materialize(w, n, D).detach()
    depends = np.zeros((n * D, l), bool)
    for i in range(l):
        changed = w.clone()
        changed[i] = other[i]
        depends[:, i] = (abs(fabrication.materialize(changed, n, D).detach() - W) > 1e-12).flatten().numpy()
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


def colours(groups: Groups) -> NDArray[np.float64]:
    """Return an image (n, D, 3): a colour per group, by its number; white for ZERO, gray for CONSTANT."""
    count = groups.max() + 1
    own = [colorsys.hsv_to_rgb(0.8 * i / count, 0.6, 0.95 - 0.2 * (i % 2)) for i in range(count)]
    return np.array([*own, (1.0, 1.0, 1.0), (0.6, 0.6, 0.6)])[groups]


def _frame(axes: Axes, dims: Sequence[int], rows: str, columns: str) -> None:
    """Label the axes of a matrix, and mark where each view begins."""
    axes.set(xlabel=columns, ylabel=rows)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    for start in np.cumsum(dims)[:-1]:
        axes.axvline(start - 0.5, color="black", linewidth=0.8, linestyle=(0, (2, 2)))


def draw_matrix(M: NDArray[np.float64], dims: Sequence[int], rows: str) -> Callable[[Figure], None]:
    """Return what draws a heat map of the entries of a matrix (n, D): 0 is white, the greatest dark blue."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        norm = PowerNorm(0.5, vmin=0, vmax=M.max() or 1)
        axes.imshow(M, cmap="Blues", norm=norm, aspect="auto", interpolation="nearest")
        _frame(axes, dims, rows, "column of the joined views")

    return draw


def draw_groups(panels: dict[str, Groups], dims: Sequence[int]) -> Callable[[Figure], None]:
    """Return what draws groups of entries, a panel with its title for each."""

    def draw(figure: Figure) -> None:
        columns = min(2, len(panels))
        if columns > 1:  # Without labels below.
            figure.subplots_adjust(bottom=0.1 / figure.get_figheight())
        grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (title, groups) in zip(grid.flat, panels.items(), strict=False):
            axes.imshow(colours(groups), aspect="auto", interpolation="nearest")
            axes.set_title(title)
            _frame(axes, dims, *(("row", "column of the joined views") if len(panels) == 1 else ("", "")))
            if len(panels) > 1:
                axes.set(xticks=[], yticks=[])

    return draw


def thumbnail(path: Path, image: NDArray[np.float64]) -> None:
    """Write an image (n, D, 3) or of numbers from 0 to 1 (n, D) with the sides 180 and 120, without a frame."""
    rows, columns = (np.arange(size) * image.shape[i] // size for i, size in enumerate((120, 180)))
    imsave(path, image[rows][:, columns], cmap="Blues", vmin=0, vmax=1, metadata={"Software": None})


# -- a fusion ----------------------------------------------------------------------------------------------------------


def jacobian(fusion: Fusion) -> NDArray[np.float64]:
    """Return the absolute derivatives (n, D) of the output with respect to the views, at random views."""
    dims = fusion.resolve_dims()
    x = torch.randn(sum(dims), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found: torch.Tensor = torch.autograd.functional.jacobian(lambda joined: fusion(joined.split(dims)), x)  # type: ignore[no-untyped-call]
    return found.abs().numpy()


def parameters_by_view(fusion: Fusion) -> tuple[list[list[str]], list[str]]:
    """Return name and shape of the parameters of each view (``per_view``), and of the others."""
    of_view: list[list[str]] = [[] for _ in fusion.resolve_dims()]
    shared = []
    for name, parameter in fusion.named_parameters():
        first, *rest = name.split(".")
        shape = " × ".join(map(str, parameter.shape))
        if first in fusion.per_view and rest and int(rest[0]) < len(of_view):
            of_view[int(rest[0])].append(f"{'.'.join(rest[1:])} {shape}".strip())
        elif first in fusion.per_view:
            for texts in of_view:
                texts.append(f"{first}: 1 of {shape}")
        else:
            shared.append(f"{name} {shape}")
    return of_view, shared


def draw_flow(fusion: Fusion, name: str) -> Callable[[Figure], None]:
    """Return what draws the views, the parameters that each passes, the operator with the others, and the output."""
    dims, n = fusion.resolve_dims(), fusion.calculate_n()
    of_view, shared = parameters_by_view(fusion)
    more = [*shared[:3], *([f"and {len(shared) - 3} more"] if len(shared) > 3 else [])]

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()

        def box(x: float, y: float, text: str, colour: str) -> None:
            axes.text(
                x, y, text, ha="center", va="center", bbox={"boxstyle": "round,pad=0.35", "fc": colour, "lw": 0.7}
            )

        def arrow(x: float, start: float, end: float) -> None:
            axes.annotate("", (x, end), (x, start), arrowprops={"arrowstyle": "->"})

        for i, (width, own) in enumerate(zip(dims, of_view, strict=True)):
            x = (i + 0.5) / len(dims)
            arrow(x, 0.88, 0.65)
            box(x, 0.92, f"view {i}: {width}", "#ebf4ff")
            axes.text(x, 0.77, "\n".join(own[:3]), ha="center", va="center", fontsize=8, backgroundcolor="white")
        arrow(0.5, 0.23, 0.1)
        axes.add_patch(FancyBboxPatch((0.05, 0.25), 0.9, 0.38, boxstyle="round,pad=0.01", fc="#f7fafc", lw=0.7))
        axes.text(0.5, 0.44, "\n".join([name, *more]), ha="center", va="center", linespacing=1.4)
        box(0.5, 0.06, f"output: {n}", "#fffaf0")

    return draw


# -- cost --------------------------------------------------------------------------------------------------------------

#: Number of views and of rows of the curves, and the widths of the views.
VIEWS, ROWS, WIDTHS = 4, 64, (4, 32, 256, 2048)


def curve(name: str, kind: Any, n: int | None) -> list[dict[str, Any]]:
    """Return the costs at 4 views of equal width, for widths that grow, as far as the operator accepts them."""
    found = []
    for width in WIDTHS:
        try:
            found.append(fusionkit.cost(name, [width] * VIEWS, n, ROWS, kind=kind))
        except fusionkit.FusionError:
            continue
    return found


def draw_curve(costs: Sequence[dict[str, Any]]) -> Callable[[Figure], None]:
    """Return what draws l, and the operations per row, against D; gray: those of a dense W of the same height."""
    D = [sum(cost["dims"]) for cost in costs]
    dense = [cost["n"] * width for cost, width in zip(costs, D, strict=True)]
    lines = {
        "l": {"l": [cost["l"] for cost in costs]},
        "operations per row": {
            "multiply-adds": [cost["macs"] / ROWS for cost in costs],
            "others": [cost["elementwise"] / ROWS for cost in costs],
        },
    }

    def draw(figure: Figure) -> None:
        for axes, (label, mine) in zip(figure.subplots(2, 1, sharex=True), lines.items(), strict=True):
            axes.plot(D, dense, color=_GRAY, linewidth=1, linestyle="--", label="dense W")
            for (name, counted), colour in zip(mine.items(), (_BLUE, _ORANGE), strict=False):
                shown = [(x, y) for x, y in zip(D, counted, strict=True) if y]
                empty = "" if shown else " = 0" if name == "l" else ": 0"
                axes.plot(
                    *zip(*shown, strict=True) if shown else ([], []), "o-", color=colour, ms=4, label=name + empty
                )
            axes.set(xscale="log", yscale="log")
            axes.set_title(label, loc="left")
            axes.set_xticks(D, map(str, D), minor=False)
            axes.minorticks_off()
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
        axes.set_xlabel("D")

    return draw
