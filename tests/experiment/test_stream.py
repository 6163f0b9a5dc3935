"""Batches of rows whose views stay in their files, and what one pass over them finds."""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fusionkit._util.progress import ProgressBar
from fusionkit.errors import FusionError
from fusionkit.experiment import ranks
from fusionkit.experiment.model import Scaler
from fusionkit.experiment.parts import Part, Share, batch_sizes
from fusionkit.experiment.stored import StoredView
from fusionkit.experiment.stream import StreamedPart, ahead, block_rows, members, read_blocks, survey
from tests.experiment.stored_views import stored, touch

ROWS = 103
Mask = npt.NDArray[np.bool_]


def threads() -> int:
    """Return the number of threads that read ahead."""
    return sum(thread.name.startswith("fusionkit-reads") for thread in threading.enumerate())


def streamed(
    folder: Path, *, rows: int = 7, blocks: int = 4, member: Mask | None = None, widths: tuple[int, ...] = (2, 3)
) -> tuple[StreamedPart, Part]:
    """Return a part in files and the same rows in memory; the first column is the number of the row, standardized."""
    random = np.random.default_rng(0)
    views = [np.arange(ROWS)[:, None] + random.standard_normal((ROWS, width)) for width in widths]
    views[0][:, 0] = np.arange(ROWS)
    scaler = Scaler([f"v{i}" for i in range(len(widths))], widths)
    scaler.fit(views)
    target, weight = torch.arange(ROWS), torch.arange(ROWS) / 7
    rest = Part([], target, (target[:, None] % torch.tensor([2, 3, 5])[: len(widths)]) > 0, weight)
    files = [stored(folder / f"{i}", view.astype(np.float32 if i else np.float64)) for i, view in enumerate(views)]
    member = np.ones(ROWS, dtype=bool) if member is None else member
    raw = [file.read(0, ROWS) for file in files]
    own = torch.from_numpy(np.flatnonzero(member))
    whole = Part([view for view in scaler(raw) if view is not None], target, rest.mask, weight).rows(own)
    return StreamedPart(files, scaler, rest, member, rows, blocks), whole


def order(part: StreamedPart, seed: int, sizes: list[int]) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [row for batch in part.batches(sizes, generator) for row in batch.part.target.tolist()]


SOME = np.random.default_rng(5).random(ROWS) < 0.6
EDGES = members(ROWS, np.array([0, 50, ROWS - 1]))


@pytest.mark.parametrize("rows", [1, 7, ROWS - 1, ROWS, 1000])
@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 8, 1000])
@pytest.mark.parametrize("member", [None, SOME, EDGES], ids=["all", "some", "three"])
def test_every_row_of_the_part_comes_once_as_in_memory(
    tmp_path: Path, rows: int, blocks: int, batch_size: int, member: Mask | None
) -> None:
    part, whole = streamed(tmp_path, rows=rows, blocks=blocks, member=member)
    sizes = batch_sizes(len(whole), batch_size)
    assert len(part) == len(whole)
    batches = [batch.part for batch in part.batches(sizes, torch.Generator().manual_seed(0))]
    assert [len(batch) for batch in batches] == sizes
    found = batches[0].joined(batches[1:])
    place = torch.argsort(found.target)
    assert torch.equal(found.target[place], whole.target)
    for name in ("mask", "weight"):
        assert torch.equal(getattr(found, name)[place], getattr(whole, name))
    for view, wanted in zip(found.views, whole.views, strict=True):
        assert view.dtype == torch.float32
        assert torch.equal(view[place], wanted)
    assert threads() == 0


def test_one_view_without_mask_and_weight(tmp_path: Path) -> None:
    part, whole = streamed(tmp_path, widths=(2,))
    part.rest = Part([], part.rest.target)
    batches = [batch.part for batch in part.batches([50, 53], torch.Generator().manual_seed(0))]
    assert part.mask is batches[0].mask is batches[1].weight is None
    assert torch.equal(batches[1].views[0], whole.views[0][batches[1].target])


