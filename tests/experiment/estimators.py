"""What the tests of the estimators share."""

from __future__ import annotations

from typing import Any

import numpy as np


def data(rows: int = 90) -> tuple[Any, Any]:
    """Return three separable classes in two views, widths 4 and 3, side by side."""
    generator = np.random.default_rng(0)
    label = np.arange(rows) % 3
    first = np.hstack([np.eye(3)[label], np.ones((rows, 1))]) + 0.2 * generator.standard_normal((rows, 4))
    return np.hstack([first, 10 * np.eye(3)[label] + generator.standard_normal((rows, 3))]), np.array([*"abc"])[label]


def linear(rows: int = 120) -> tuple[Any, Any]:
    """Return five columns, and a target that is linear in them, far from zero and in large units."""
    X = np.random.default_rng(1).standard_normal((rows, 5))
    return X, 3000 + X @ np.array([100.0, -50.0, 20.0, 0.0, 70.0])


def expected_failures(estimator: Any) -> dict[str, str]:
    """Return the checks of scikit-learn that an estimator cannot pass, and why."""
    why = "the scales of the inputs, the batches and dropout depend on the number of rows, not on their weights"
    return {"check_sample_weight_equivalence_on_dense_data": why}
