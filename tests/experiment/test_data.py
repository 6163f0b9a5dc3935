from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from fusionkit.config.hashing import file_digest
from fusionkit.errors import DimsError, FusionError
from fusionkit.experiment.data import EMBEDDED, Dataset, known_widths, load_data, read_npz, split
from tests.messages import like

Write = Callable[..., Path]


def refused(path: Path, sentence: str) -> None:
    """Assert that reading the file fails with a sentence like this one, in which {path} stands for the file."""
    with pytest.raises(FusionError, match=like(sentence.replace("{path}", str(path)))):
        read_npz(path)


def test_embedded_data_are_there_with_their_attribution() -> None:
    data = load_data({"name": "mfeat"}, [76, 216, 64, 240, 47, 6])
    assert data.rows == 2000
    assert list(data.views) == ["fou", "fac", "kar", "pix", "zer", "mor"]
    assert data.dims == [76, 216, 64, 240, 47, 6]
    assert data.classes == list(range(10))
    assert np.bincount(data.target).tolist() == [200] * 10
    readme = (EMBEDDED["mfeat"].parent / "README.md").read_text(encoding="utf-8")
    assert "Creative Commons Attribution 4.0" in readme
    assert "doi:10.24432/C5HC70" in readme


def test_widths_from_the_headers(npz: Write, tmp_path: Path) -> None:
    assert known_widths({"name": "npz", "path": str(npz())}) == [4, 3]
    assert known_widths({"name": "mfeat"}) == [76, 216, 64, 240, 47, 6]
    assert known_widths({"name": "digits"}) is None
    for path in (tmp_path / "none.npz", tmp_path, Path("/dev/null"), npz(a=np.ones(60)), npz(a=np.array([None]))):
        assert known_widths({"name": "npz", "path": str(path)}) is None
    (tmp_path / "views.npz").write_bytes(b"PK")
    assert known_widths({"name": "npz", "path": str(tmp_path / "views.npz")}) is None


def test_every_array_but_label_is_a_view(npz: Write, arrays: dict[str, Any]) -> None:
    data = load_data({"name": "npz", "path": str(npz())})
    assert list(data.views) == ["a", "b"]
    assert data.dims == [4, 3]
    np.testing.assert_array_equal(data.views["b"], arrays["b"])
    np.testing.assert_array_equal(data.target, arrays["label"])


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        (np.array(["zebra", "ant", "gnu"] * 20), ["ant", "gnu", "zebra"]),
        (np.array([b"zebra", b"ant", b"gnu"] * 20), ["ant", "gnu", "zebra"]),
        (np.array([70, -3, 10**12] * 20), [-3, 70, 10**12]),
        (np.array([0.5, -1.0, 2.0] * 20, dtype=np.float32), [-1.0, 0.5, 2.0]),
        (np.array([True, False, False] * 20), [False, True]),
    ],
    ids=["strings", "bytes", "integers", "floats", "bools"],
)
def test_labels_of_any_plain_type(npz: Write, label: np.ndarray[Any, Any], classes: list[Any]) -> None:
    data = read_npz(npz(label=label))
    assert data.classes == classes
    assert [type(value) for value in data.classes] == [type(value) for value in classes]
    assert [data.classes[i] for i in data.target[:2]] == [v.decode() if isinstance(v, bytes) else v for v in label[:2]]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", ">f4", "longdouble"])
def test_views_of_any_real_type(npz: Write, arrays: dict[str, Any], dtype: str) -> None:
    import torch

    view = read_npz(npz(b=arrays["b"].astype(dtype))).views["b"]
    assert torch.from_numpy(view).shape == (60, 3)


def test_digest_is_that_of_the_content(npz: Write, arrays: dict[str, Any]) -> None:
    first = read_npz(npz()).digest
    assert read_npz(npz()).digest == first
    assert read_npz(npz(a=arrays["a"] + 1)).digest != first


def test_description_is_plain_json(npz: Write) -> None:
    import json

    described = read_npz(npz()).describe()
    assert json.loads(json.dumps(described)) == described
    assert (described["rows"], described["label"]) == (60, "views.npz")


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_other_widths_than_the_files(npz: Write) -> None:
    sentence = "dims … found [4, 5]."
    with pytest.raises(DimsError, match=like(sentence)):
        load_data({"name": "npz", "path": str(npz())}, [4, 5])


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.npz", "The data file … found {path}: No such file or directory.")


def test_directory(tmp_path: Path) -> None:
    refused(tmp_path, "The data file … found {path}: Is a directory.")


