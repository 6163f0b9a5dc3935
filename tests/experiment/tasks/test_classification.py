from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F

from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError
from fusionkit.experiment.tasks.classification import Classification
from tests.messages import like

TASK = Classification(["no", "perhaps", "yes"])
TARGET = np.array([0] * 6 + [1] * 3 + [2])


def settings(**changes: Any) -> TrainOptions:
    return TrainOptions(**{"epochs": 1, "batch_size": 16, "lr": 0.1, **changes})


def logits() -> Tensor:
    return torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss(output: Tensor, weight: Any = None, **options: Any) -> Tensor:
    given = None if weight is None else torch.as_tensor(weight, dtype=output.dtype)
    return TASK.criterion(settings(**options), TARGET)(output, TASK.tensor(TARGET), given)


def log_p() -> np.ndarray[Any, Any]:
    """Return the logarithm of the probability of the true class of each row, by hand."""
    values = logits().numpy()
    return np.asarray(values[np.arange(10), TARGET] - np.log(np.exp(values).sum(1)))


def test_cross_entropy_is_the_sum_over_the_rows() -> None:
    torch.testing.assert_close(loss(logits()), torch.tensor(-log_p().sum()))
    torch.testing.assert_close(loss(logits(), loss="cross_entropy"), loss(logits()))


def test_weights_multiply_the_loss_of_their_rows() -> None:
    weight = np.linspace(0, 3, 10)
    torch.testing.assert_close(loss(logits(), weight), torch.tensor(-(weight * log_p()).sum()))
    torch.testing.assert_close(loss(logits(), np.ones(10)), loss(logits()))
    smooth = F.cross_entropy(logits(), torch.from_numpy(TARGET), reduction="none", label_smoothing=0.2).numpy()
    torch.testing.assert_close(loss(logits(), weight, label_smoothing=0.2), torch.tensor((weight * smooth).sum()))


def test_balanced_is_what_scikit_learn_counts() -> None:
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=TARGET)
    torch.testing.assert_close(loss(logits(), class_weight="balanced"), torch.tensor(-(wanted[TARGET] * log_p()).sum()))


@pytest.mark.parametrize("given", [{"yes": 5}, {"yes": 5.0, "no": 1}])
def test_a_mapping_of_weights_leaves_the_others_at_1(given: dict[Any, float]) -> None:
    by_class = np.array([1.0, 1.0, 5.0])
    torch.testing.assert_close(loss(logits(), class_weight=given), torch.tensor(-(by_class[TARGET] * log_p()).sum()))
    both = loss(logits(), np.arange(10), class_weight=given)
    torch.testing.assert_close(both, torch.tensor(-(np.arange(10) * by_class[TARGET] * log_p()).sum()))


@pytest.mark.parametrize(
    ("classes", "given"),
    [
        ([0, 1, 2], {2: 5}),
        ([0, 1, 2], {"2": 5}),
        ([0.0, 1.0, 2.0], {2: 5}),
        ([0.0, 1.0, 2.0], {2.0: 5}),
        ([0.5, 1.5, 2.5], {2.5: 5}),
        (["0", "1", "2"], {2: 5}),
    ],
)
def test_numbers_name_their_class_however_they_are_written(classes: list[Any], given: dict[Any, float]) -> None:
    task, target = Classification(classes), torch.from_numpy(TARGET)
    found = task.criterion(settings(class_weight=given), TARGET)(logits(), target, None)
    torch.testing.assert_close(found, loss(logits(), class_weight={"yes": 5}))


def test_booleans_name_their_class() -> None:
    task, target = Classification([False, True]), TARGET[:9]
    losses = [
        task.criterion(settings(class_weight=given), target)(logits()[:9, :2], torch.from_numpy(target), None)
        for given in ({True: 3}, {"true": 3})
    ]
    assert torch.equal(*losses)
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    wanted = F.cross_entropy(logits()[:9, :2], torch.from_numpy(target), weight, reduction="sum")
    torch.testing.assert_close(losses[0], wanted)


def test_a_class_that_does_not_exist_is_refused_with_the_nearest() -> None:
    sentence = "train.class_weight … no, perhaps, yes; found 'yess'. Did you mean 'yes'?"
    with pytest.raises(ConfigError, match=like(sentence)):
        loss(logits(), class_weight={"yess": 5})
    many = Classification(list(range(20)))
    with pytest.raises(ConfigError, match=like("train.class_weight … 10, 11, ...; found 20.")):
        many.criterion(settings(class_weight={20: 5}), np.arange(20))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_the_focal_loss_by_its_formula(gamma: float) -> None:
    wanted = -((1 - np.exp(log_p())) ** gamma) * log_p()
    torch.testing.assert_close(loss(logits(), loss="focal", focal_gamma=gamma), torch.tensor(wanted.sum()))
    weight = np.arange(10) / 3
    weighted = loss(logits(), weight, loss="focal", focal_gamma=gamma, class_weight={"no": 2})
    by_class = np.array([2.0, 1.0, 1.0])[TARGET]
    torch.testing.assert_close(weighted, torch.tensor((wanted * weight * by_class).sum()))


def test_gamma_0_is_the_cross_entropy_and_2_the_default() -> None:
    torch.testing.assert_close(loss(logits(), loss="focal", focal_gamma=0.0), loss(logits()))
    assert torch.equal(loss(logits(), loss="focal"), loss(logits(), loss="focal", focal_gamma=2.0))


def test_label_smoothing_acts_on_the_cross_entropy_alone() -> None:
    assert not torch.equal(loss(logits(), label_smoothing=0.1), loss(logits()))
    assert torch.equal(loss(logits(), loss="focal", label_smoothing=0.1), loss(logits(), loss="focal"))


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-3, 20.0, 200.0, 1e30])
def test_saturated_logits_have_finite_focal_losses_and_gradients(gamma: float, dtype: torch.dtype, size: float) -> None:
    task = Classification([0, 1])
    output = (torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=dtype) * size).requires_grad_()
    for target in (np.array([0, 1]), np.array([1, 0])):  # All right, all wrong.
        found = task.criterion(settings(loss="focal", focal_gamma=gamma), target)(
            output, torch.from_numpy(target), None
        )
        (gradient,) = torch.autograd.grad(found, output)
        assert found.isfinite()
        assert gradient.isfinite().all()
    if size >= 200:
        assert float(found.detach()) >= size  # What is wrong for certain costs its whole cross-entropy.


def test_a_loss_of_another_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=like("train.loss … cross_entropy, focal … classification; found 'mse'.")):
        loss(logits(), loss="mse")


def test_probabilities_and_classes() -> None:
    predicted = TASK.predicted(logits().float())
    raised = np.exp(logits().numpy())
    np.testing.assert_allclose(predicted, raised / raised.sum(1, keepdims=True), rtol=1e-6)
    assert predicted.dtype == np.float64
    assert TASK.values(np.array([[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])) == ["yes", "no"]


def test_the_baseline_is_the_largest_class() -> None:
    baseline = TASK.baseline(TARGET)
    assert baseline.tolist() == [[0.6, 0.3, 0.1]]
    found = TASK.measure(baseline.repeat(10, 0), TARGET)
    entropy = -(0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1))
    assert (found["accuracy"], found["roc_auc"]) == (0.6, 0.5)
    assert found["balanced_accuracy"] == pytest.approx(1 / 3)
    assert found["log_loss"] == pytest.approx(entropy)
