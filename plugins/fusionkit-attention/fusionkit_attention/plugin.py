"""The hooks of this package.  fusionkit imports this module to list operators, so it imports none of them."""

from __future__ import annotations

import fusionkit

#: name, which is also that of the module -> (class, summary)
OPERATORS = {
    "gated": ("Gated", "tanh units, each weighed by a gate that sees all views"),
    "attention_pool": ("AttentionPool", "projections of the views, weighed by learned scores"),
    "film": ("Film", "one view, scaled and shifted by the others"),
    "adaptation_gate": ("AdaptationGate", "one view, shifted by a bounded part of the others"),
    "squeeze_excite": ("SqueezeExcite", "all views, each coordinate weighed by a gate that sees all"),
    "mixture_of_experts": ("MixtureOfExperts", "experts on all views, or one per view, weighed by a gate"),
    "embracenet": ("EmbraceNet", "every coordinate of one view, drawn while training"),
    "residual_gate": ("ResidualGate", "weighed projections of the views, plus a small network on them"),
    "transformer": ("Transformer", "self-attention over one token per view"),
    "perceiver": ("Perceiver", "learned latents that attend to one token per view"),
}


@fusionkit.hookimpl
def fusionkit_fusions() -> dict[str, fusionkit.Spec]:
    """Return the fusions: name -> where the class is, and a line about it."""
    return {
        name: fusionkit.Spec(f"fusionkit_attention.{name}:{cls}", summary=summary)
        for name, (cls, summary) in OPERATORS.items()
    }


@fusionkit.hookimpl
def fusionkit_conf() -> list[str]:
    """Return the folder of the Hydra configs."""
    return ["pkg://fusionkit_attention.conf"]
