"""Train an operator on data, record the result, compare results: ``fusionkit run``, ``leaderboard`` and ``load``."""

from __future__ import annotations

from typing import Any

__all__ = ["FusionClassifier"]


def __getattr__(name: str) -> Any:
    # The submodules are imported by commands that need neither torch nor scikit-learn.
    if name == "FusionClassifier":
        from fusionkit.experiment.classifier import FusionClassifier

        return FusionClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
