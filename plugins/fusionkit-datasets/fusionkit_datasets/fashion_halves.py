"""Fashion-MNIST, cut into upper and lower halves."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fusionkit import FusionError

from fusionkit_datasets.places import located, unreadable

#: Of Debian's package.
PLACES = (Path("/usr/share/datasets/fashion-mnist"),)
#: word of ``split`` -> how the names of its files begin.
PARTS = {"train": "train", "test": "t10k"}
SIDE = 28
_IMAGES, _LABELS = "{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"


def fashion_halves(path: str | None) -> dict[str, npt.NDArray[Any]]:
    """Return 70,000 pictures (28, 28) as the views ``upper`` and ``lower`` of width 392, ``label`` and ``split``.

    The 10,000 rows of the given test part are the last ones.

    Raises:
        FusionError: the files are not there, or are other ones.
    """
    first = _IMAGES.format(PARTS["train"])
    folder = located(path, first, PLACES, "fashion_halves", "apt install dataset-fashion-mnist").parent
    images = [_idx(folder / _IMAGES.format(begin), (SIDE, SIDE)) for begin in PARTS.values()]
    labels = [_idx(folder / _LABELS.format(begin), ()) for begin in PARTS.values()]
    for begin, pictures, label in zip(PARTS.values(), images, labels, strict=True):
        if len(pictures) != len(label):
            file = folder / _LABELS.format(begin)
            raise FusionError(f"{file} should have a label for each of {len(pictures)} images; found {len(label)}.")
    halves = np.split(np.concatenate(images), 2, axis=1)
    split = np.repeat(np.array(list(PARTS)), [len(label) for label in labels])
    views = {name: half.reshape(len(half), -1) for name, half in zip(("upper", "lower"), halves, strict=True)}
    return {"label": np.concatenate(labels).astype(np.int64), **views, "split": split}


def _idx(file: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the bytes of a gzipped idx file, (rows, *shape).

    The format: two zeros, 8 for bytes, the number of dimensions, each of these as four bytes, then the values.

    Raises:
        FusionError: the file cannot be read, or has another type, shape or length.
    """
    what = f"a gzipped idx file of bytes {('rows', *shape)}".replace("'", "").replace(",)", ")")
    try:
        with gzip.open(file) as opened:
            head = opened.read(4)
            sizes = tuple(int.from_bytes(opened.read(4)) for _ in range(1 + len(shape)))
            if head != bytes((0, 0, 8, 1 + len(shape))) or sizes[1:] != shape:
                raise FusionError(f"{file} should be {what}; found another type or shape in its header.")
            size = math.prod(sizes)
            values = opened.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(file, what, error) from error
    if len(values) != size:
        found = "more" if len(values) > size else str(len(values))
        raise FusionError(f"{file} should have the {size} bytes that its header says; found {found}.")
    return np.frombuffer(values, np.uint8).reshape(sizes)
