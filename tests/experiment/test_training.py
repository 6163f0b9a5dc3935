from __future__ import annotations

import copy
import multiprocessing
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from torch import nn

import fusionkit
from fusionkit.config.options import ModelOptions, TrainOptions
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import optimizer
from fusionkit.experiment import training as trainings
from fusionkit.experiment.checkpoint import Checkpoints, newest
from fusionkit.experiment.devices import Task, _sharded, run
from fusionkit.experiment.model import Network
from fusionkit.experiment.parts import Part
from fusionkit.experiment.tasks.classification import Classification
from fusionkit.experiment.tasks.regression import Regression
from fusionkit.experiment.training import Monitored, Training, _Display, _fit, _Process, train
from tests.contract.mutants.right import Says
from tests.exhaustive import exhaustive
from tests.experiment.explaining import Balanced
from tests.messages import like


class Linear(nn.Module):
    """A network of two views, small enough to follow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(7, 3)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        out: torch.Tensor = self.layer(self.dropout(torch.cat(x, -1)))
        return out


def parts(rows: int = 60) -> tuple[Part, Part]:
    """Return a training and a test part of three separable classes."""
    generator = torch.Generator().manual_seed(1)

    def make(count: int) -> Part:
        target = torch.arange(count) % 3
        first = nn.functional.one_hot(target, 4).float() + 0.1 * torch.randn(count, 4, generator=generator)
        return Part([first, torch.randn(count, 3, generator=generator)], target)

    return make(rows), make(30)


def training(part: Part, shown: Part | None, options: TrainOptions, seed: int, **more: Any) -> Training:
    """Return a training of three classes, which shows the accuracy of a part."""
    # Copies, because a tensor that is sent to another process moves to other memory.
    measured = None if shown is None else Monitored(shown, shown.target.numpy().copy(), "accuracy")
    return Training(Classification([0, 1, 2]), part, part.target.numpy().copy(), measured, options, seed, **more)


def settings(**changes: Any) -> TrainOptions:
    return TrainOptions(**{"epochs": 8, "batch_size": 16, "lr": 0.2, **changes})


def fit(seed: int = 0, network: nn.Module | None = None, **changes: Any) -> tuple[nn.Module, Any]:
    network = Linear() if network is None else network
    history = train(network, training(*parts(), settings(**changes), seed), "cpu")
    return network, history


def test_training_learns() -> None:
    network, history = fit(label_smoothing=0.1)
    assert history.loss[-1] < 0.7 * history.loss[0]
    assert history.score[-1] == 1.0
    assert [len(curve) for curve in (history.loss, history.score, history.lr)] == [8, 8, 8]
    assert history.best_epoch == 8
    assert not network.training


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("scheduler", ["onecycle", "constant"])
def test_every_optimizer_and_scheduler(optimizer: str, scheduler: str) -> None:
    _, history = fit(optimizer=optimizer, scheduler=scheduler)
    assert history.loss[-1] < history.loss[0]
    assert (history.lr[-1] == 0.2) == (scheduler == "constant")


@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 1000), (1, 60), (2, 59), (1, 1)])
def test_odd_sizes(epochs: int, batch_size: int) -> None:
    _, history = fit(epochs=epochs, batch_size=batch_size)
    assert len(history.loss) == epochs


@pytest.mark.exhaustive
def test_batch_norm_on_two_devices() -> None:
    norm = {"_target_": "torch.nn.BatchNorm1d", "num_features": "{view}"}
    fusion = fusionkit.create("parameterized_concatenation", dims=[4, 3], n=5, preprocess=norm)
    network = Network(fusion, [4, 3], 3, ModelOptions())
    assert fit(network=network, batch_size=29, devices=2)[1].score[-1] > 0.9  # Of 60 rows, 2 would be left.


def test_batch_norm_takes_a_number_of_rows_that_leaves_one_over() -> None:
    class Normed(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(7)

        def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
            out: torch.Tensor = self.layer(self.norm(torch.cat(x, -1)))
            return out

    assert fit(network=Normed(), batch_size=59)[1] == fit(network=Normed(), batch_size=60)[1]


def test_loss_is_the_mean_over_rows_for_any_batch_size() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
            # The gradient is zero, so the loss stays that of the rows: class i has the logit i.
            return torch.arange(3.0).expand(len(x[0]), 3) + 0 * self.bias

    expected = float(nn.functional.cross_entropy(torch.arange(3.0).expand(60, 3), parts()[0].target))
    for batch_size in (7, 16, 60):
        _, history = fit(network=Constant(), batch_size=batch_size, epochs=1)
        assert history.loss[0] == pytest.approx(expected, rel=1e-6)


def test_same_seed_same_weights_bit_for_bit() -> None:
    first, curves = fit(seed=5)
    torch.manual_seed(999)
    second, again = fit(seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert curves == again
    third, _ = fit(seed=6)
    assert not torch.equal(next(first.parameters()), next(third.parameters()))


def test_numbers_that_an_operator_draws_elsewhere_are_seeded_too() -> None:
    class Draws(Linear):
        def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
            return super().forward(x) + float(np.random.rand()) + random.random()

    np.random.seed(1)
    before = random.getstate()
    _, curves = fit(network=Draws())
    assert np.random.rand() == np.random.RandomState(1).rand()
    assert random.getstate() == before
    np.random.seed(2)
    random.seed(2)
    assert fit(network=Draws())[1] == curves


def test_the_number_of_threads_does_not_matter() -> None:
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(fit()[0].state_dict())
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


# -- missing views -----------------------------------------------------------------------------------------------------


class Recorder(Linear):
    """Keeps the masks it gets while training."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[torch.Tensor] = []

    def forward(self, x: list[torch.Tensor], mask: torch.Tensor | None = None) -> torch.Tensor:
        if mask is not None and self.training:
            self.masks.append(mask)
        return super().forward(x)


