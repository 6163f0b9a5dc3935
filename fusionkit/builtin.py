"""The first-party plugin: the operators of the core, offered through the hooks that every plugin has."""

from __future__ import annotations

from collections.abc import Mapping

from fusionkit.hookspecs import Spec, hookimpl

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


@hookimpl
def fusionkit_fusions() -> dict[str, Spec]:
    """Return the fusions of ``fusionkit/fusions/``."""
    return _specs("fusions", FUSIONS)


@hookimpl
def fusionkit_fabrications() -> dict[str, Spec]:
    """Return the fabrications of ``fusionkit/fabrications/``."""
    return _specs("fabrications", FABRICATIONS)


def _specs(folder: str, table: Mapping[str, tuple[str, ...]]) -> dict[str, Spec]:
    return {
        name: Spec(f"fusionkit.{folder}.{name}:{cls}", tuple(aliases), summary)
        for name, (cls, summary, *aliases) in table.items()
    }
