from __future__ import annotations

import functools
import gc
import logging
import re
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from hydra.core.global_hydra import GlobalHydra

import fusionkit
from fusionkit import registry
from fusionkit.contract.guard import world
from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.report import Report
from fusionkit.contract.runner import Plan, run
from fusionkit.contract.subject import Subject
from fusionkit.registry import lookup
from tests.contract import bad_operators as bad
from tests.contract.mutants.right import Mix, Thin, Total
from tests.contract.mutants.state import Detached
from tests.exhaustive import exhaustive


def only(report: Report) -> str:
    reasons = {result.reason for result in report.bad}
    assert len(reasons) == 1, report
    return reasons.pop()


@pytest.mark.exhaustive
def test_first_party_passes() -> None:
    names = ["summation", "average", "concatenation", "parameterized_concatenation", "dense", "lowrank"]
    report = fusionkit.check(names, tier=1)
    assert report.ok, report
    assert {result.subject for result in report.results} == {f"fusionkit/{name}" for name in names}
    assert {(result.distribution, result.version) for result in report.results} == {
        ("tensor-fusionkit", fusionkit.__version__)
    }


def test_name_class_and_instance_are_the_same_subject() -> None:
    op = fusionkit.create("concatenation", dims=[2, 3])
    for obj in ("concatenation", "concat", "fusionkit/concatenation", type(op), op):
        report = fusionkit.check(obj, select=["forward_shape"])
        assert report.ok
        assert {result.subject for result in report.results} == {"fusionkit/concatenation"}
    assert {result.case for result in report.results} == {"dims=[2, 3]"}


def test_unregistered_class_is_named_by_its_path() -> None:
    (result,) = fusionkit.check(Total, select=["n_matches_output"]).results[:1]
    assert (result.subject, result.distribution, result.version) == ("tests.contract.mutants.right:Total", None, None)
    (same,) = fusionkit.check("tests.contract.mutants.right:Total", select=["n_matches_output"]).results[:1]
    assert same.subject == "tests.contract.mutants.right:Total"


@pytest.mark.exhaustive
def test_instance_that_cannot_be_rebuilt() -> None:
    op = fusionkit.create("metric", dims=[3, 3], metric=functools.partial(torch.sum, keepdim=False))
    report = fusionkit.check(op, tier=1)
    assert report.ok, report
    skipped = [result.reason for result in report.results if result.status == "skipped"]
    assert any("metric" in reason for reason in skipped)
    assert len(skipped) < len(report.results) / 2


@pytest.mark.parametrize("name", ["summation", *exhaustive(["parameterized_concatenation"])])
def test_an_instance_is_checked_without_its_processing(name: str) -> None:
    """Which has none of its traits."""
    op = fusionkit.create(name, dims=[4, 4], preprocess=["layer_norm", torch.tanh], postprocess="linear")
    before = {key: value.clone() for key, value in op.state_dict().items()}
    report = fusionkit.check(op)
    assert report.ok, report
    assert {result.case for result in report.results} <= {"dims=[4, 4]", ""}
    assert op.preprocess is not None
    assert all(torch.equal(op.state_dict()[key], value) for key, value in before.items())


