"""What authors of fusions import: the base classes, the traits, and checks of option values."""

from fusionkit.core.fusion import ElementwiseFusion, Fusion, FusionOptions
from fusionkit.core.layered import Layer, LayeredFusion, Layers, dense_projection
from fusionkit.core.masking import masked_softmax, present_count
from fusionkit.core.traits import Traits
from fusionkit.core.validation import (
    check_choice,
    check_device,
    check_dims,
    check_dtype,
    check_flag,
    check_number,
    check_positive,
    check_size,
)
from fusionkit.kernels.modes import autocasting, in_place_ok

__all__ = [
    "ElementwiseFusion",
    "Fusion",
    "FusionOptions",
    "Layer",
    "LayeredFusion",
    "Layers",
    "Traits",
    "autocasting",
    "check_choice",
    "check_device",
    "check_dims",
    "check_dtype",
    "check_flag",
    "check_number",
    "check_positive",
    "check_size",
    "dense_projection",
    "in_place_ok",
    "masked_softmax",
    "present_count",
]