@pytest.mark.parametrize("content", [b"", b"label,a\n1,2\n", b"\x93NUMPY"], ids=["empty", "text", "npy"])
def test_another_format(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    refused(path, "{path} … found another format.")


def test_truncated_file(npz: Write) -> None:
    path = npz()
    content = path.read_bytes()
    # The directory at the end is kept, so that the archive opens; the arrays before it are destroyed.
    path.write_bytes(b"\0" * 1000 + content[1000:])
    with pytest.raises(FusionError, match=r"should be a complete \.npz file; found it damaged"):
        read_npz(path)


def test_archive_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("label.txt", "1")
    refused(path, "{path} … found 'label.txt', which is none.")


def test_no_label(npz: Write, arrays: dict[str, Any]) -> None:
    refused(
        npz(label=None, labels=arrays["label"]), "{path} … found the arrays 'a', 'b', 'labels'. Did you mean 'labels'?"
    )


def test_no_views(npz: Write) -> None:
    refused(npz(a=None, b=None), "{path} … found none.")


def test_views_of_different_lengths(npz: Write, arrays: dict[str, Any]) -> None:
    refused(npz(b=arrays["b"][:-1]), "View 'b' of {path} … found 59.")


def test_label_of_another_length(npz: Write, arrays: dict[str, Any]) -> None:
    refused(npz(label=arrays["label"][1:]), "The array 'label' of {path} … found (59,).")


def test_nan_and_infinity(npz: Write, arrays: dict[str, Any]) -> None:
    view = arrays["a"].copy()
    view[9, 0] = -np.inf
    refused(npz(a=view), "View 'a' of {path} … found 1 infinite among 240 values.")
    view[3, 1] = view[7, 2] = np.nan
    refused(npz(a=view), "View 'a' of {path} … found 2 with NaN, the first is row 3.  In a run, data.impute=mean …")


# -- missing views -----------------------------------------------------------------------------------------------------


def absent(arrays: dict[str, Any], filler: float = np.nan) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return the views with ``filler`` in absent rows, and the mask: row 0 lacks both, 1 and 2 view a, 3 view b."""
    mask = np.ones((60, 2), dtype=bool)
    mask[0], mask[1:3, 0], mask[3, 1] = False, False, False
    views = {"a": arrays["a"].copy(), "b": arrays["b"].astype(np.float64)}
    for i, view in enumerate(views.values()):
        view[~mask[:, i]] = filler
    return views, mask


def test_rows_that_are_all_nan_are_absent(npz: Write, arrays: dict[str, Any]) -> None:
    assert read_npz(npz()).mask is None
    views, mask = absent(arrays)
    data = read_npz(npz(**views))
    assert data.mask is not None
    np.testing.assert_array_equal(data.mask, mask)
    described = data.describe()
    assert (described["missing"], described["rows_without_views"]) == ({"a": 3, "b": 2}, 1)
    assert not {"missing", "rows_without_views"} & read_npz(npz()).describe().keys()


@pytest.mark.parametrize("filler", [np.nan, np.inf, 1e300, -7.0])
def test_what_a_mask_calls_absent_may_hold_anything(npz: Write, arrays: dict[str, Any], filler: float) -> None:
    views, mask = absent(arrays, filler)
    data = load_data({"name": "npz", "path": str(npz(**views, mask=mask)), "missing": "mask", "impute": None})
    assert data.dims == [4, 3]
    assert data.mask is not None
    np.testing.assert_array_equal(data.mask, mask)
    assert read_npz(npz(mask=np.ones((60, 2), dtype=bool)), missing="mask").mask is None


def test_without_the_key_mask_is_a_view(npz: Write) -> None:
    data = read_npz(npz(mask=np.ones((60, 2), dtype=bool)))
    assert list(data.views) == ["a", "b", "mask"]


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (None, "{path} … 'mask' (rows, views), which data.missing=mask asks for; found the arrays 'a', 'b', 'label'."),
        (np.ones((60, 2)), "The array 'mask' of {path} … found float64."),
        (np.ones((60, 2), dtype=np.uint8), "The array 'mask' of {path} … found uint8."),
        (np.ones((60, 3), dtype=bool), "The array 'mask' of {path} … (60, 2), a column per view; found (60, 3)."),
        (np.ones(60, dtype=bool), "The array 'mask' of {path} … found (60,)."),
    ],
)
def test_the_mask_of_a_file(npz: Write, mask: Any, sentence: str) -> None:
    path = npz(mask=mask)
    with pytest.raises(FusionError, match=like(sentence.replace("{path}", str(path)))):
        read_npz(path, missing="mask")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mask_that_calls_present_what_is_not_finite(npz: Write, arrays: dict[str, Any], value: float) -> None:
    views, mask = absent(arrays, value)
    mask[1, 0] = mask[2, 0] = True
    path = npz(**views, mask=mask)
    found = "2 with NaN, the first is row 1." if np.isnan(value) else "8 infinite among 240 values."
    with pytest.raises(FusionError, match=like(f"View 'a' of {path} … found {found}")):
        read_npz(path, missing="mask")
    if np.isnan(value):
        with pytest.raises(FusionError, match=like(f"View 'a' of {path} … found {found}")):
            read_npz(path, missing="mask", impute="mean")


def test_some_nan_in_a_row_is_refused_unless_it_is_imputed(npz: Write, arrays: dict[str, Any]) -> None:
    views, mask = absent(arrays)
    views["a"][10:12, 2] = np.nan
    path = npz(**views)
    refused(path, "View 'a' of {path} … found 2 with NaN, the first is row 10.  In a run, data.impute=mean …")
    data = read_npz(path, impute="mean")
    assert data.impute == "mean"
    assert data.mask is not None
    np.testing.assert_array_equal(data.mask, mask)


def test_nan_label(npz: Write) -> None:
    label = np.array([0.0, 1.0, np.nan] * 20)
    refused(npz(label=label), "The array 'label' of {path} … found 20 NaN or infinite.")


@pytest.mark.parametrize("key", ["a", "label"])
def test_objects_are_not_unpickled(npz: Write, key: str, tmp_path: Path) -> None:
    witness = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (witness,))

    objects = np.empty((60, 1) if key == "a" else 60, dtype=object)
    objects[:] = Hostile()
    hint = "  numpy.unique(label, return_inverse=True)[1] numbers the classes." if key == "label" else ""
    refused(
        npz(**{key: objects}),
        f"The array {key!r} of {{path}} … found Python objects, which are not read because that could run code.{hint}",
    )
    assert not witness.exists()


@pytest.mark.parametrize("shape", [(60,), (60, 2, 2), ()])
def test_views_of_other_ranks(npz: Write, shape: tuple[int, ...]) -> None:
    view = np.zeros(shape)
    refused(npz(b=view), f"View 'b' of {{path}} … found {view.shape}.")


@pytest.mark.parametrize("shape", [(60, 0), (0, 3)])
def test_empty_views(npz: Write, shape: tuple[int, ...]) -> None:
    refused(npz(b=np.zeros(shape)), f"View 'b' of {{path}} … found {shape}.")


@pytest.mark.parametrize("dtype", ["complex64", "U3", "datetime64[s]"])
def test_views_that_are_no_numbers(npz: Write, dtype: str) -> None:
    view = np.zeros((60, 2)).astype("int64").astype(dtype)
    refused(npz(b=view), f"View 'b' of {{path}} … found dtype {view.dtype}.")


def test_label_of_another_shape(npz: Write, arrays: dict[str, Any]) -> None:
    refused(npz(label=arrays["label"][:, None]), "The array 'label' of {path} … found (60, 1).")


def test_label_that_is_none(npz: Write) -> None:
    label = np.zeros(60, dtype=complex)
    refused(npz(label=label), "The array 'label' of {path} … found dtype complex128.")


def test_label_of_a_regression(npz: Write) -> None:
    refused(
        npz(label=np.arange(60) / 4),
        "The array 'label' of {path} should contain classes, as whole numbers or strings, because the task is "
        "classification only; found 45 different numbers that are not whole, such as 0.25.",
    )


def test_one_class(npz: Write) -> None:
    refused(npz(label=np.full(60, 7)), "The array 'label' of {path} … found only 7.")


def test_labels_that_are_not_text_are_not_made_equal(npz: Write) -> None:
    label = np.array([b"Caf\xe9", b"Caf\xe8", b"Tee"] * 20)
    refused(
        npz(label=label), r"The array 'label' of {path} should contain text in UTF-8; found b'Caf\xe9'.  numpy.char"
    )


def test_labels_that_no_record_can_hold(npz: Write) -> None:
    refused(npz(label=np.array(["a\ud800", "b"] * 30)), r"The array 'label' of {path} … found '\ud800', half")


def test_long_double_labels_are_not_made_equal(npz: Write) -> None:
    label = np.tile(np.array([1, 2**64, 2**64 + 1], dtype=np.longdouble) - [0, 1, 1], 20)
    refused(npz(label=label), "The array 'label' of {path} … found dtype")


def test_a_long_double_that_float64_cannot_hold(npz: Write, arrays: dict[str, Any]) -> None:
    view = arrays["a"].astype(np.longdouble)
    view[0, 0] = np.longdouble("1e400")
    refused(npz(a=view), "View 'a' of {path} … found 1 infinite among 240 values.")


def test_names_that_numpy_makes_equal(npz: Write, arrays: dict[str, Any]) -> None:
    refused(npz(**{"a.npy": arrays["a"]}), "{path} … found 'a' and 'a.npy'.")
    path = npz()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.npy", archive.read("b.npy"))
    refused(path, "{path} … found 'a' twice.")


# -- split -------------------------------------------------------------------------------------------------------------


def test_split_is_stratified_by_seed(npz: Write) -> None:
    data = read_npz(npz())
    train, test = split(data, seed=3)
    assert sorted([*train, *test]) == list(range(60))
    assert np.bincount(data.target[train]).tolist() == [16, 16, 16]
    assert np.bincount(data.target[test]).tolist() == [4, 4, 4]
    again = split(data, seed=3)
    np.testing.assert_array_equal(train, again[0])
    assert set(split(data, seed=4)[1]) != set(test)


@pytest.mark.parametrize("seed", range(6))
def test_split_draws_the_rows_that_scikit_learn_draws(seed: int) -> None:
    random = np.random.default_rng(seed)
    target = random.permutation(np.concatenate([np.arange(5).repeat(3), random.integers(0, 5, 40 * seed)]))
    data = Dataset("npz", Path("x.npz"), "", {"a": np.zeros((len(target), 1))}, target, [0, 1, 2, 3, 4])
    size = 0.35 + 0.05 * seed
    wanted = train_test_split(np.arange(len(target)), test_size=size, stratify=target, random_state=seed)
    for part, expected in zip(split(data, seed=seed, test_size=size), wanted, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_split_leaves_the_global_random_state(npz: Write) -> None:
    state = np.random.get_state()[1]  # type: ignore[index]
    split(read_npz(npz()), seed=0)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # type: ignore[index]


def test_split_needs_two_rows_per_class(npz: Write) -> None:
    path = npz(label=np.array(["x", "y"] * 29 + ["x", "rare"]))
    sentence = f"Every class of {path} … found 1 of class 'rare'."
    with pytest.raises(FusionError, match=like(sentence)):
        split(read_npz(path), seed=0)


@pytest.mark.parametrize(("size", "part", "rows"), [(0.01, "test", 1), (0.99, "training", 0)])
def test_split_needs_a_row_per_class_in_both_parts(npz: Write, size: float, part: str, rows: int) -> None:
    path = npz()
    sentence = (
        f"The {part} part of {path} should have at least 3 rows, one per class; "
        f"found {rows} of 60 rows at test_size {size}."
    )
    with pytest.raises(FusionError, match=like(sentence)):
        split(read_npz(path), seed=0, test_size=size)


def test_dataset_counts() -> None:
    data = Dataset("x", Path("x"), "", {"a": np.zeros((2, 3))}, np.array([0, 1]), [0, 1])
    assert (data.rows, data.dims) == (2, [3])


# -- files that stand for more than is there ---------------------------------------------------------------------------


def test_a_device_or_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    for name in ("pipe.npz", "zero.npz"):
        refused(tmp_path / name, f"The data file should be a .npz file; found {tmp_path / name}: a pipe or a device.")
        assert file_digest(str(tmp_path / name)) is None


def test_a_sparse_file_is_not_hashed(tmp_path: Path) -> None:
    path = tmp_path / "sparse.npz"
    with path.open("wb") as file:
        file.truncate(40 * 2**30)
    refused(path, "{path} should be a .npz file, as numpy.savez writes it; found another format.")
    assert file_digest(str(path)) is None


def archive(path: Path, size: int, shape: tuple[int, ...], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write an array of ``size`` zeros whose header says ``shape``."""
    with zipfile.ZipFile(path, "w", compression) as file, file.open("a.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for _ in range(size // 2**20):
            member.write(bytes(2**20))
    return path


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "bomb.npz", 2**26, (2**13, 2**13))
    refused(path, "{path} should contain an array 'label'")  # Small enough to be read.
    monkeypatch.setattr("fusionkit.experiment.data.MAX_UNPACKED", 2**25)
    refused(path, "{path} should unpack to at most 33554432 bytes, or 100 times its size; found 67108992 bytes in ")


def test_a_header_that_claims_more_than_is_there_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "claims.npz", 0, (2**40, 4), zipfile.ZIP_STORED)
    refused(
        path, "'a.npy' of {path} should contain its 4398046511104 bytes; found an array of shape (1099511627776, 4)"
    )


@pytest.mark.parametrize("where", [0x06, 0x08])
def test_an_encrypted_or_oddly_packed_array_is_one_sentence(npz: Write, where: int) -> None:
    path = npz()
    content = bytearray(path.read_bytes())
    for magic, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        start = content.index(magic)
        content[start + where + shift] |= 1
    path.write_bytes(content)
    refused(path, "{path} should be a complete .npz file; found it damaged (")