def test_instance_keeps_its_parameters() -> None:
    op = fusionkit.create("parameterized_concatenation", dims=[2, 3], n=2)
    before = op.flat_w().clone()
    assert fusionkit.check(op, tier=1).ok
    assert torch.equal(op.flat_w(), before)


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ("nope", "'nope'"),
        ("parametrized_concatenation", "Did you mean 'parameterized_concatenation'"),
        ("no_such_module:Class", "'no_such_module:Class' should be an importable 'module:Class'; found no module"),
        ("fusionkit.fusion:Fusoin", "found no 'Fusoin' in fusionkit.fusion. Did you mean 'Fusion'"),
        ("fusionkit.fusions.medain:Median", "found no module 'medain' in fusionkit.fusions. Did you mean 'median'"),
        ("tests.contract.mutants.right:Mix.Inner", "found no 'Inner' in tests.contract.mutants.right.Mix"),
        (
            "tests.contract.mutants.deep:Mix",
            "should be an importable 'module:Class'; found no module 'deep' in tests.contract.mutants",
        ),
        ("tests.run_records:", "'tests.run_records:' should be an importable 'module:Class'; found no '' in tests."),
        (":Mix", "':Mix' should be an importable 'module:Class'; found ValueError: Empty module name"),
        (
            "tests.contract.mutants.right:Nope",
            "'tests.contract.mutants.right:Nope' should be an importable 'module:Class';"
            " found no 'Nope' in tests.contract.mutants.right",
        ),
        ("torch.nn:Linear", "should be a subclass of fusionkit.Fusion or fusionkit.Fabrication; found"),
        (torch.nn.Linear(1, 1), "what is checked should be a name, 'module:Class', a subclass or an instance"),
        (3, "what is checked should be a name"),
    ],
)
def test_unknown_subject(obj: Any, message: str) -> None:
    with pytest.raises(fusionkit.RegistryError, match=message):
        fusionkit.check(obj)


