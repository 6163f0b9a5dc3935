"""The first-party plugin: the operators and data sets of the core, offered through the hooks that every plugin has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusionkit.hookspecs import DatasetSpec, Spec, hookimpl

#: The operators of ``fusionkit/fusions/``, one module each: name -> class, summary, aliases.
FUSIONS = {
    "average": ("Average", "the mean of the views", "mean"),
    "concatenation": ("Concatenation", "the views side by side", "concat"),
    "l1_norm": ("L1Norm", "the sum of the absolute values of the views"),
    "l2_norm": ("L2Norm", "the Euclidean norm over the views"),
    "maximum": ("Maximum", "the greatest of the views, entry by entry", "max"),
    "median": ("Median", "the lower median of the views, entry by entry"),
    "metric": ("MetricFusion", "any reduction over the views"),
    "minimum": ("Minimum", "the least of the views, entry by entry", "min"),
    "parameterized_concatenation": ("ParameterizedConcatenation", "the concatenation times a fabricated matrix"),
    "parameterized_weighted_summation": ("ParameterizedWeightedSummation", "the sum of the views with learned weights"),
    "product": ("Product", "the product of the views, entry by entry", "prod"),
    "summation": ("Summation", "the sum of the views", "sum"),
    "weighted_summation": ("WeightedSummation", "the sum of the views with fixed weights"),
}

#: Those of ``fusionkit/fabrications/``, in the same form.
FABRICATIONS = {
    "block_circulant": ("BlockCirculant", "circulant blocks"),
    "block_diagonal": ("BlockDiagonal", "copies of one matrix along the diagonal", "duplicated_diagonal_padding"),
    "constant": ("Constant", "every entry of W is the same fixed number"),
    "constant_eye": ("ConstantEye", "the rectangular identity, fixed"),
    "dense": ("Dense", "every entry of W is a parameter", "identity"),
    "dual_lowrank_kronecker": ("DualLowRankKronecker", "W = (P Q) ⊗ (S T)", "dual_lphm"),
    "duplicated_padding": ("DuplicatedPadding", "copies of one matrix"),
    "fourier": ("Fourier", "a matrix with few learned frequencies", "fourierft"),
    "hashed": ("Hashed", "entries share parameters by a hash"),
    "hypernet": ("Hypernet", "a frozen network makes W from a short vector"),
    "khatri_rao": ("KhatriRao", "the entrywise product of two low-rank matrices", "loha"),
    "kronecker": ("Kronecker", "W = A ⊗ B", "hm"),
    "kronecker_sum": ("KroneckerSum", "a sum of Kronecker products", "phm"),
    "lowrank": ("LowRank", "W = A B of rank r", "lorr"),
    "lowrank_kronecker": ("LowRankKronecker", "W = A ⊗ (S T)", "lphm"),
    "masked": ("Masked", "parameters at fixed positions, zeros elsewhere", "masking"),
    "monarch": ("Monarch", "two block-diagonal factors, permuted in between"),
    "one": ("One", "all ones, fixed"),
    "random_matrix_adaption": ("RandomMatrixAdaption", "two frozen random matrices, scaled by learned vectors", "vera"),
    "random_matrix_hypernet": ("RandomMatrixHypernet", "a frozen network of low-rank layers makes W"),
    "tensor_train": ("TensorTrain", "a train of small cores"),
    "toeplitz": ("Toeplitz", "constant along the diagonals"),
    "view_lowrank": ("ViewLowRank", "a low-rank matrix per view"),
    "zero": ("Zero", "all zeros, fixed"),
}

_SCIKIT_LEARN = "installed: part of scikit-learn"

#: The functions of ``fusionkit/experiment/datasets.py``, under their names, with what is known about the data.
DATASETS: dict[str, dict[str, Any]] = {
    "breast_cancer": {
        "summary": "569 images of cell nuclei: mean, error and worst of ten features; two classes",
        "licence": "CC BY 4.0",
        "citation": "W. Wolberg, O. Mangasarian, N. Street, W. Street, Breast Cancer Wisconsin (Diagnostic), "
        "UCI Machine Learning Repository, 1995, doi:10.24432/C5DW2B",
        "origin": _SCIKIT_LEARN,
    },
    "diabetes": {
        "task": "regression",
        "summary": "442 patients: body and blood serum; the progression of the disease after a year",
        "licence": "none stated; scikit-learn, which ships it, is under BSD-3-Clause",
        "citation": "B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Least Angle Regression, Annals of Statistics "
        "32(2), 2004, 407-499, doi:10.1214/009053604000000067",
        "origin": _SCIKIT_LEARN,
    },
    "digits": {
        "summary": "1797 images of handwritten digits: their quadrants; ten classes",
        "licence": "CC BY 4.0",
        "citation": "E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
        "Repository, 1998, doi:10.24432/C50P49",
        "origin": _SCIKIT_LEARN,
    },
    "linnerud": {
        "task": "regression",
        "summary": "20 men in a fitness club: exercises of strength and jumps; weight, waist and pulse",
        "licence": "none stated; scikit-learn, which ships it, is under BSD-3-Clause",
        "citation": "A. C. Linnerud, NC State University, in M. Tenenhaus, La regression PLS: theorie et pratique, "
        "Technip, 1998",
        "origin": _SCIKIT_LEARN,
    },
    "mfeat": {
        "summary": "2000 handwritten digits: six sets of features; ten classes",
        "licence": "CC BY 4.0",
        "citation": "R. Duin, Multiple Features, UCI Machine Learning Repository, 1998, doi:10.24432/C5HC70",
        "origin": "installed: part of fusionkit",
    },
}


@hookimpl
def fusionkit_fusions() -> dict[str, Spec]:
    """Return the fusions of ``fusionkit/fusions/``."""
    return _specs("fusions", FUSIONS)


@hookimpl
def fusionkit_fabrications() -> dict[str, Spec]:
    """Return the fabrications of ``fusionkit/fabrications/``."""
    return _specs("fabrications", FABRICATIONS)


@hookimpl
def fusionkit_datasets() -> dict[str, DatasetSpec]:
    """Return the data sets of ``fusionkit/experiment/datasets.py``."""
    return {name: DatasetSpec(f"fusionkit.experiment.datasets:{name}", **about) for name, about in DATASETS.items()}


def _specs(folder: str, table: Mapping[str, tuple[str, ...]]) -> dict[str, Spec]:
    return {
        name: Spec(f"fusionkit.{folder}.{name}:{cls}", tuple(aliases), summary)
        for name, (cls, summary, *aliases) in table.items()
    }
