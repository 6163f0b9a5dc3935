from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture
def arrays() -> dict[str, Any]:
    """Return 60 rows of three separable classes in two views of widths 4 and 3."""
    generator = np.random.default_rng(0)
    label = np.arange(60) % 3
    centres = 4 * np.eye(3)[label]
    first = np.hstack([centres, np.ones((60, 1))]) + 0.1 * generator.standard_normal((60, 4))
    return {"a": first, "b": (100 * centres + generator.integers(0, 9, (60, 3))).astype(np.int64), "label": label}