def test_view_dropout_draws_by_itself() -> None:
    network = Recorder()
    _, curves = fit(network=network, view_dropout=0.25)
    assert curves == fit()[1]  # A network that ignores the masks: order and inputs are as without them.
    masks = torch.cat(network.masks)
    assert masks.shape == (8 * 60, 2)
    assert masks.any(-1).all()
    assert 0.1 < float((~masks).double().mean()) < 0.3
    assert not torch.equal(masks[:60], masks[60:120])
    again = Recorder()
    fit(network=again, view_dropout=0.25)
    assert torch.equal(torch.cat(again.masks), masks)
    assert not fit(network=(other := Recorder()))[0].training
    assert other.masks == []


def test_the_masks_of_the_data_follow_their_rows_and_view_dropout_restores_none() -> None:
    part, test = parts()
    mask = torch.ones(60, 2, dtype=torch.bool)
    mask[part.target == 1, 1] = False
    network = Recorder()
    for view_dropout in (0.0, 0.5):
        network.masks = []
        options = settings(view_dropout=view_dropout, epochs=1)
        train(network, training(Part(part.views, part.target, mask), test, options, 0), "cpu")
        counts = torch.cat(network.masks).sum(0).tolist()
        assert counts == [60, 40] if not view_dropout else counts[1] < 35
        order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
        assert not (torch.cat(network.masks) & ~mask[order]).any()


def test_a_network_learns_to_do_without_a_view() -> None:
    target = torch.arange(90) % 3
    clear = nn.functional.one_hot(target, 4).float()
    vague = clear + 0.3 * torch.randn(90, 4, generator=torch.Generator().manual_seed(2))

    def accuracy(view_dropout: float) -> float:
        torch.manual_seed(0)
        fusion = fusionkit.create("parameterized_concatenation", dims=[4, 4], n=8)
        network = Network(fusion, [4, 4], 3, ModelOptions())
        train(
            network,
            training(Part([10 * clear, vague], target), None, settings(lr=0.02, view_dropout=view_dropout), 0),
            "cpu",
        )
        with torch.no_grad():
            return float((network([None, vague]).argmax(-1) == target).double().mean())

    assert accuracy(0.5) > 0.1 + accuracy(0.0)