def test_the_order_comes_from_the_generator_alone(tmp_path: Path) -> None:
    part, _ = streamed(tmp_path)
    sizes = [50, 53]
    first = order(part, 3, sizes)
    torch.manual_seed(9)
    assert order(part, 3, sizes) == first != order(part, 4, sizes)
    # The sizes of the batches do not change it, nor does what is drawn elsewhere.
    assert order(part, 3, [1] * ROWS) == first


def test_epochs_differ_and_begin_again_from_a_state(tmp_path: Path) -> None:
    part, _ = streamed(tmp_path)
    generator = torch.Generator().manual_seed(0)

    def epoch() -> list[int]:
        return [row for batch in part.batches([50, 53], generator) for row in batch.part.target.tolist()]

    first, state = epoch(), generator.get_state()
    second, third = epoch(), epoch()
    assert len({tuple(one) for one in (first, second, third)}) == 3
    generator.set_state(state)
    assert epoch() == second
    assert epoch() == third
    # The state after the first batch is that after the last one: an epoch may be left before its end.
    generator.set_state(state)
    batches = part.batches([50, 53], generator)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert epoch() == third


def test_rows_of_several_blocks_are_mixed(tmp_path: Path) -> None:
    part, _ = streamed(tmp_path, rows=10, blocks=5)
    found = order(part, 0, [ROWS])
    # Eleven blocks in three buffers; the rows of a buffer are of three or four blocks, in random order.
    buffers = [found[:40], found[40:80], found[80:]]
    last = [buffer for buffer in buffers if {row // 10 for row in buffer} >= {10}]
    assert len(last) == 1
    for rows in (buffer for buffer in buffers if len({row // 10 for row in buffer}) == 4):
        changes = sum(one // 10 != other // 10 for one, other in pairwise(rows))
        assert changes > 20  # Three, if blocks came one after the other.
    assert [row // 10 for row in found[:20]] != sorted(row // 10 for row in found[:20])


def test_a_file_that_is_sorted_by_class_gives_mixed_batches(tmp_path: Path) -> None:
    part, _ = streamed(tmp_path, rows=2, blocks=16)
    halves = [row >= ROWS // 2 for row in order(part, 0, [ROWS])]
    shares = [np.mean(halves[start : start + 25]) for start in (0, 25, 50, 75)]
    assert 0.1 < min(shares) < max(shares) < 0.9


def test_blocks_without_rows_of_the_part_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, _ = streamed(tmp_path, rows=10, member=EDGES)
    read, inner = set(), StoredView.read

    def noted(view: StoredView, start: int, stop: int) -> npt.NDArray[Any]:
        read.add(start)
        return inner(view, start, stop)

    monkeypatch.setattr(StoredView, "read", noted)
    assert sorted(order(part, 0, [3])) == [0, 50, 102]
    assert read == {0, 50, 100}


def test_it_goes_to_another_process_without_its_data(tmp_path: Path) -> None:
    part, _ = streamed(tmp_path)
    batches = part.batches([50, 53], torch.Generator())
    next(batches)
    content = pickle.dumps(part)
    assert part.views[0].read(3, 4).tobytes() not in content
    again: StreamedPart = pickle.loads(content)
    assert order(again, 0, [50, 53]) == order(part, 0, [50, 53])


def test_batches_are_on_the_device(tmp_path: Path) -> None:
    part, _ = streamed(tmp_path)
    (batch,) = part.to(torch.device("meta")).batches([ROWS], torch.Generator())
    tensors = (*batch.part.views, batch.part.target, batch.mask, batch.part.weight)
    assert {one.device.type for one in tensors if one is not None} == {"meta"}


@pytest.mark.parametrize("count", [2, 3, 20])
@pytest.mark.parametrize("member", [None, SOME], ids=["all", "some"])
def test_processes_read_blocks_of_their_own_and_have_the_batches_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, member: Mask | None
) -> None:
    part, _ = streamed(tmp_path, rows=7, blocks=4, member=member)
    sizes = batch_sizes(len(part), 20)
    whole: list[Any] = list(part.batches(sizes, torch.Generator().manual_seed(0)))
    read: list[int] = []
    real = StoredView.read

    def note(self: StoredView, start: int, stop: int) -> Any:
        read.append(start)
        return real(self, start, stop)

    monkeypatch.setattr(StoredView, "read", note)
    shares: list[Any] = [
        list(part.batches(sizes, torch.Generator().manual_seed(0), Share(i, count, False))) for i in range(count)
    ]
    assert len(read) == len(set(read)) * 2  # Each block of both views once, by one of the processes.
    for batch, *own in zip(whole, *shares, strict=True):
        rows = torch.cat([one.rows for one in own])
        assert torch.equal(rows.sort().values, torch.arange(batch.size))
        for one in own:
            assert one.size == batch.size
            assert torch.equal(one.mask, batch.mask)
            wanted = batch.part.rows(one.rows)
            for name in ("target", "mask", "weight"):
                assert torch.equal(getattr(one.part, name), getattr(wanted, name))
            assert all(map(torch.equal, one.part.views, wanted.views))


def test_an_even_share_of_a_batch(tmp_path: Path) -> None:
    part, whole = streamed(tmp_path)
    for one in (part, whole):
        both: Any = (
            list(one.batches([ROWS], torch.Generator().manual_seed(0), share)) for share in (Share(), Share(1, 3))
        )
        (batch,), (own,) = both
        assert (own.size, own.rows) == (ROWS, slice(1, None, 3))
        assert torch.equal(own.part.target, batch.part.target[1::3])
        assert torch.equal(own.mask, batch.mask)


# -- the thread --------------------------------------------------------------------------------------------------------


def test_the_thread_ends_when_the_batches_are_closed(tmp_path: Path) -> None:
    part, _ = streamed(tmp_path, rows=2, blocks=2)
    batches: Any = part.batches([1] * ROWS, torch.Generator())
    next(batches)
    assert threads() == 1
    batches.close()
    assert threads() == 0


def test_the_thread_ends_when_the_training_breaks(tmp_path: Path) -> None:
    part, _ = streamed(tmp_path, rows=2, blocks=2)

    def train() -> None:
        for _ in part.batches([1] * ROWS, torch.Generator()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert threads() == 0


def test_errors_of_reading_arrive_as_they_are(tmp_path: Path) -> None:
    part, _ = streamed(tmp_path, rows=2, blocks=2)
    batches = part.batches([1] * ROWS, torch.Generator())
    next(batches)
    touch(tmp_path / "1")
    with pytest.raises(FusionError, match=re.escape(f"{tmp_path / '1'} should not change while it is read")):
        list(batches)
    assert threads() == 0


def test_the_next_item_is_made_meanwhile() -> None:
    made: list[int] = []
    ready = threading.Event()

    def items() -> Iterator[int]:
        for i in range(3):
            made.append(i)
            if i == 1:
                ready.set()
            yield i

    found = ahead(items())
    assert next(found) == 0
    assert ready.wait(60)
    assert list(found) == [1, 2] == made[1:]


# -- one pass beforehand -----------------------------------------------------------------------------------------------

NAMES = ["View 'a'", "View 'b'"]


def files(folder: Path, *views: npt.NDArray[Any]) -> list[Any]:
    return [stored(folder / f"{i}", view) for i, view in enumerate(views)]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusionkit.experiment.stream.BLOCK", 200)  # Ten rows of five columns.


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("impute", [None, "mean"])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("count", [1, 2, 20])
def test_the_scaler_is_that_of_the_array(
    tmp_path: Path, impute: str | None, with_mask: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "gathered", lambda function: [function(rank, count) for rank in range(count)])
    random = np.random.default_rng(0)
    views: list[npt.NDArray[Any]] = [random.normal(1e6, 3, (ROWS, 2)), random.normal(-2, 0.1, (ROWS, 3))]
    views[1] = views[1].astype(np.float32)
    absent = random.random((ROWS, 2)) < 0.3
    for i, view in enumerate(views):
        view[absent[:, i]] = 1e30 if with_mask else np.nan
        if impute is not None:
            view[~absent[:, i] & (random.random(ROWS) < 0.2), 1] = np.nan
    rows = random.permutation(ROWS)[:60]
    mask, moments = survey(NAMES, files(tmp_path, *views), ~absent if with_mask else None, impute, rows)
    assert mask is not None
    np.testing.assert_array_equal(mask, ~absent)
    found, wanted = (Scaler(["a", "b"], [2, 3], impute) for _ in range(2))
    found.take(moments)
    wanted.fit([view[rows] for view in views], mask[rows])
    for name, buffer in wanted.named_buffers():
        np.testing.assert_allclose(found.get_buffer(name), buffer, rtol=1e-12)
    known = [np.where(absent[:, i : i + 1], np.nan, view.astype(np.float64))[rows] for i, view in enumerate(views)]
    np.testing.assert_allclose(found.get_buffer("mean_0"), np.nanmean(known[0], 0), rtol=1e-12)


def test_complete_views_have_no_mask(tmp_path: Path) -> None:
    views = files(tmp_path, np.ones((5, 2)), np.ones((5, 3)))
    assert survey(NAMES, views, None, None, np.arange(5))[0] is None
    assert survey(NAMES, views, np.ones((5, 2), dtype=bool), None, np.arange(5))[0] is None


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_errors_name_the_row_of_the_file(tmp_path: Path, value: float) -> None:
    b = np.ones((ROWS, 3))
    b[57, 1] = value
    found = "the first is row 57" if np.isnan(value) else "found 1 infinite, the first in row 57"
    with pytest.raises(FusionError, match=found):
        survey(NAMES, files(tmp_path, np.ones((ROWS, 2)), b), None, None, np.arange(5))
    assert threads() == 0


@pytest.mark.parametrize(
    ("a", "impute", "message"),
    [
        (np.full((4, 2), 1.7e308) * [[1], [-1], [-1], [-1]], None, "finite mean and variance; found values up to 1.7e"),
        (np.full((4, 2), np.nan), None, "present in one row of the training part at least; found it in none"),
        (np.array([[1, np.nan]] * 4), "mean", "in every column of the training part; found column 1 without any"),
    ],
)
def test_the_scaler_refuses_what_it_refuses_in_memory(
    tmp_path: Path, a: npt.NDArray[Any], impute: str | None, message: str
) -> None:
    b = np.arange(12.0).reshape(4, 3)
    mask, moments = survey(NAMES, files(tmp_path, a, b), None, impute, np.arange(4))
    scaler = Scaler(["a", "b"], [2, 3], impute)
    with pytest.raises(FusionError, match=re.escape(message)):
        scaler.take(moments)
    with pytest.raises(FusionError, match=re.escape(message)):
        scaler.fit([a, b], mask)
    assert torch.equal(scaler.get_buffer("scale_1"), torch.ones(3, dtype=torch.float64))


def test_the_progress_of_the_pass_is_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusionkit.experiment.stream.ProgressBar", partial(ProgressBar, interval=0.0))
    views = files(tmp_path, np.ones((5, 2)))
    survey(NAMES[:1], views, None, None, np.arange(5))
    assert capfd.readouterr() == ("", "")
    survey(NAMES[:1], views, None, None, np.arange(5), shown=True)
    assert capfd.readouterr().err == "reading: 5 of 5 rows\n"


# -- blocks ------------------------------------------------------------------------------------------------------------


def test_blocks_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    view = np.arange(ROWS * 2).reshape(ROWS, 2)
    views = files(tmp_path, view, view[:, :1].copy())
    found = list(read_blocks(views, 10))
    assert [start for start, _ in found] == list(range(0, ROWS, 10))
    np.testing.assert_array_equal(np.concatenate([block[0] for _, block in found]), view)
    np.testing.assert_array_equal(np.concatenate([block[1] for _, block in found]), view[:, :1])
    assert [start for start, _ in read_blocks(views, 10, members(ROWS, np.array([3, 99])))] == [0, 90]


def test_a_block_has_one_row_at_least(tmp_path: Path) -> None:
    narrow, wide = stored(tmp_path / "a", np.ones((1, 4))), stored(tmp_path / "b", np.ones((1, 2**19)))
    assert block_rows([narrow]) == 2**20 // 16
    assert block_rows([wide, wide]) == 1
