from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionkit.config.hashing import file_digest
from fusionkit.config.options import NpzOptions
from fusionkit.errors import FusionError
from fusionkit.experiment.npz import read_npz
from fusionkit.experiment.source import Source
from fusionkit.experiment.tasks.choice import choose
from tests.messages import like

Write = Callable[..., Path]


def read(path: Path, **options: Any) -> Source:
    return read_npz(NpzOptions(name="npz", path=str(path), **options))


def refused(path: Path, sentence: str) -> None:
    """Assert that reading the file fails with a sentence like this one, in which {path} stands for the file."""
    with pytest.raises(FusionError, match=like(sentence.replace("{path}", str(path)))):
        read(path)


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
    target = choose(read(npz(label=label)).labels, "classification")
    found = target.task.classes
    assert found == classes
    assert [type(value) for value in found] == [type(value) for value in classes]
    assert [found[i] for i in target.values[:2]] == [v.decode() if isinstance(v, bytes) else v for v in label[:2]]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", ">f4", "longdouble"])
def test_views_of_any_real_type(npz: Write, arrays: dict[str, Any], dtype: str) -> None:
    import torch

    view = read(npz(b=arrays["b"].astype(dtype))).views["b"]
    assert torch.from_numpy(view).shape == (60, 3)


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
        read(path)


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


def test_without_the_key_mask_is_a_view(npz: Write) -> None:
    data = read(npz(mask=np.ones((60, 2), dtype=bool)))
    assert list(data.views) == ["a", "b", "mask"]


def test_nan_label(npz: Write) -> None:
    label = np.array([0.0, 1.0, np.nan] * 20)
    refused(npz(label=label), "The array 'label' of {path} … NaN or infinite in 20 rows, the first is row 2.")


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


@pytest.mark.parametrize("shape", [(59, 1), (60, 0), (60, 2, 1), ()])
def test_label_of_another_shape(npz: Write, shape: tuple[int, ...]) -> None:
    refused(npz(label=np.zeros(shape)), f"The array 'label' of {{path}} … found {shape}.")


def test_labels_of_one_column_are_those_without_it(npz: Write, arrays: dict[str, Any]) -> None:
    labels = read(npz(label=arrays["label"][:, None])).labels
    assert (labels.values.tolist(), labels.names) == (arrays["label"].tolist(), ["label"])


def test_labels_of_several_columns_are_numbered(npz: Write, arrays: dict[str, Any]) -> None:
    labels = read(npz(label=arrays["a"])).labels
    np.testing.assert_array_equal(labels.values, arrays["a"])
    assert labels.names == ["0", "1", "2", "3"]


def test_an_empty_label(npz: Write) -> None:
    label = np.array(["x", "y", " "] * 20)
    refused(npz(label=label), "The array 'label' of {path} … empty text; found it in 20 rows, the first is row 2.")


def test_nan_in_one_of_several_targets(npz: Write, arrays: dict[str, Any]) -> None:
    label = arrays["a"].copy()
    label[7, 1] = label[9, 3] = np.nan
    refused(npz(label=label), "The array 'label' of {path} … NaN or infinite in 2 rows, the first is row 7.")


def test_arrays_of_one_dimension_may_have_a_role(npz: Write, arrays: dict[str, Any]) -> None:
    group, weight = np.arange(60) // 2, np.linspace(0, 1, 60)
    source = read(npz(group=group, weight=weight, split=np.ones((60, 2))))
    assert list(source.views) == ["a", "b", "split"]  # One with two dimensions is a view, as before.
    assert sorted(source.roles) == ["group", "weight"]
    np.testing.assert_array_equal(source.roles["group"], group)


def test_label_that_is_none(npz: Write) -> None:
    label = np.zeros(60, dtype=complex)
    refused(npz(label=label), "The array 'label' of {path} … found dtype complex128.")


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


def test_names_that_numpy_makes_equal(npz: Write, arrays: dict[str, Any]) -> None:
    refused(npz(**{"a.npy": arrays["a"]}), "{path} … found 'a' and 'a.npy'.")
    path = npz()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.npy", archive.read("b.npy"))
    refused(path, "{path} … found 'a' twice.")


def test_a_device_or_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    for name in ("pipe.npz", "zero.npz"):
        refused(tmp_path / name, f"The data file should be a .npz file; found {tmp_path / name}: a pipe or a device.")
        assert file_digest(str(tmp_path / name)) is None


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.npz"
    with path.open("wb") as file:
        file.truncate(40 * 2**30)
    refused(path, "{path} should be a .npz file, as numpy.savez writes it; found another format.")
    assert file_digest(str(path)) is not None  # Of 64 blocks.


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
    monkeypatch.setattr("fusionkit.experiment.npz.MAX_UNPACKED", 2**25)
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


def test_a_mask_that_is_a_view_is_told(npz: Write) -> None:
    mask = np.ones((60, 2), dtype=bool)
    assert ["data.missing=mask" in note for note in read(npz(mask=mask)).notes] == [True]
    assert read(npz(mask=mask.astype(float))).notes == []


@pytest.mark.parametrize("array", [np.array(["x"] * 60), np.ones(60)])
def test_the_names_of_roles_are_told(npz: Write, array: np.ndarray[Any, Any]) -> None:
    refused(npz(groups=array), "View 'groups' of {path} … named id, group, split, folds, weight have that role.")