def test_the_callers_random_state_is_left_alone() -> None:
    network = Linear()
    state = torch.random.get_rng_state()
    fit(network=network)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weight_decay_is_for_matrices_only() -> None:
    network = Linear()
    before = copy.deepcopy(network.state_dict())
    for parameter in network.parameters():
        parameter.register_hook(torch.zeros_like)
    fit(network=network, weight_decay=0.5, scheduler="constant")
    assert torch.equal(network.layer.bias, before["layer.bias"])
    assert network.layer.weight.abs().sum() < 0.9 * before["layer.weight"].abs().sum()


def test_frozen_parameters_stay() -> None:
    network = Linear()
    network.layer.bias.requires_grad_(False)
    before = network.layer.bias.clone()
    fit(network=network)
    assert torch.equal(network.layer.bias, before)


def test_a_loss_that_becomes_nan_is_an_error_with_its_epoch() -> None:
    class Breaks(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
            self.calls += self.training
            return super().forward(x) * (float("nan") if self.calls == 10 else 1.0)  # 4 steps per epoch: the third

    sentence = "The training loss … found nan in epoch 3 of 8. A smaller train.lr than 0.2 may help."
    with pytest.raises(FusionError, match=like(sentence)):
        fit(network=Breaks())


def test_a_learning_rate_out_of_bounds_diverges_with_an_error() -> None:
    with pytest.raises(FusionError, match=r"^The training loss should .*found (nan|inf) in epoch \d of 8\."):
        fit(lr=1e38, optimizer="sgd", scheduler="constant")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precision(precision: str, capfd: pytest.CaptureFixture[str]) -> None:
    network, history = fit(precision=precision)
    assert history.score[-1] > 0.9
    expected = {"bf16-mixed": torch.float32, "bf16-true": torch.bfloat16, "64-true": torch.float64}[precision]
    assert next(network.parameters()).dtype == expected
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("view_dropout", "missing"), [(0.4, None), *exhaustive([(0.0, None), (0.0, "placeholder")])])
def test_two_processes_agree_with_one_and_drop_the_same(
    view_dropout: float, missing: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    network = Network(
        fusionkit.create("parameterized_concatenation", dims=[4, 3], n=5, missing=missing),
        [4, 3],
        3,
        ModelOptions(encoder="linear"),
        0.3,
    )
    twin = copy.deepcopy(network)
    _, alone = fit(network=network, lr=0.02, view_dropout=view_dropout)
    _, together = fit(network=twin, lr=0.02, view_dropout=view_dropout, devices=2)
    assert capfd.readouterr() == ("", "")
    assert together.loss == pytest.approx(alone.loss, rel=1e-5)
    assert together.score == alone.score
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("processes", "batch_size"), [(3, 29), (2, 19)])
def test_processes_agree_with_one_where_some_have_no_row_of_the_last_batch(processes: int, batch_size: int) -> None:
    network = Network(fusionkit.create("parameterized_concatenation", dims=[4, 3], n=5), [4, 3], 3, ModelOptions(), 0.3)
    twin = copy.deepcopy(network)
    _, alone = fit(network=network, lr=0.02, batch_size=batch_size)
    _, together = fit(network=twin, lr=0.02, batch_size=batch_size, devices=processes)
    assert together.loss == pytest.approx(alone.loss, rel=1e-5)
    assert together.lr == alone.lr
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


FABRICATIONS: list[Any] = [None, {"name": "lowrank", "r": 2}, {"name": "kronecker", "p": 2, "q": 2}]


def networks(fabrications: Sequence[Any]) -> nn.ModuleList:
    """Return a network for each of the fabrications of W."""
    torch.manual_seed(0)
    made = nn.ModuleList()
    for one in fabrications:
        fusion = fusionkit.create("parameterized_concatenation", dims=[4, 4], n=6, parameter_fabrication=one)
        made.append(Network(fusion, [4, 3], 3, ModelOptions(encoder="linear", encoder_width=4), 0.1))
    return made


