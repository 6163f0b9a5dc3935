from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError
from fusionkit.experiment.tasks.multilabel import Multilabel
from tests.messages import like

TASK = Multilabel(["red", "round", "none", "all"])
TARGET = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]], dtype=bool)


def settings(**changes: Any) -> TrainOptions:
    return TrainOptions(**{"epochs": 1, "batch_size": 16, "lr": 0.1, **changes})


def logits() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss(output: Tensor, weight: Any = None, **options: Any) -> Tensor:
    given = None if weight is None else torch.as_tensor(weight, dtype=output.dtype)
    return TASK.criterion(settings(**options), TARGET)(output, TASK.tensor(TARGET), given)


def p_of_truth() -> np.ndarray[Any, Any]:
    """Return the probability of what is true, for each row and label."""
    p = 1 / (1 + np.exp(-logits().numpy()))
    return np.asarray(np.where(TARGET, p, 1 - p))


def test_cross_entropy_is_the_mean_over_the_labels() -> None:
    losses = -np.log(p_of_truth()).mean(1)
    torch.testing.assert_close(loss(logits()), torch.tensor(losses.sum()))
    weight = np.array([0.0, 1.0, 2.5, 1.0, 3.0])
    torch.testing.assert_close(loss(logits(), weight), torch.tensor((weight * losses).sum()))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_by_its_formula(gamma: float) -> None:
    wanted = (-((1 - p_of_truth()) ** gamma) * np.log(p_of_truth())).mean(1).sum()
    torch.testing.assert_close(loss(logits(), loss="focal", focal_gamma=gamma), torch.tensor(wanted))


def test_balanced_weighs_the_positives_of_each_label() -> None:
    # 2 of 5 rows are red, 1 is round; a label that all rows have, or none, cannot be balanced.
    wanted = F.binary_cross_entropy_with_logits(
        logits(),
        torch.from_numpy(TARGET).double(),
        pos_weight=torch.tensor([3 / 2, 4.0, 1.0, 1.0], dtype=torch.float64),
        reduction="none",
    )
    torch.testing.assert_close(loss(logits(), class_weight="balanced"), wanted.mean(1).sum())


def test_a_mapping_weighs_the_positives_of_its_labels() -> None:
    weight = torch.tensor([1.0, 7.0, 1.0, 1.0], dtype=torch.float64)
    target = torch.from_numpy(TARGET).double()
    wanted = F.binary_cross_entropy_with_logits(logits(), target, pos_weight=weight, reduction="none")
    torch.testing.assert_close(loss(logits(), class_weight={"round": 7}), wanted.mean(1).sum())
    with pytest.raises(ConfigError, match=like("train.class_weight … classes … found 'rount'. Did you mean 'round'?")):
        loss(logits(), class_weight={"rount": 7})


def test_label_smoothing_does_not_act() -> None:
    assert torch.equal(loss(logits(), label_smoothing=0.3), loss(logits()))


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0, 2.0])
@pytest.mark.parametrize("size", [1e-3, 20.0, 200.0, 1e30])
@pytest.mark.parametrize("options", [{}, {"class_weight": "balanced"}])
def test_saturated_logits_have_finite_focal_losses_and_gradients(gamma: float, size: float, options: Any) -> None:
    for sign in (1, -1):  # All right, all wrong.
        output = (torch.from_numpy(TARGET).float() * 2 - 1) * size * sign
        output.requires_grad_()
        found = loss(output, loss="focal", focal_gamma=gamma, **options)
        (gradient,) = torch.autograd.grad(found, output)
        assert found.isfinite()
        assert gradient.isfinite().all()


def test_a_loss_of_another_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=like("train.loss … cross_entropy, focal … multilabel; found 'huber'.")):
        loss(logits(), loss="huber")


def test_a_label_is_predicted_at_the_probability_of_a_half() -> None:
    predicted = TASK.predicted(torch.tensor([[0.0, -1e-3, 5.0, -5.0]]))
    np.testing.assert_allclose(predicted, 1 / (1 + np.exp([[0.0, 1e-3, -5.0, 5.0]])), rtol=1e-6)
    assert TASK.values(predicted) == [[1, 0, 1, 0]]


def test_the_baseline_is_the_share_of_each_label() -> None:
    assert TASK.baseline(TARGET).tolist() == [[0.4, 0.2, 0.0, 1.0]]
    found = TASK.measure(TASK.baseline(TARGET).repeat(5, 0), TARGET)
    assert (found["roc_auc"], found["average_precision"], found["subset_accuracy"]) == (None, None, 0.4)
