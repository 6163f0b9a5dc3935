"""What authors of fabrications import: the base class, the traits, and helpers for structured matrices."""

from fusionkit.core.fabrication import CallableFabrication, Fabrication, cropped, gaussians
from fusionkit.core.factory import as_fabrication
from fusionkit.core.traits import Traits
from fusionkit.core.validation import check_dims, check_number, check_size
from fusionkit.kernels.matmul import padded

__all__ = [
    "CallableFabrication",
    "Fabrication",
    "Traits",
    "as_fabrication",
    "check_dims",
    "check_number",
    "check_size",
    "cropped",
    "gaussians",
    "padded",
]