def five_steps(process: Any, made: Any, strategy: str) -> tuple[dict[str, torch.Tensor], Any]:
    """Train each network by five steps; return all tensors, and the losses."""
    options = settings(epochs=1, batch_size=12, lr=0.02, strategy=strategy)
    found = [_fit(process, network, training(*parts(), options, 0)) for network in made]
    tensors = {f"{i}.{name}": tensor for i, (state, _) in enumerate(found) for name, tensor in state.items()}
    return tensors, [history["loss"] for _, history in found]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("strategy", "fabrications"), [("fsdp", FABRICATIONS), ("by_output", FABRICATIONS[:2])])
def test_processes_that_share_the_parameters_train_as_one(strategy: str, fabrications: Sequence[Any]) -> None:
    alone, losses = five_steps(_Process(torch.device("cpu")), networks(fabrications), strategy)
    fit = partial(five_steps, strategy=strategy)
    task = Task(fit, networks(fabrications), torch.device("cpu"), settings(strategy=strategy), False)
    found, other = run(task, 2)
    assert found.keys() == alone.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, alone[name], rtol=0, atol=3e-5)
    assert np.ravel(other) == pytest.approx(np.ravel(losses), rel=1e-5)


class Scaled(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


def test_parameters_that_cannot_be_shared_are_named() -> None:
    with pytest.raises(FusionError, match=like("train.strategy should be ddp … found fsdp and scale.")):
        _sharded(Scaled(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (Linear, "Linear"),
        (lambda: Network(fusionkit.create("concatenation", dims=[4, 3]), [4, 3], 3, ModelOptions()), "concatenation"),
        (lambda: networks(FABRICATIONS)[2], "parameterized_concatenation with kronecker"),
    ],
)
def test_a_fusion_without_a_W_to_share_is_named(make: Callable[[], nn.Module], found: str) -> None:
    sentence = f"train.strategy should be by_output for … found it for {found}.  fsdp"
    with pytest.raises(ConfigError, match=like(sentence)):
        fit(network=make(), strategy="by_output")  # In one process, as in several.


def test_all_devices_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "cpu_count", lambda: 3)
    assert trainings._processes(torch.device("cpu"), settings(devices="auto")) == 3
    with pytest.raises(ConfigError, match=like("train.precision should be 32-true, … found '64-true'.")):
        trainings._processes(torch.device("cpu"), settings(strategy="by_output", precision="64-true"))


class Raises(Linear):
    """A stranger's mistake."""

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        raise ValueError("a mistake")


@pytest.mark.exhaustive
def test_an_unexpected_error_in_a_process_is_one_sentence() -> None:
    sentence = "The training processes … found ValueError: a mistake"
    with pytest.raises(FusionError, match=like(sentence)) as caught:
        fit(network=Raises(), devices=2)
    assert "ValueError" in str(caught.value.__cause__)


@pytest.mark.exhaustive
def test_an_error_in_a_process_is_the_error_of_the_run() -> None:
    with pytest.raises(FusionError, match=r"^The training loss should .*found (nan|inf) in epoch \d of 8\."):
        fit(lr=1e38, optimizer="sgd", scheduler="constant", devices=2)


def test_progress_on_a_pipe_is_a_few_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    train(Linear(), training(*parts(), settings(epochs=10), 0, progress="training it"), "cpu")
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines.pop(0) == "training it"
    assert [line.split("  ")[0] for line in lines] == [f"epoch {epoch}/10" for epoch in (1, 2, 4, 6, 8, 10)]
    assert all(re.fullmatch(r"epoch \d+/10  loss \d\.\d{4}  accuracy [01]\.\d{4}", line) for line in lines)


