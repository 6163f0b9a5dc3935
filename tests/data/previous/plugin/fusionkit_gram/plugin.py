"""What this package offers to fusionkit.  Imported whenever operators are listed, so it imports none of them."""

from __future__ import annotations

import fusionkit


@fusionkit.hookimpl
def fusionkit_fusions() -> dict[str, str]:
    """Return the fusions: name -> where the class is."""
    return {
        "gram": "fusionkit_gram.gram:Gram",
    }


@fusionkit.hookimpl
def fusionkit_conf() -> list[str]:
    """Return the folder of the Hydra configs."""
    return ["pkg://fusionkit_gram.conf"]
