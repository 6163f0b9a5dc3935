"""The first-party plugin: the operators of the core, offered through the same hooks as everybody's."""

from __future__ import annotations

from fusionkit.hookspecs import Spec, hookimpl

__all__ = ["fusionkit_fabrications", "fusionkit_fusions"]


@hookimpl
def fusionkit_fusions() -> dict[str, Spec]:
    """Return the fusions of ``fusionkit/fusions/``."""
    return {
        "average": Spec("fusionkit.fusions.average:Average", ("mean",), "the mean of the views"),
        "concatenation": Spec("fusionkit.fusions.concatenation:Concatenation", ("concat",), "the views side by side"),
        "parameterized_concatenation": Spec(
            "fusionkit.fusions.parameterized_concatenation:ParameterizedConcatenation",
            summary="the concatenation times a fabricated matrix",
        ),
        "summation": Spec("fusionkit.fusions.summation:Summation", ("sum",), "the sum of the views"),
    }


@hookimpl
def fusionkit_fabrications() -> dict[str, Spec]:
    """Return the fabrications of ``fusionkit/fabrications/``."""
    return {
        "dense": Spec("fusionkit.fabrications.dense:Dense", ("identity",), "every entry of W is a parameter"),
        "lowrank": Spec("fusionkit.fabrications.lowrank:LowRank", ("lorr",), "W = A B of rank r"),
    }