def test_long_epochs_print_a_line_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    with _Display(50, "accuracy", "", lambda: clock[0]) as progress:
        for epoch in range(1, 9):
            clock[0] += 11
            progress.ended(epoch, 0.5, None)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/50  loss 0.5000  accuracy undefined  539 s left",
        "epoch 4/50  loss 0.5000  accuracy undefined  506 s left",
        "epoch 7/50  loss 0.5000  accuracy undefined  473 s left",
    ]


def test_an_interruption_ends_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.multiprocessing.spawn import ProcessContext

    def join(self: ProcessContext, *args: Any, **kwargs: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(ProcessContext, "join", join)
    before = multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt):
        fit(devices=2, epochs=10**6)
    assert multiprocessing.active_children() == before


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    train(Linear(), training(*parts(), settings(epochs=4), 0, progress=""), "cpu")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert re.search(r"epoch 4/4 .* loss \d\.\d{4}  accuracy [01]\.\d{4}", text)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_half_precision_needs_an_accelerator() -> None:
    sentence = "train.precision … found '16-mixed'."
    with pytest.raises(ConfigError, match=like(sentence)):
        fit(precision="16-mixed")


def test_the_meta_device_computes_nothing() -> None:
    sentence = "device … found 'meta'."
    with pytest.raises(ConfigError, match=like(sentence)):
        train(Linear(), training(*parts(), settings(), 0), "meta")


def test_a_device_that_does_not_exist() -> None:
    with pytest.raises(FusionError, match=r"^device should .*found 'cuda:99'"):
        train(Linear(), training(*parts(), settings(), 0), "cuda:99")


# -- the best epoch ----------------------------------------------------------------------------------------------------


