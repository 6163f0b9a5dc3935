"""The first-party plugin: the operators of the core, offered through the hooks that every plugin has."""

from __future__ import annotations

from fusionkit.hookspecs import Spec, hookimpl


@hookimpl
def fusionkit_fusions() -> dict[str, Spec]:
    """Return the fusions of ``fusionkit/fusions/``."""
    return {
        "average": Spec("fusionkit.fusions.average:Average", ("mean",), "the mean of the views"),
        "concatenation": Spec("fusionkit.fusions.concatenation:Concatenation", ("concat",), "the views side by side"),
        "parameterized_concatenation": Spec(
            "fusionkit.fusions.parameterized_concatenation:ParameterizedConcatenation",
            summary="the concatenation times a fabricated matrix",
        ),
        "summation": Spec("fusionkit.fusions.summation:Summation", ("sum",), "the sum of the views"),
        "l1_norm": Spec("fusionkit.fusions.l1_norm:L1Norm", summary="the sum of the absolute values of the views"),
        "l2_norm": Spec("fusionkit.fusions.l2_norm:L2Norm", summary="the Euclidean norm over the views"),
        "maximum": Spec("fusionkit.fusions.maximum:Maximum", ("max",), "the greatest of the views, entry by entry"),
        "median": Spec("fusionkit.fusions.median:Median", summary="the lower median of the views, entry by entry"),
        "metric": Spec("fusionkit.fusions.metric:MetricFusion", summary="any reduction over the views"),
        "minimum": Spec("fusionkit.fusions.minimum:Minimum", ("min",), "the least of the views, entry by entry"),
        "parameterized_weighted_summation": Spec(
            "fusionkit.fusions.parameterized_weighted_summation:ParameterizedWeightedSummation",
            summary="the sum of the views with learned weights",
        ),
        "product": Spec("fusionkit.fusions.product:Product", ("prod",), "the product of the views, entry by entry"),
        "weighted_summation": Spec(
            "fusionkit.fusions.weighted_summation:WeightedSummation", summary="the sum of the views with fixed weights"
        ),
    }


@hookimpl
def fusionkit_fabrications() -> dict[str, Spec]:
    """Return the fabrications of ``fusionkit/fabrications/``."""
    return {
        "dense": Spec("fusionkit.fabrications.dense:Dense", ("identity",), "every entry of W is a parameter"),
        "lowrank": Spec("fusionkit.fabrications.lowrank:LowRank", ("lorr",), "W = A B of rank r"),
        "block_circulant": Spec("fusionkit.fabrications.block_circulant:BlockCirculant", summary="circulant blocks"),
        "constant": Spec(
            "fusionkit.fabrications.constant:Constant", summary="every entry of W is the same fixed number"
        ),
        "constant_eye": Spec(
            "fusionkit.fabrications.constant_eye:ConstantEye", summary="the rectangular identity, fixed"
        ),
        "fourier": Spec("fusionkit.fabrications.fourier:Fourier", ("fourierft",), "few frequencies"),
        "hashed": Spec("fusionkit.fabrications.hashed:Hashed", summary="entries share parameters by a hash"),
        "hypernet": Spec(
            "fusionkit.fabrications.hypernet:Hypernet", summary="a frozen network makes W from a short vector"
        ),
        "masked": Spec(
            "fusionkit.fabrications.masked:Masked", ("masking",), "parameters at fixed positions, zeros elsewhere"
        ),
        "monarch": Spec("fusionkit.fabrications.monarch:Monarch", summary="two block-diagonal factors, mixed between"),
        "one": Spec("fusionkit.fabrications.one:One", summary="all ones, fixed"),
        "random_matrix_hypernet": Spec(
            "fusionkit.fabrications.random_matrix_hypernet:RandomMatrixHypernet",
            summary="a frozen network of low-rank layers makes W",
        ),
        "tensor_train": Spec("fusionkit.fabrications.tensor_train:TensorTrain", summary="a train of small cores"),
        "toeplitz": Spec("fusionkit.fabrications.toeplitz:Toeplitz", summary="constant along the diagonals"),
        "block_diagonal": Spec(
            "fusionkit.fabrications.block_diagonal:BlockDiagonal",
            ("duplicated_diagonal_padding",),
            "copies of one matrix along the diagonal",
        ),
        "dual_lowrank_kronecker": Spec(
            "fusionkit.fabrications.dual_lowrank_kronecker:DualLowRankKronecker",
            ("dual_lphm",),
            "W = (P Q) ⊗ (S T)",
        ),
        "duplicated_padding": Spec(
            "fusionkit.fabrications.duplicated_padding:DuplicatedPadding", summary="copies of one matrix"
        ),
        "khatri_rao": Spec(
            "fusionkit.fabrications.khatri_rao:KhatriRao", ("loha",), "the entrywise product of two low-rank matrices"
        ),
        "kronecker": Spec("fusionkit.fabrications.kronecker:Kronecker", ("hm",), "W = A ⊗ B"),
        "kronecker_sum": Spec(
            "fusionkit.fabrications.kronecker_sum:KroneckerSum", ("phm",), "a sum of Kronecker products"
        ),
        "lowrank_kronecker": Spec(
            "fusionkit.fabrications.lowrank_kronecker:LowRankKronecker", ("lphm",), "W = A ⊗ (S T)"
        ),
        "random_matrix_adaption": Spec(
            "fusionkit.fabrications.random_matrix_adaption:RandomMatrixAdaption",
            ("vera",),
            "two frozen random matrices, scaled by learned vectors",
        ),
        "view_lowrank": Spec("fusionkit.fabrications.view_lowrank:ViewLowRank", summary="a low-rank matrix per view"),
        "zero": Spec("fusionkit.fabrications.zero:Zero", summary="all zeros, fixed"),
    }