def test_unknown_kind() -> None:
    with pytest.raises(fusionkit.RegistryError, match=r"the kind should .*found 'fussion'"):
        fusionkit.check("summation", kind="fussion")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": ["gradchek"]}, "select should name checks; found 'gradchek'. Did you mean 'gradcheck'"),
        ({"skip": ["nope"]}, "skip should name checks; found 'nope'"),
        ({"tier": 4}, "tier should be 1, 2 or 3; found 4"),
        ({"time_limit": 0}, "the time limit should be a positive number of seconds; found 0"),
        ({"expected_failures": {"nope": "why"}}, "expected_failures should name checks; found 'nope'"),
        (
            {"expected_failures": {"gradcheck": " "}},
            r"expected_failures\['gradcheck'\] should say why the check fails; found ' '",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(fusionkit.ConfigError, match=message):
        fusionkit.check("summation", **options)


def test_select_and_skip() -> None:
    report = fusionkit.check("summation", select=["*_dims", "check_gradcheck"], skip="wrong_dims")
    assert {result.check for result in report.results} >= {"leading_dims", "gradcheck"}
    assert "wrong_dims" not in {result.check for result in report.results}
    assert "n_matches_output" not in {result.check for result in report.results}


def test_same_seed_same_report() -> None:
    first, second = (fusionkit.check(Detached, select=["gradcheck"], seed=3) for _ in range(2))
    assert [result.reason for result in first.results] == [result.reason for result in second.results]


def test_stop_at_first_failure() -> None:
    plan = Plan.of(select=["n_matches_output", "l_matches_parameters"], stop=True)
    report = run(subjects_of([bad.RaisesInConstructor, Total]), plan)
    assert {result.check for result in report.results} == {"n_matches_output"}


# ---------------------------------------------------------------------- programs that misbehave


def test_raises_in_constructor() -> None:
    report = fusionkit.check(bad.RaisesInConstructor, select=["forward_shape", "gradcheck"])
    assert {result.status for result in report.results} == {"failed"}
    assert {result.check for result in report.results} == {"forward_shape", "gradcheck"}
    reason = "the constructor should build dims=[4, 4, 4]; found RuntimeError: no constructor today"
    assert re.fullmatch(rf"{re.escape(reason)} \(at bad_operators\.py:\d+\)", report.results[0].reason)


def test_raises_in_examples() -> None:
    reason = only(fusionkit.check(bad.RaisesInExamples, select=["forward_shape", "gradcheck"]))
    assert reason.startswith("examples() should yield at least one set of keywords for the constructor; found Runtime")
    assert "no examples today (at bad_operators.py:" in reason


def test_no_examples() -> None:
    assert "examples() should yield at least one set of keywords for the constructor; found []" in only(
        fusionkit.check(bad.NoExamples, select=["forward_shape"])
    )


def test_exits_in_examples() -> None:
    assert "SystemExit: 5" in only(fusionkit.check(bad.ExitsInExamples, select=["forward_shape"]))


def test_hangs_in_examples() -> None:
    assert "keywords for the constructor within 0.3 s; found that it did not" in only(
        fusionkit.check(bad.HangsInExamples, select=["forward_shape"], time_limit=0.3)
    )


def test_raises_in_calculate_l() -> None:
    report = fusionkit.check(bad.RaisesInL, select=["l_matches_parameters", "forward_shape"])
    assert {result.check for result in report.bad} == {"l_matches_parameters"}
    assert all(result.reason.endswith("found KeyError: 'no l today'") for result in report.bad), report


def test_hangs() -> None:
    start = time.perf_counter()
    report = fusionkit.check(bad.Hangs, select=["forward_shape", "l_matches_parameters"], time_limit=0.3)
    assert time.perf_counter() - start < 20
    assert {(result.check, result.status) for result in report.results} == {
        ("forward_shape", "error"),
        ("l_matches_parameters", "passed"),
    }
    assert only(report) == "forward_shape should finish within 0.3 s; found that it did not"


def test_what_hangs_costs_the_time_limit_a_few_times_only() -> None:
    names = ["forward_shape", "deterministic", "leading_dims", "gradcheck", "l_matches_parameters"]
    report = fusionkit.check(bad.Hangs, select=names, time_limit=0.2)
    hung = [result for result in report.bad if result.timed_out]
    assert len(hung) == len({result.check for result in hung}) == 3
    assert len(report.bad) == 4
    assert {result.check for result in report.results if result.status == "passed"} == {"l_matches_parameters"}
    assert (
        report.bad[-1].reason
        == "gradcheck should run; found that 3 checks before it did not finish in time, so it was left out"
    )


@pytest.mark.parametrize("op", ["zero", *exhaustive(["median"])])
def test_instances_without_parameters(op: str) -> None:
    options: dict[str, Any] = {"parameter_fabrication": "zero", "n": 3} if op == "zero" else {}
    made = fusionkit.create("parameterized_concatenation" if options else op, dims=[4, 4], **options)
    assert fusionkit.check(made, tier=1).ok


def test_instances_that_cannot_be_checked() -> None:
    with pytest.raises(fusionkit.ConfigError, match=r"^An operator that is checked should .*found median wi"):
        fusionkit.check(fusionkit.create("median"))
    bare = fusionkit.create("parameterized_concatenation", dims=[4, 3], n=5, require_parameters=False)
    with pytest.raises(fusionkit.ConfigError, match=r"should own its parameters; found parameterized_concatenation w"):
        fusionkit.check(bare)


def test_hangs_outside_the_main_thread() -> None:
    reports: list[Report] = []

    def work() -> None:
        reports.append(fusionkit.check(bad.HangsInExamples, select=["forward_shape"], time_limit=0.3))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert "keywords for the constructor within 0.3 s; found that it did not" in only(reports[0])


def test_exits() -> None:
    report = fusionkit.check(bad.Exits, select=["forward_shape"])
    assert {result.status for result in report.results} == {"error"}
    assert only(report) == "the operator should not end the interpreter; found SystemExit(3)"


def test_exits_in_constructor() -> None:
    report = fusionkit.check(bad.ExitsInConstructor, select=["forward_shape"])
    assert {result.status for result in report.results} == {"error"}
    assert only(report) == "the operator should not end the interpreter; found SystemExit(4)"


def test_raises_keyboard_interrupt() -> None:
    report = fusionkit.check([bad.Interrupts, Total], select=["forward_shape"])
    assert {result.subject for result in report.bad} == {"tests.contract.bad_operators:Interrupts"}
    assert only(report) == "the check should end without an unexpected error; found KeyboardInterrupt"
    assert any(result.status == "passed" for result in report.results)


@pytest.mark.usefixtures("interruptible")
def test_user_interrupts() -> None:
    def check_waits(subject: Subject) -> None:
        signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(subjects_of(Total), Plan((check_waits,)))
    assert signal.getsignal(signal.SIGINT) is handler


def test_examples_without_end() -> None:
    assert only(fusionkit.check(bad.YieldsForever, select=["forward_shape"])) == (
        "examples() should yield at least one set of keywords for the constructor, and at most 1000; found more"
    )


def test_prints(capsys: pytest.CaptureFixture[str]) -> None:
    report = fusionkit.check(bad.Prints, select=["gradcheck", "l_matches_parameters"])
    assert {(result.check, result.status) for result in report.results} == {
        ("gradcheck", "failed"),
        ("l_matches_parameters", "passed"),
    }
    assert only(report).startswith("the operator should print nothing; found 'hello from the operator")
    assert capsys.readouterr().out == ""


def test_closes_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    report = fusionkit.check(bad.ClosesOutput, select=["forward_shape"])
    assert {result.status for result in report.results} == {"failed"}
    assert only(report) == "the operator should leave the standard streams open; found that it closed sys.stdout"
    print("still open")
    assert capsys.readouterr().out == "still open\n"


def test_leaves_a_thread() -> None:
    (result, *_) = fusionkit.check(bad.LeavesThread, select=["idempotent_calls"]).bad
    assert result.reason == "a call should leave no thread behind; found ['left behind']"


@pytest.mark.parametrize(
    ("cls", "found"), [(bad.ReturnsTuple, "tuple"), (bad.ReturnsArray, "ndarray"), (bad.ReturnsNone, "None")]
)
def test_returns_no_tensor(cls: type, found: str) -> None:
    report = fusionkit.check(cls, select=["forward_shape", "gradcheck"])
    assert {result.status for result in report.results} == {"failed"}
    assert only(report) == f"forward should return a tensor; found {found}"


def test_returns_no_dense_tensor() -> None:
    report = fusionkit.check(bad.ReturnsSparse, select=["forward_shape", "gradcheck"])
    assert {result.status for result in report.results} == {"failed"}
    assert only(report) == "forward should return a dense tensor; found torch.sparse_coo"


# ---------------------------------------------------------------------- traces


def test_leaves_no_trace() -> None:
    before = world()
    report = fusionkit.check([bad.LeavesTraces, "summation"], tier=1)
    assert report.results
    assert world() == before


def _everything() -> dict[str, Any]:
    """Return what a run may not change, in comparable form."""
    return {
        **world(),
        "torch's flags": (
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            torch.is_anomaly_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.backends.mkldnn.enabled,
        ),
        "dynamo": torch._dynamo.config.get_config_copy(),
        "inductor": torch._inductor.config.get_config_copy(),
        "path": list(sys.path),
        "streams": (sys.stdout, sys.stderr),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "garbage": gc.isenabled(),
        "logging": (logging.root.manager.disable, logging.root.level, list(logging.root.handlers)),
        "signals": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)),
        "hydra": GlobalHydra.instance().is_initialized(),
        "threads": threading.active_count(),
        "registry": lookup.current_snapshot(),
    }


