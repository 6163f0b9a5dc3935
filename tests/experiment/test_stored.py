"""Views that stay in their files, against the same arrays in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionkit.errors import FusionError
from fusionkit.experiment import stored
from fusionkit.experiment.stored import StoredView, joined, stored_array
from tests.messages import like

Save = Callable[..., StoredView]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return a function that writes an array and returns it as a view."""

    def write(array: np.ndarray[Any, Any], name: str = "a") -> StoredView:
        np.save(tmp_path / f"{name}.npy", array)
        return StoredView((stored_array(tmp_path / f"{name}.npy"),))

    return write


def numbers(rows: int, width: int, dtype: str = "float32", seed: int = 0) -> np.ndarray[Any, Any]:
    return (100 * np.random.default_rng(seed).standard_normal((rows, width))).astype(dtype)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float32", ">f4", ">i8", "longdouble"])
def test_rows_of_any_real_type(save: Save, dtype: str) -> None:
    array = numbers(40, 3, dtype)
    view = save(array)
    exact = np.dtype("f8") if dtype == "longdouble" else array.dtype.newbyteorder("=")
    assert (view.shape, view.dtype, view.size, len(view)) == ((40, 3), exact, 120, 40)
    assert view.nbytes == 120 * exact.itemsize
    for found in (view.read(7, 31), view[7:31], view[np.arange(7, 31)]):
        assert found.dtype == exact
        np.testing.assert_array_equal(found, array[7:31].astype(exact))


def test_rows_in_any_order(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_GAP", 40)
    monkeypatch.setattr(stored, "_READ", 200)
    array = numbers(300, 4)
    view, rows = save(array), np.random.default_rng(1).integers(0, 300, 100)
    np.testing.assert_array_equal(view[rows], array[rows])
    assert view[np.array([], dtype=np.int64)].shape == (0, 4)


def test_slices_beyond_the_end(save: Save) -> None:
    array = numbers(10, 2)
    view = save(array)
    np.testing.assert_array_equal(view[8:99], array[8:])
    assert (view[5:5].shape, view[20:30].shape) == ((0, 2), (0, 2))


def test_several_files_behind_each_other(save: Save) -> None:
    first, second = numbers(5, 3, "float32"), numbers(7, 3, "float64", seed=1)
    view, whole = joined([save(first), save(second, "b")]), np.concatenate([first, second])
    assert (view.shape, view.dtype) == (whole.shape, whole.dtype)
    for start, stop in ((0, 12), (3, 9), (0, 2), (6, 12), (4, 4)):
        found = view.read(start, stop)
        assert found.dtype == whole.dtype
        np.testing.assert_array_equal(found, whole[start:stop])
    rows = np.array([11, 0, 5, 4])
    np.testing.assert_array_equal(view[rows], whole[rows])


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format(tmp_path: Path, version: tuple[int, int]) -> None:
    array = numbers(4, 3)
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    np.testing.assert_array_equal(stored_array(tmp_path / "a.npy").whole(), array)


@pytest.mark.parametrize("values", [np.array(["x", "größer"]), np.arange(3), np.zeros((2, 2, 2)), np.array(5.0)])
def test_whole_arrays(tmp_path: Path, values: np.ndarray[Any, Any]) -> None:
    np.save(tmp_path / "a.npy", values)
    found = stored_array(tmp_path / "a.npy").whole()
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("change", ["shorter", "longer", "touched", "gone"])
def test_a_file_that_changes_while_it_is_read(save: Save, change: str) -> None:
    view = save(numbers(20, 3))
    path = view.files[0].path
    view.read(0, 20)
    content, status = path.read_bytes(), path.stat()
    if change == "gone":
        path.unlink()
        with pytest.raises(FusionError, match=like(f"{path} should stay readable; found No such file or directory.")):
            view.read(0, 3)
        return
    path.write_bytes({"shorter": content[:-4], "longer": content + b"1", "touched": content}[change])
    # The size tells the others apart, even if the time of change is the same.
    same = status.st_mtime_ns + (change == "touched")
    os.utime(path, ns=(same, same))
    sentence = f"{path} should not change while it is read; found another size or time of change."
    with pytest.raises(FusionError, match=like(sentence)):
        view.read(0, 3)


def headed(path: Path, header: str) -> Path:
    """Write a header of version 1.0 and 64 bytes."""
    text = header.encode().ljust(117) + b"\n"
    path.write_bytes(np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text + bytes(64))
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4)",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), 'more': 1}",
        "{'descr': 'nothing', 'fortran_order': False, 'shape': (4, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 4}",
        "__import__('os').system('true')",
        "'''",
        "  {\n {",
        "[" * 100,
    ],
)
def test_a_damaged_header(tmp_path: Path, header: str) -> None:
    path = headed(tmp_path / "a.npy", header)
    with pytest.raises(FusionError, match=like(f"{path} should be a complete .npy file; found a damaged header.")):
        stored_array(path)


@pytest.mark.parametrize(
    ("shape", "claimed"), [((4, 5), 80), ((-4, -4), 64), ((2**40, 2**40), 2**82), ((-1, 4), -16), ((17,), 68)]
)
def test_a_file_that_is_shorter_than_its_header_says(tmp_path: Path, shape: tuple[int, ...], claimed: int) -> None:
    path = headed(tmp_path / "a.npy", str({"descr": "<f4", "fortran_order": False, "shape": shape}))
    sentence = f"{path} should have {claimed} bytes of values, for its shape {shape}; found 64."
    with pytest.raises(FusionError, match=like(sentence)):
        stored_array(path)


def test_a_file_that_is_no_array(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "text.npy").write_text("a,b\n")
    (tmp_path / "none.npy").symlink_to("nowhere")
    found = {
        **dict.fromkeys(["pipe", "folder"], "a folder, a pipe or a device"),
        "text": "another format",
        "none": "No such file or directory",
    }
    for name, what in found.items():
        with pytest.raises(FusionError, match=like(f"{tmp_path / name}.npy should be a .npy file… found {what}.")):
            stored_array(tmp_path / f"{name}.npy")


def test_fortran_order_is_rewritten_as_the_message_says(tmp_path: Path) -> None:
    path, array = tmp_path / "a.npy", np.asfortranarray(numbers(6, 4))
    np.save(path, array)
    with pytest.raises(FusionError, match=like(f"{path} should be in C order… found Fortran order.")) as error:
        stored_array(path)
    advice = str(error.value).split("  ")[1].removesuffix(" rewrites it.")
    exec(advice, {"numpy": np, "path": path, "array": np.load(path)})
    np.testing.assert_array_equal(stored_array(path).whole(), array)
