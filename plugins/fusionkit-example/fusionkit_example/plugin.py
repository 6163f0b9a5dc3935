"""The hooks of this package.  fusionkit imports this module to list operators, so it imports none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fusionkit


@fusionkit.hookimpl
def fusionkit_fusions() -> dict[str, fusionkit.Spec]:
    """Return the fusions: name -> where the class is, and a line about it."""
    return {"soft_maximum": fusionkit.Spec("fusionkit_example.soft_maximum:SoftMaximum", summary="a smooth maximum")}


@fusionkit.hookimpl
def fusionkit_fabrications() -> dict[str, fusionkit.Spec]:
    """Return the fabrications, in the same form."""
    target = "fusionkit_example.folded_diagonal:FoldedDiagonal"
    return {"folded_diagonal": fusionkit.Spec(target, summary="one weight per column, each in one row")}


@fusionkit.hookimpl
def fusionkit_conf() -> list[str]:
    """Return the folder of the Hydra configs."""
    return ["pkg://fusionkit_example.conf"]


@fusionkit.hookimpl
def fusionkit_checks() -> list[Callable[[Any], None]]:
    """Return the checks; called when checks are run, so it may import torch."""
    from fusionkit_example.checks import check_single_precision

    return [check_single_precision]