@pytest.mark.exhaustive
def test_the_kit_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An empty cache: on what torch's compiler has compiled before, it does less.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    names = ["compile_fullgraph", "export", "l_property", "autocast", "config_*", "functional", "seeding", "import_*"]
    selection = [*names, "init_statistics", "activation_checkpoint", "thread_safety", "fake_tensor", "factory_kwargs"]
    assert fusionkit.check("view_lowrank", select=selection).ok  # What is imported or warmed up by then, stays so.
    before, modules = _everything(), set(sys.modules)
    report = fusionkit.check("lowrank", select=selection)
    assert report.ok, report
    after = _everything()
    changed = {what: (before[what], after[what]) for what in before if before[what] != after[what]}
    assert changed == {}
    imported = {module for module in set(sys.modules) - modules if module.partition(".")[0] == "fusionkit"}
    assert imported <= {"fusionkit.fabrications.lowrank"}


def test_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = fusionkit.check("lowrank", select=["l_property", "safetensors", "export", "state_dict"])
    assert report.ok
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- expected failures and plugins' checks


def test_expected_failure() -> None:
    report = fusionkit.check(Detached, select=["gradcheck"], expected_failures={"gradcheck": "cuts the graph"})
    assert report.ok
    assert {result.status for result in report.results} == {"xfailed"}
    assert report.results[0].reason.startswith("cuts the graph (the gradients of views and parameters should agree")