class Scores(nn.Module):
    """Predicts so that the metric of epoch i is the i-th of the given numbers; its parameter counts the epochs."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores, self.epoch = scores, nn.Parameter(torch.zeros(1))
        self.counted = -1

    def train(self, mode: bool = True) -> Scores:
        if mode and self.counted + 1 < len(self.scores):
            self.counted += 1
            self.epoch.data.fill_(self.counted)
        return super().train(mode)

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        """Return outputs of which the given share is right, for targets of class 1."""
        rows = len(x[0])
        right = torch.arange(rows) < round(self.scores[int(self.epoch)] * rows)
        return torch.stack([~right, right], -1).float() * 9 + 0 * self.epoch


def chosen(
    scores: list[float], metric: str = "accuracy", *, chooses: bool = True, classes: int = 1, **changes: Any
) -> tuple[Scores, Any]:
    """Train for the scores on 10 rows of class 1, which choose the epoch."""
    network, part = Scores(scores), Part([torch.zeros(10, 1)], torch.full((10,), classes))
    shown = Monitored(part, part.target.numpy(), metric, chooses)
    options = settings(**{"epochs": len(scores), "lr": 1e-9, "scheduler": "constant", **changes})
    given = Training(Classification([0, 1]), part, part.target.numpy(), shown, options, 0)
    return network, train(network, given, "cpu")


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.1, 0.5, 0.3], 2), ([0.5, 0.5, 0.5], 1), ([0.1, 0.9, 0.9, 0.2], 2), ([0.0, 0.0], 1), ([0.1, 0.2, 0.3], 3)],
)
def test_the_model_is_that_of_the_first_of_the_best_epochs(scores: list[float], best: int) -> None:
    network, history = chosen(scores)
    assert history.score == pytest.approx(scores)
    assert (history.best_epoch, int(network.epoch)) == (best, best - 1)
    network, history = chosen(scores, chooses=False)  # A test part chooses nothing.
    assert (history.best_epoch, int(network.epoch)) == (len(scores), len(scores) - 1)


def test_less_is_better_for_some_metrics() -> None:
    assert chosen([0.1, 0.9, 0.3], "log_loss")[1].best_epoch == 2
    network, part = Linear(), Part([torch.zeros(10, 4), torch.zeros(10, 3)], torch.arange(10.0)[:, None])
    network.layer = nn.Linear(7, 1)
    shown = Monitored(part, np.arange(10.0)[:, None], "rmse", chooses=True)
    task = Regression(["y"], [0.0], [1.0])
    history = train(network, Training(task, part, shown.target, shown, settings(lr=3.0, optimizer="sgd"), 0), "cpu")
    scores = [score for score in history.score if score is not None]
    assert history.best_epoch == 1 + int(np.argmin(scores)) < 8
    output = network([torch.zeros(10, 4), torch.zeros(10, 3)]).detach().numpy()
    found = float(np.sqrt(np.mean((output - shown.target) ** 2)))
    assert found == pytest.approx(min(scores), rel=1e-6)


@pytest.mark.parametrize(
    ("scores", "patience", "epochs"),
    [
        ([0.5, 0.4, 0.4, 0.4, 0.9], 2, 3),
        ([0.5, 0.5, 0.6, 0.1, 0.9], 2, 5),
        ([0.5, 0.5, 0.5], 1, 2),
        ([0.1, 0.2, 0.3], 1, 3),
        ([0.3, 0.2, 0.1], 9, 3),
        ([0.3, 0.2, 0.1], None, 3),
    ],
)
def test_patience_stops_after_epochs_without_a_better_one(scores: list[float], patience: Any, epochs: int) -> None:
    _, history = chosen(scores, patience=patience)
    assert len(history.loss) == len(history.score) == len(history.lr) == epochs


def test_the_schedule_is_not_shortened() -> None:
    scores = [0.5, 0.4, 0.4, 0.4, 0.9]
    whole, stopped = (chosen(scores, patience=p, scheduler="onecycle", lr=0.1)[1].lr for p in (None, 2))
    assert stopped == whole[:3]


def test_a_metric_that_is_always_undefined_stops_nothing_and_leaves_the_last_model() -> None:
    network, history = chosen([0.1, 0.5, 0.3], "roc_auc", patience=1)
    assert history.score == [None, None, None]
    assert (history.best_epoch, int(network.epoch)) == (3, 2)


def test_stop_ends_a_training_with_the_schedule_of_all_epochs() -> None:
    part, shown = parts()
    whole, stopped = Linear(), Linear()
    curves = [
        train(network, training(part, shown, settings(), 0, stop=stop), "cpu")
        for network, stop in ((whole, None), (stopped, 3))
    ]
    assert curves[1].loss == curves[0].loss[:3]
    assert curves[1].lr == curves[0].lr[:3]
    assert curves[1].best_epoch == 3


def test_the_weights_are_those_of_the_best_epoch() -> None:
    part, shown = parts()
    given = training(part, shown, settings(lr=0.01), 0)
    assert given.monitored is not None
    given.monitored.chooses, given.monitored.metric = True, "accuracy"
    network, again = Linear(), Linear()
    history = train(network, given, "cpu")
    assert 1 < history.best_epoch < 8  # The first at which all are right.
    train(again, training(part, shown, settings(lr=0.01), 0, stop=history.best_epoch), "cpu")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


@pytest.mark.exhaustive
def test_two_processes_choose_the_epoch_of_one() -> None:
    part, shown = parts()
    found = []
    for devices in (1, 2):
        network = Network(fusionkit.create("parameterized_concatenation", dims=[4, 3], n=5), [4, 3], 3, ModelOptions())
        given = training(part, shown, settings(lr=0.02, devices=devices, patience=2), 0)
        assert given.monitored is not None
        given.monitored.chooses = True
        torch.manual_seed(0)
        found.append(train(network, given, "cpu"))
    assert found[0].best_epoch == found[1].best_epoch
    assert found[0].score == found[1].score


# -- weights -----------------------------------------------------------------------------------------------------------


def weighted(weight: torch.Tensor | None, **changes: Any) -> tuple[nn.Module, Any]:
    part, shown = parts()
    part.weight = weight
    network = Linear()
    network.dropout.p = 0.0
    return network, train(network, training(part, shown, settings(**changes), 0), "cpu")


def test_weights_of_1_change_nothing() -> None:
    (first, curves), (second, again) = weighted(None), weighted(torch.ones(60))
    assert again.loss == pytest.approx(curves.loss)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_weights_follow_their_rows() -> None:
    part, _ = parts()
    weight = torch.linspace(0, 2, 60)
    with torch.no_grad():
        network = Linear()
        losses = nn.functional.cross_entropy(network.layer(torch.cat(part.views, -1)), part.target, reduction="none")
    _, history = weighted(weight, epochs=1, lr=1e-30)  # The network stays as it was.
    assert history.loss[0] == pytest.approx(float((weight * losses).mean()), rel=1e-5)


def test_rows_of_weight_0_teach_nothing() -> None:
    part, shown = parts()
    weight = (torch.arange(60) % 2).float()
    wrong = Part(part.views, torch.where(weight > 0, part.target, 2 - part.target), None, weight)
    found = []
    for one in (Part(part.views, part.target, None, weight), wrong):
        network = Linear()
        train(network, training(one, shown, settings(), 0), "cpu")
        found.append(network)
    assert all(torch.equal(a, b) for a, b in zip(found[0].parameters(), found[1].parameters(), strict=True))


@pytest.mark.exhaustive
def test_two_processes_agree_about_weights() -> None:
    part, shown = parts()
    part.weight = torch.linspace(0, 2, 60)
    found = []
    for devices in (1, 2):
        torch.manual_seed(0)
        network = Network(fusionkit.create("parameterized_concatenation", dims=[4, 3], n=5), [4, 3], 3, ModelOptions())
        found.append(train(network, training(part, shown, settings(lr=0.02, devices=devices), 0), "cpu"))
    assert found[1].loss == pytest.approx(found[0].loss, rel=1e-5)


# -- a loss of the fusion ----------------------------------------------------------------------------------------------


def gated(operator: type[Says] = Balanced, head: str = "linear") -> Network:
    torch.manual_seed(0)
    options = ModelOptions.model_validate({"encoder": "linear", "head": head})
    return Network(operator(dims=[3, 3]), [4, 3], 3, options, 0.2)


def reference(network: Network, factor: float, weight: Any = None, mask: Any = None, epochs: int = 3) -> list[float]:
    """Train by SGD at a constant rate, in a plain loop; return the loss of each epoch."""
    part, losses, order = parts()[0], [], torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    for _ in range(epochs):
        total = 0.0
        for index in torch.randperm(60, generator=order).split([16, 16, 16, 12]):
            rows = None if mask is None else mask[index]
            views = [network.dropout(view[index]) for view in part.views]
            if rows is not None:
                views = [torch.where(rows[:, i, None], view, 0.0) for i, view in enumerate(views)]
            encoded = [encode(view) for encode, view in zip(network.encoders, views, strict=True)]
            said = network.fusion.explain(encoded, mask=rows)
            output = network.head(network.activation(said["output"]))
            each = nn.functional.cross_entropy(output, part.target[index], reduction="none")
            own = said["weights"].square().sum(-1).mean()
            loss = (each * (1 if weight is None else weight[index])).mean() + factor * own
            network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=0.1)
            total += float(loss.detach()) * len(index) / 60
        losses.append(total)
    return losses


@pytest.mark.parametrize("head", ["linear", "none"])
@pytest.mark.parametrize("extra", [(), ("weight",), ("mask",)])
def test_the_loss_of_the_fusion_is_trained_and_recorded(
    head: str, extra: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "sgd", plain_sgd)
    options = settings(lr=0.1, optimizer="sgd", scheduler="constant", epochs=3)
    generator = torch.Generator().manual_seed(2)
    weight = torch.rand(60, generator=generator) * 3 if "weight" in extra else None
    mask = torch.rand(60, 2, generator=generator) > 0.3 if "mask" in extra else None
    losses = {}
    for operator, factor in ((Balanced, 3.0), (Says, 0.0)):
        network, twin = gated(operator, head), gated(operator, head)
        part = replace(parts()[0], weight=weight, mask=mask)
        losses[factor] = train(network, training(part, None, options, 0), "cpu").loss
        assert losses[factor] == pytest.approx(reference(twin, factor, weight, mask), rel=1e-5)
        for a, b in zip(network.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert losses[3.0][0] > losses[0.0][0] + 1


def plain_sgd(parameters: list[torch.Tensor], gradients: list[torch.Tensor], *_: Any, lr: float, **__: Any) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.sub_(gradient, alpha=lr)


def test_a_fusion_without_a_loss_is_trained_by_its_forward_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def explain(self: Says, x: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        calls.append(len(x[0]))
        return {}

    monkeypatch.setattr(Says, "explain", explain)
    fit(network=gated(Says), epochs=2)
    assert calls == [1]  # Whether there is a loss: a row of zeros.


@pytest.mark.parametrize("batch_size", [16, *exhaustive([21])])
def test_two_processes_agree_with_one_on_the_loss_of_the_fusion(
    batch_size: int, capfd: pytest.CaptureFixture[str]
) -> None:
    network, twin = gated(), gated()
    options: dict[str, Any] = {"lr": 0.02, "batch_size": batch_size, "view_dropout": 0.3, "epochs": 3}
    _, alone = fit(network=network, **options)
    _, together = fit(network=twin, **options, devices=2)
    assert capfd.readouterr() == ("", "")
    assert together.loss == pytest.approx(alone.loss, rel=1e-5)
    assert together.loss[0] > fit(network=gated(Says), **options)[1].loss[0] + 1
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", *exhaustive(["bf16-true", "64-true"])])
def test_the_loss_of_the_fusion_in_another_precision(precision: str) -> None:
    _, history = fit(network=gated(), precision=precision, epochs=3)
    assert history.loss == pytest.approx(fit(network=gated(), epochs=3)[1].loss, rel=0.05)


# -- nothing to train --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"devices": 2}, {"precision": "bf16-mixed"}, {"optimizer": "sgd"}])
def test_a_network_without_parameters_is_only_measured(more: dict[str, Any]) -> None:
    options = ModelOptions.model_validate({"head": "none"})
    network = Network(fusionkit.create("average", dims=[3, 3]), [3, 3], 3, options)
    part = Part([nn.functional.one_hot(torch.arange(60) % 3).float()] * 2, torch.arange(60) % 3)
    history = train(network, training(part, part, settings(**more), 0), "cpu")
    loss = float(nn.functional.cross_entropy(part.views[0], part.target))
    assert history.loss == pytest.approx([loss] * 8)
    assert history.score == [1.0] * 8


@pytest.mark.filterwarnings("ignore:The .srun. command is available")
def test_a_gradient_scaler_goes_on(tmp_path: Path) -> None:
    def fabric() -> Fabric:
        # On the CPU, where only this test asks for it; the scale doubles after three steps.
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        return Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    def scaled(stop: int, checkpoints: Checkpoints) -> Any:
        network = Network(fusionkit.create("parameterized_concatenation", dims=[4, 3], n=5), [4, 3], 3, ModelOptions())
        given = training(*parts(), settings(lr=0.02), 0, stop=stop, checkpoints=checkpoints)
        process = fabric()
        return *_fit(process, network, given), process.strategy.precision.state_dict()

    about = {"config": {}, "config_hash": "", "data": "", "versions": {}}
    checkpoints = Checkpoints(tmp_path, 2, about, begun=0.0)
    torch.manual_seed(0)
    state, history, scale = scaled(8, checkpoints)
    assert scale["scale"] == 8.0 * 2 ** (8 * 4 // 3)
    torch.manual_seed(0)
    scaled(5, checkpoints)
    found, _ = newest(tmp_path)
    assert found is not None
    assert (found.epoch, found.facts.gradient_scaler["scale"]) == (4, 8.0 * 2 ** (4 * 4 // 3))
    again = scaled(8, replace(checkpoints, found=found))
    assert again[1:] == (history, scale)
    assert all(torch.equal(again[0][name], state[name]) for name in state)
