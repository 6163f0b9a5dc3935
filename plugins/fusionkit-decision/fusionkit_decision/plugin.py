"""The hooks of this package.  fusionkit imports this module to list operators, so it imports none of them."""

from __future__ import annotations

import fusionkit

#: name, which is also that of the module -> (class, summary)
OPERATORS = {
    "log_pool": ("LogPool", "the normalized product of the views' class probabilities"),
    "linear_pool": ("LinearPool", "the weighted mean of the views' class probabilities"),
    "dempster": ("Dempster", "evidence combined by Dempster's rule, for any number of views"),
    "confidence_pool": ("ConfidencePool", "scores weighted by how certain each view is"),
    "gaussian_product": ("GaussianProduct", "the product of Gaussian experts"),
    "gaussian_mixture": ("GaussianMixture", "the moments of a mixture of Gaussian experts"),
    "comparison": ("Comparison", "differences, products and cosines of all pairs of views"),
}


@fusionkit.hookimpl
def fusionkit_fusions() -> dict[str, fusionkit.Spec]:
    """Return the fusions: name -> where the class is, and a line about it."""
    return {
        name: fusionkit.Spec(f"fusionkit_decision.{name}:{cls}", summary=summary)
        for name, (cls, summary) in OPERATORS.items()
    }


@fusionkit.hookimpl
def fusionkit_conf() -> list[str]:
    """Return the folder of the Hydra configs."""
    return ["pkg://fusionkit_decision.conf"]