def test_unexpected_pass() -> None:
    report = fusionkit.check(Mix, select=["gradcheck"], expected_failures={"gradcheck": "cuts the graph"})
    assert not report.ok
    assert only(report) == "this check was expected to fail (cuts the graph); it passed"
    assert {result.status for result in report.results} == {"xpassed"}


class Excused(Detached):
    expected_failures: ClassVar[dict[str, str]] = {"gradcheck": "cuts the graph"}


def test_expected_failures_of_a_class_and_of_one_subject() -> None:
    assert {r.status for r in fusionkit.check(Excused, select=["gradcheck"]).results} == {"xfailed"}
    report = fusionkit.check(
        [Detached, Mix], select=["gradcheck"], expected_failures={"Detached": {"gradcheck": "cuts the graph"}}
    )
    assert {(r.subject.rpartition(":")[2], r.status) for r in report.results} == {
        ("Detached", "xfailed"),
        ("Mix", "passed"),
    }
    with pytest.raises(fusionkit.ConfigError, match=r"name subjects that are checked; found 'Detachd'. Did you mean"):
        fusionkit.check(Detached, expected_failures={"Detachd": {"gradcheck": "cuts the graph"}})


@pytest.mark.parametrize(
    ("failures", "message"),
    [
        ({"gradchek": "cuts"}, "Excused.expected_failures should name checks; found"),
        ({"gradcheck": ""}, "should say why"),
    ],
)
def test_expected_failures_of_a_class_that_are_wrong(
    failures: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Excused, "expected_failures", failures)
    with pytest.raises(fusionkit.ConfigError, match=message):
        fusionkit.check(Excused, select=["forward_shape"])


def _plugin(name: str, **hooks: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    for hook, value in hooks.items():

        def implementation(value: Any = value) -> Any:
            return value

        implementation.__name__ = hook
        setattr(module, hook, fusionkit.hookimpl(lambda value=value: value, specname=hook))
    if not hooks:
        module.fusionkit_fusions = fusionkit.hookimpl(lambda: {"late": Total}, specname="fusionkit_fusions")  # type: ignore[attr-defined]
    return module


def test_check_of_a_plugin() -> None:
    def check_small(subject: Subject) -> None:
        """The output is at most 4 wide."""
        assert subject.build().calculate_n() <= 4, "too wide"

    plugin = types.ModuleType("checking_plugin")
    plugin.fusionkit_checks = fusionkit.hookimpl(  # type: ignore[attr-defined]
        lambda: [check_small], specname="fusionkit_checks"
    )
    with registry.isolated(plugin):
        report = fusionkit.check("concatenation", select=["small"])
        assert report.bad
        assert all(result.reason.startswith("AssertionError: too wide") for result in report.bad)


@pytest.mark.exhaustive
def test_fabrication_class_is_checked_in_a_host() -> None:
    report = fusionkit.check(Thin, tier=1)
    assert report.ok, report
    assert {result.kind for result in report.results} == {"fabrication"}
    assert any("n=7, dims=[5, 2, 4]" in result.case for result in report.results)


def test_target_that_cannot_be_imported() -> None:
    plugin = types.ModuleType("broken_targets")
    plugin.fusionkit_fusions = fusionkit.hookimpl(  # type: ignore[attr-defined]
        lambda: {"ghost": "no_such_module:Ghost"}, specname="fusionkit_fusions"
    )
    with registry.isolated(plugin):
        report = fusionkit.check("ghost", select=["forward_shape", "n_matches_output"])
    assert {(result.check, result.status) for result in report.results} == {
        ("forward_shape", "failed"),
        ("n_matches_output", "failed"),
    }
    assert "cannot be imported from 'no_such_module:Ghost'" in only(report)
