"""The hooks of this package.  fusionkit imports this module to list operators, so it imports none of them."""

from __future__ import annotations

import fusionkit

#: name, which is also that of the module -> (class, summary)
OPERATORS = {
    "tensor_fusion": ("TensorFusion", "W times the outer product of all views, each with a one appended"),
    "lowrank_tensor_fusion": ("LowRankTensorFusion", "tensor_fusion with a W of low rank"),
    "multiplicative_interaction": ("MultiplicativeInteraction", "x_1 W x_2 + U x_1 + V x_2 + b, over all pairs"),
    "mlb": ("MLB", "the product of projections, projected"),
    "mfb": ("MFB", "products of projections, summed over factors"),
    "mfh": ("MFH", "a cascade of mfb of rising order"),
    "mutan": ("Mutan", "a core tensor of low rank between projections"),
    "tucker": ("Tucker", "a full core tensor between projections"),
    "block_tucker": ("BlockTucker", "a block-diagonal core tensor between projections"),
    "block": ("Block", "blocks of a low-rank core tensor between projections"),
    "mcb": ("MCB", "the outer product of the views, sketched through the FFT"),
    "hadamard_projection": ("HadamardProjection", "the product of projections plus the sum of others"),
}


@fusionkit.hookimpl
def fusionkit_fusions() -> dict[str, fusionkit.Spec]:
    """Return the fusions: name -> where the class is, and a line about it."""
    return {
        name: fusionkit.Spec(f"fusionkit_bilinear.{name}:{cls}", summary=summary)
        for name, (cls, summary) in OPERATORS.items()
    }


@fusionkit.hookimpl
def fusionkit_conf() -> list[str]:
    """Return the folder of the Hydra configs."""
    return ["pkg://fusionkit_bilinear.conf"]
