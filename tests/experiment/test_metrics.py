from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.metrics import confusion_matrix as reference_confusion

from fusionkit.experiment.metrics import confusion_matrix, metrics


@pytest.mark.parametrize("seed", range(8))
def test_the_numbers_are_those_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    classes, m = int(random.integers(2, 12)), 150
    target = random.integers(0, classes, m)
    probabilities = random.dirichlet(np.full(classes, 0.05), m)
    found = probabilities.argmax(1) if seed else np.zeros(m, dtype=np.int64)  # One class alone is found.
    labels = list(range(classes))
    confusion = confusion_matrix(target, found, classes)
    assert np.array_equal(confusion, reference_confusion(target, found, labels=labels))
    assert metrics(confusion, probabilities[np.arange(m), target]) == {
        "accuracy": float(accuracy_score(target, found)),
        "f1_macro": float(f1_score(target, found, labels=labels, average="macro", zero_division=0.0)),
        "log_loss": float(log_loss(target, probabilities, labels=labels)),
    }
