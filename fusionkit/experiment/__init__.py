"""Train an operator on data, record the result, compare results: ``fusionkit run``, ``leaderboard`` and ``load``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["FusionClassifier", "FusionRegressor", "ViewDropout", "train"]


#: Where what is exported is.  Commands that need neither torch nor scikit-learn import other submodules alone.
_MODULES = {
    "FusionClassifier": "classifier",
    "FusionRegressor": "regressor",
    "ViewDropout": "view_dropout",
    "train": "in_memory",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
