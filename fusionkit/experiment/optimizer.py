"""AdamW, Adam and SGD by torch's functional forms, and the one-cycle schedule of learning rate and momentum.

Creating an optimizer of ``torch.optim`` imports the compiler, which takes a quarter of the time of ``import torch``.
The functions behind those classes do not import it, and give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class Optimizer:
    """AdamW, Adam, or SGD with Nesterov momentum.

    Args:
        parameters: to train; a step does not change those without a gradient.
        name: ``adamw``, ``adam`` or ``sgd``.
        lr: learning rate.
        weight_decay: of parameters with two or more dimensions; biases and gains have none.

    Attributes:
        lr: learning rate of the next step.
        momentum: of SGD, and the first beta of the others, in the next step.
        param_groups: the parameters in the form of ``torch.optim``, for a gradient scaler.
    """

    def __init__(self, parameters: Iterable[Tensor], name: str, lr: float, weight_decay: float = 0.0) -> None:
        parameters = list(parameters)
        self.name, self.lr, self.momentum = name, lr, 0.9
        self.param_groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._state: dict[Tensor, list[Any]] = {}

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return what the steps so far left behind, not copied: ``"3.0"`` is the first tensor of the fourth parameter.

        The parameters count in the order of ``param_groups``; those that never had a gradient have no tensors.
        """
        left = ((i, self._state.get(parameter, [])) for i, parameter in enumerate(self._parameters()))
        return {f"{i}.{j}": tensor for i, tensors in left for j, tensor in enumerate(tensors)}

    def allocate(self, names: Iterable[str]) -> None:
        """Make the tensors of the parameters that have one of these names in ``tensors``, to be filled."""
        numbers = {name.partition(".")[0] for name in names}
        for i, parameter in enumerate(self._parameters()):
            if str(i) in numbers:
                self._state[parameter] = self._initial(parameter)

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _initial(self, parameter: Tensor) -> list[Tensor]:
        """Return the momentum of SGD; of the others means, squares and the number of steps."""
        if self.name == "sgd":
            return [torch.zeros_like(parameter)]
        steps = torch.zeros((), dtype=torch.float32, device=parameter.device)
        return [torch.zeros_like(parameter), torch.zeros_like(parameter), steps]

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients."""
        update = self._sgd if self.name == "sgd" else self._adam
        for group in self.param_groups:
            trained: list[Any] = [p for p in group["params"] if p.grad is not None]
            for kind in dict.fromkeys(type(p) for p in trained):  # torch refuses DTensors and others in one call.
                parameters = [p for p in trained if type(p) is kind]
                update(parameters, [p.grad for p in parameters], group["weight_decay"])

    def _adam(self, parameters: list[Tensor], gradients: list[Tensor], weight_decay: float) -> None:
        for p in parameters:
            if p not in self._state:
                self._state[p] = self._initial(p)
        means, squares, counts = ([self._state[p][i] for p in parameters] for i in range(3))
        adam(
            *(parameters, gradients, means, squares, [], counts),
            fused=True,
            decoupled_weight_decay=self.name == "adamw",
            amsgrad=False,
            beta1=self.momentum,
            beta2=0.999,
            lr=self.lr,
            weight_decay=weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def _sgd(self, parameters: list[Tensor], gradients: list[Tensor], weight_decay: float) -> None:
        buffers: list[Tensor | None] = [self._state.get(p, [None])[0] for p in parameters]
        sgd(
            *(parameters, gradients, buffers),
            has_sparse_grad=any(gradient.is_sparse for gradient in gradients),
            weight_decay=weight_decay,
            momentum=self.momentum,
            lr=self.lr,
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )
        self._state.update((p, [buffer]) for p, buffer in zip(parameters, buffers, strict=True))


def one_cycle(step: int, steps: int, lr: float) -> tuple[float, float]:
    """Return learning rate and momentum of a step by the one-cycle policy, as ``torch.optim``'s ``OneCycleLR`` does.

    The rate rises to ``lr`` in the first 30 % of the steps, then falls; the momentum goes from 0.95 to 0.85 and back,
    both by cosines (L. Smith and N. Topin, "Super-convergence", 2019).

    Args:
        step: 0 to ``steps``; the last is the one after the training.
        steps: of the whole training.
        lr: the greatest learning rate.
    """
    first, peak, last = lr / 25.0, 0.3 * steps - 1, lr / 25.0 / 1e4
    if step <= peak:
        return _cosine(first, lr, step / peak), _cosine(0.95, 0.85, step / peak)
    part = (step - peak) / (steps - 1 - peak)
    return _cosine(lr, last, part), _cosine(0.85, 0.95, part)


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)
