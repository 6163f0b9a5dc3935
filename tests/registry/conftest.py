"""A plugin to look up."""

from __future__ import annotations

import pytest

from tests.fake_distributions import Site

OPERATORS = """\
import torch
import fusionkit

class Gram(fusionkit.Fusion):
    def calculate_n(self, dims=None):
        return sum(self.resolve_dims(dims))

    def calculate_l(self):
        return 0

    def _fuse(self, x):
        return torch.cat(list(x), -1)

class Outer:
    Inner = Gram

def function():
    pass
"""


@pytest.fixture
def gram(site: Site) -> Site:
    """Install fk-gram, whose plugin offers a class in another module."""
    (site.folder / "fk_gram_ops.py").write_text(OPERATORS)
    site.fusions("fk-gram", {"gram": "fk_gram_ops:Gram"}, entry="gram")
    return site
