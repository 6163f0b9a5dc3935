"""View dropout: views that are dropped while training, so that a model learns to do without them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionkit._util.trees import to_python
from fusionkit.errors import FusionError


class ViewDropout(nn.Module):
    """Drop present views, row by row: a mask (..., k) -> a mask (..., k), True where a view is still present.

    It restores no view, and in evaluation mode it returns the mask as it is.

    Args:
        p: the probability that a present view is dropped, from 0 to 1; or one per view.
        keep_one: where none of the present views would be left, one of them stays, drawn uniformly.

    Raises:
        FusionError: ``p`` is not from 0 to 1.

    Example:
        >>> drop = ViewDropout(0.5)
        >>> out = fusion(views, mask=drop(mask))
    """

    def __init__(self, p: float | Sequence[float] = 0.5, keep_one: bool = True) -> None:
        super().__init__()
        p = to_python(p)
        self.p, self.keep_one = tuple(p) if isinstance(p, Sequence) else p, keep_one
        for one in self._probabilities():
            if isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one <= 1:
                raise FusionError(f"p should be a probability from 0 to 1, or one per view; found {p!r}.")

    def forward(self, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mask without the dropped views; nothing is drawn where all of ``p`` are 0.

        Args:
            mask: bool (..., k), True where a view is present; it is not changed.
            generator: of the draws, made on its device; None is torch's own for the mask's device.

        Raises:
            FusionError: the mask is not of bool, or has not as many views as ``p``.
        """
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or not mask.ndim:
            found = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise FusionError(f"mask should be a tensor (..., k) of bool; found {found}.")
        if isinstance(self.p, tuple) and len(self.p) != mask.shape[-1]:
            raise FusionError(f"mask should have {len(self.p)} views, one per p; found {mask.shape[-1]}.")
        if not self.training or not any(self._probabilities()):
            return mask
        device = mask.device if generator is None else generator.device
        drawn = torch.rand((2, *mask.shape), generator=generator, dtype=torch.float32, device=device).to(mask.device)
        kept = mask & (drawn[0] >= torch.tensor(self.p, dtype=torch.float32, device=mask.device))
        if not self.keep_one:
            return kept
        lots = torch.where(mask, drawn[1], -1.0)
        chosen = torch.zeros_like(mask).scatter(-1, lots.argmax(-1, keepdim=True), True) & mask
        return torch.where(kept.any(-1, keepdim=True), kept, chosen)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"p={self.p}, keep_one={self.keep_one}"

    def _probabilities(self) -> tuple[float, ...]:
        return self.p if isinstance(self.p, tuple) else (self.p,)
