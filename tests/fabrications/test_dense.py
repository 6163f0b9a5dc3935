from __future__ import annotations

import torch

from fusionkit.fabrications.dense import Dense


def test_W_is_w_row_by_row() -> None:
    W = Dense().materialize(torch.arange(6.0), 2, 3)
    assert W.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert Dense().calculate_l(64, 649) == 41536
    assert Dense().shapes(2, 3) == {"weight": (2, 3)}
