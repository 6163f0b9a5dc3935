"""Wrong in the constructor, the documentation or the config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tests.contract.mutants.right import Mix, Thin, Total
from tests.contract.mutants.table import caught_by


@caught_by("signature")
@caught_by("unknown_option")
class SwallowsOptions(Total):
    """``A_1 + ... + A_k``, with a constructor that takes anything."""

    def __init__(self, n: int | None = None, dims: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(n, dims, device=kwargs.get("device"), dtype=kwargs.get("dtype"))


@caught_by("signature")
class NeedsDims(Total):
    """``A_1 + ... + A_k``, with dims that have no default."""

    def __init__(self, dims: Sequence[int], n: int | None = None, device: Any = None) -> None:
        super().__init__(n, dims, device=device)


@caught_by("signature")
class ThinWithAnything(Thin):
    """``W = u v^T``, with a constructor that takes anything."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()


@caught_by("documented")
class Undocumented(Total):
    __doc__ = None


@caught_by("documented")
class WithoutFormula(Total):
    """Adds the views."""


@caught_by("documented")
class HidesItsArguments(Total):
    """``A_1 + ... + A_k``"""

    def extra_repr(self) -> str:
        return ""


@caught_by("no_work_in_init")
class WorksInInit(Mix):
    """Draws a matrix in the constructor, whatever the device."""

    def create(self) -> None:
        super().create()
        self.norm = float(torch.randn(100, 100, device="cpu").norm())


@caught_by("config_containers")
class WantsLists(Mix):
    """Takes dims as a list only."""

    def __init__(self, n: int | None = None, dims: Any = None, device: Any = None, dtype: Any = None) -> None:
        super().__init__(n, None if dims is None else dims + [], device=device, dtype=dtype)  # noqa: RUF005
