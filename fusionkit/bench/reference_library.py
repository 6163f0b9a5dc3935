"""The operators of ``tinybig``, the reference library of this field, where it is installed."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch

FUSIONS = {
    "summation": "summation_fusion",
    "average": "average_fusion",
    "weighted_summation": "weighted_summation_fusion",
    "maximum": "max_fusion",
    "minimum": "min_fusion",
    "product": "prod_fusion",
    "median": "median_fusion",
    "concatenation": "concatenation_fusion",
    "dense": "parameterized_concatenation_fusion",
}


@cache
def _library() -> ModuleType | None:
    found = importlib.util.find_spec("tinybig")
    if found is None or found.submodule_search_locations is None:
        return None
    # Its __init__ imports all of it and all requirements; an empty package of that name gives access to the parts.
    package = ModuleType("tinybig")
    package.__path__, package.__spec__ = list(found.submodule_search_locations), found
    sys.modules["tinybig"] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("tinybig.module")
            return importlib.import_module("tinybig.fusion")
        except ImportError:
            return None


def counterpart(
    name: str, dims: Sequence[int], n: int, device: torch.device | str = "cpu"
) -> Callable[[Sequence[Any]], Any] | None:
    """Return the same operator of the reference library, a function of k views (m, n_i); None where there is none."""
    library = _library() if name in FUSIONS else None
    if library is None:
        return None
    made: Any = getattr(library, FUSIONS[name])
    place = str(device)
    with torch.device(place):  # Its constructors make constants, but have no argument `device`.
        if name != "dense":
            options = {"weights": torch.ones(len(dims))} if name == "weighted_summation" else {}
            fusion = made(dims=list(dims), **options)
            return lambda x: fusion(x, device=place)
        fusion, w = made(dims=list(dims), n=n), torch.randn(1, n * sum(dims))
    return lambda x: fusion(x, w=w.to(x[0]), device=place)
