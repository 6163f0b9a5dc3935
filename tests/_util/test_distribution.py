from __future__ import annotations

import pytest

from fusionkit._util.distribution import DISTRIBUTION, install_command, unprefixed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (DISTRIBUTION, "fusionkit"),
        ("tensor-fusionkit-mlflow", "fusionkit-mlflow"),
        ("Tensor_FusionKit.Gram", "FusionKit.Gram"),
        ("tensor-fusionkit/average", "fusionkit/average"),
        ("tensor-fusionkit-gram/gram", "fusionkit-gram/gram"),
        # Distributions that never had a name without it.
        *((name, name) for name in ("tensor-train", "tensor-fusionkits", "my-tensor-fusionkit", "tensorfusionkit", "")),
    ],
)
def test_unprefixed(name: str, expected: str) -> None:
    assert unprefixed(name) == expected


def test_install_command() -> None:
    assert install_command("run") == "pip install 'tensor-fusionkit[run]'"
