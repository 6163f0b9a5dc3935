"""The base class: validation, parameters from outside, configs, devices and dtypes."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import fusionkit
from fusionkit.errors import ConfigError, DimsError, FusionError
from fusionkit.fusion import Fusion, Traits, autocasting, check_device, check_dims, check_dtype, in_place_ok
from fusionkit.fusions.average import Average
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from fusionkit.fusions.summation import Summation


class Gated(Fusion):
    """``tanh(L(A_1 + ... + A_k)) * g``: own parameters at the root and in a grandchild."""

    traits: ClassVar[Traits] = Traits(batch_independent=True)

    def __init__(self, n: int | None = None, dims: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(n, dims, **options)
        if self.dims is not None:
            width = self.resolve_equal_dims()
            self.gate = nn.Parameter(torch.empty(width, **self._factory))
            self.body = nn.Sequential(nn.Linear(width, width, **self._factory), nn.Tanh())
            self.reset_parameters()

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return self.resolve_equal_dims(dims)

    def calculate_l(self) -> int:
        width = self.resolve_equal_dims()
        return width * (width + 2)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        with torch.no_grad():
            for _, parameter in self.named_parameters():
                parameter.normal_(generator=generator)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        total: Tensor = sum(x[1:], x[0])
        return torch.mul(self.body(total), self.gate)


def views(*dims: int, rows: tuple[int, ...] = (3,), dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(*rows, width, dtype=dtype) for width in dims]


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([], "dims should contain the width of at least one view; found none"),
        ([4, 0], r"dims\[1\], the width of view 1, should be an integer of at least 1; found 0"),
        ([-1], r"dims\[0\], the width of view 0, should be an integer of at least 1; found -1"),
        ([4.0], r"found 4\.0"),
        (["4"], r"found '4'"),
        ([True], r"found True"),
        ([None], r"found None"),
        ("44", r"dims should be a sequence of widths, one per view; found '44'"),
        (4, r"dims should be a sequence of widths, one per view; found 4"),
        ({4: 4}, r"dims should be a sequence"),
    ],
)
def test_invalid_dims(dims: Any, message: str) -> None:
    with pytest.raises(DimsError, match=message):
        Summation(dims=dims)
    with pytest.raises(DimsError, match=message):
        Summation(dims=[4]).calculate_n(dims)


@pytest.mark.parametrize("n", [0, -3, 2.5, "4", True, [4]])
def test_invalid_n(n: Any) -> None:
    with pytest.raises(DimsError, match=r"^n, the width of the output, should .*found "):
        ParameterizedConcatenation(dims=[4, 4], n=n)


def test_contradicting_n_is_refused_for_every_subclass() -> None:
    with pytest.raises(DimsError, match=r"should be 4 for .* with dims \[4, 4\]; found 5\.$"):
        Gated(dims=[4, 4], n=5)
    assert Gated(dims=[4, 4], n=4).n == 4
    assert Gated(dims=[4, 4]).n == 4


def test_dims_of_any_sequence_and_numpy_integers() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    kinds: list[Any] = [[4, 4], (4, 4), omegaconf.ListConfig([4, 4]), np.array([4, 4]), torch.Size([4, 4])]
    for dims in kinds:
        assert Summation(dims=dims).dims == (4, 4)
    assert check_dims(iter([1, 2])) == (1, 2)


def test_without_dims() -> None:
    op = Gated()
    assert (op.dims, op.n, list(op.parameters())) == (None, None, [])
    assert op.calculate_n([7, 7]) == 7
    assert (op.dims, op.n) == (None, None)
    for call in (op.calculate_n, op.calculate_l, lambda: op(views(4, 4))):
        with pytest.raises(DimsError, match=r"should be created with dims, the widths of its views; found None\."):
            call()


def test_abstract_methods_say_what_is_missing() -> None:
    class Nothing(Fusion):
        """Nothing."""

    with pytest.raises(NotImplementedError, match="Nothing should define calculate_n"):
        Nothing(dims=[1])
    with pytest.raises(NotImplementedError, match="Nothing should define calculate_l"):
        Nothing().calculate_l()


# ---------------------------------------------------------------------- views

DTYPES = "float32, float64, bfloat16, float16"
BAD_VIEWS: list[tuple[Callable[[list[Tensor]], Any], type[Exception], str]] = [
    (lambda x: [], FusionError, "x should contain at least one view; found none."),
    (lambda x: x[0], FusionError, "x should be a list or tuple of tensors, one per view; found Tensor."),
    (lambda x: x[:1], DimsError, "x should contain 2 views, of widths [3, 4]; found 1."),
    (lambda x: [*x, x[0]], DimsError, "x should contain 2 views, of widths [3, 4]; found 3."),
    (lambda x: x[::-1], DimsError, "View 0 should have width 3; found 4 (shape (5, 4))."),
    (lambda x: [x[0], x[1][:1]], FusionError, "View 1 should have the leading dimensions of view 0, (5,); found (1,)."),
    (lambda x: [x[0], x[1][0]], FusionError, "View 1 should have the leading dimensions of view 0, (5,); found ()."),
    (lambda x: [x[0], torch.tensor(1.0)], DimsError, "View 1 should have width 4; found no dimension (shape ())."),
    (lambda x: [x[0], [1.0]], FusionError, "View 1 should be a tensor; found list."),
    (lambda x: [x[0], x[1].numpy()], FusionError, "View 1 should be a tensor; found ndarray."),
    (
        lambda x: [v.long() for v in x],
        FusionError,
        f"View 0 should have one of the dtypes {DTYPES}; found torch.int64.",
    ),
    (
        lambda x: [v.to(torch.float8_e4m3fn) for v in x],
        FusionError,
        f"View 0 should have one of the dtypes {DTYPES}; found torch.float8_e4m3fn.",
    ),
    (
        lambda x: [x[0], x[1].double()],
        FusionError,
        "View 1 should be of dtype torch.float32, as view 0 is; found torch.float64.",
    ),
    (lambda x: [x[0], x[1].to("meta")], FusionError, "View 1 should be on cpu, as view 0 is; found meta."),
    (
        lambda x: [v.double() for v in x],
        FusionError,
        "The views should be of dtype torch.float32, as the parameters of parameterized_concatenation are; "
        "found torch.float64.",
    ),
    (
        lambda x: [v.to("meta") for v in x],
        FusionError,
        "The views should be on cpu, as the parameters of parameterized_concatenation are; found meta.",
    ),
]


@pytest.mark.parametrize(("spoil", "error", "message"), BAD_VIEWS)
def test_bad_views(spoil: Callable[[list[Tensor]], Any], error: type[Exception], message: str) -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=2)
    with pytest.raises(error) as caught:
        op(spoil(views(3, 4, rows=(5,))))
    assert str(caught.value) == message


def test_parameters_in_a_child_are_compared_too() -> None:
    class Inner(Gated):
        """The same without a parameter at the root."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            del self.gate
            self.gate = torch.ones(4)  # type: ignore[assignment]

    with pytest.raises(FusionError, match=r"^The views should be of dtype torch\.float32, as the parameters of"):
        Inner(dims=[4, 4])(views(4, 4, dtype=torch.float64))


def test_device_argument_moves_x_and_w() -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=2, device="meta")
    assert op(views(3, 4), w=torch.zeros(14), device="meta").device.type == "meta"
    for device in ("cuda:99", "nonsense", "nonsense:0"):
        with pytest.raises(FusionError, match="device should be"):
            op(views(3, 4), device=device)


def test_autocast_promotes_mixed_views() -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=2)
    x = views(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = op([x[0].bfloat16(), x[1]])
    torch.testing.assert_close(out.float(), op(x), atol=0.05, rtol=0.05)


# ---------------------------------------------------------------------- w from outside


@pytest.mark.parametrize("shape", [(24,), (1, 24)])
def test_external_w_equals_owned(shape: tuple[int, ...]) -> None:
    op = Gated(dims=[4, 4])
    bare = Gated(dims=[4, 4], require_parameters=False)
    x = views(4, 4)
    w = op.flat_w().detach().reshape(shape)
    assert torch.equal(op(x), bare(x, w=w))
    assert torch.equal(op(x, w=2 * w), bare(x, w=2 * w))
    assert not torch.equal(op(x, w=2 * w), op(x))


def test_flat_w_follows_named_parameters_and_differentiates() -> None:
    op = Gated(dims=[2, 2])
    flat = op.flat_w()
    expected = torch.cat([parameter.reshape(-1) for _, parameter in op.named_parameters()])
    assert torch.equal(flat, expected)
    assert flat.requires_grad
    assert Summation(dims=[2]).flat_w().shape == (0,)
    with pytest.raises(FusionError, match="should own its parameters; found require_parameters=False"):
        Gated(dims=[2, 2], require_parameters=False).flat_w()


def test_require_parameters_false_leaves_named_none_entries() -> None:
    op = Gated(dims=[4, 4], require_parameters=False)
    assert list(op.parameters()) == []
    assert op.get_submodule("body.0")._parameters == {"weight": None, "bias": None}
    assert op._parameters == {"gate": None}
    assert op.state_dict() == {}
    assert op.calculate_l() == 24
    before = torch.get_rng_state()
    op.reset_parameters()
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(FusionError) as caught:
        op(views(4, 4))
    assert str(caught.value) == "Gated has require_parameters=False and should get w with 24 elements; found None."


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (torch.zeros(23), r"w should have shape \(24,\) or \(1, 24\); found \(23,\)"),
        (torch.zeros(24, 1), r"found \(24, 1\)"),
        (torch.zeros(2, 24), r"found \(2, 24\)"),
        (torch.zeros(24).double(), r"w should be of dtype torch.float32, as the views are; found torch.float64"),
        (torch.zeros(24, device="meta"), r"w should be on cpu, as the views are; found meta"),
        ([0.0] * 24, r"w should be a tensor of shape \(24,\) or \(1, 24\); found list"),
    ],
)
@pytest.mark.parametrize("require_parameters", [True, False])
def test_bad_w(w: Any, message: str, require_parameters: bool) -> None:
    op = Gated(dims=[4, 4], require_parameters=require_parameters)
    with pytest.raises(FusionError, match=message):
        op(views(4, 4), w=w)


def test_w_of_a_parameter_free_operator_is_empty() -> None:
    x = views(4, 4)
    assert torch.equal(Summation(dims=[4, 4])(x, w=torch.empty(0)), x[0] + x[1])
    with pytest.raises(FusionError, match=r"w should .*found \(3,\)"):
        Summation(dims=[4, 4])(x, w=torch.zeros(3))


def test_a_converted_operator_without_parameters_takes_its_own_w() -> None:
    op = Summation(dims=[3, 3]).double()
    x = [torch.randn(2, 3, dtype=torch.float64) for _ in range(2)]
    torch.testing.assert_close(op(x, w=op.flat_w()), x[0] + x[1])


def test_external_w_touches_nothing_and_hooks_fire_once() -> None:
    op = Gated(dims=[4, 4])
    calls: list[str] = []
    op.register_forward_hook(lambda *_: calls.append("root"))
    op.body[0].register_forward_hook(lambda *_: calls.append("child"))
    before = {name: value.clone() for name, value in op.state_dict().items()}
    entries = {name: id(parameter) for name, parameter in op.named_parameters()}
    op(views(4, 4), w=torch.randn(24))
    assert calls == ["child", "root"]
    assert {name: id(parameter) for name, parameter in op.named_parameters()} == entries
    assert all(torch.equal(before[name], value) for name, value in op.state_dict().items())
    assert all(parameter.grad is None for parameter in op.parameters())


def test_external_w_gradients_second_order_and_vmap() -> None:
    op = Gated(dims=[2, 2], dtype=torch.float64, require_parameters=False)
    x = views(2, 2, dtype=torch.float64)
    w = torch.randn(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: op(x, w=w), w, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda w: op(x, w=w), w)
    many = torch.randn(5, 8, dtype=torch.float64)
    batched = torch.vmap(lambda w: op(x, w=w))(many)
    torch.testing.assert_close(batched, torch.stack([op(x, w=one) for one in many]))


def test_external_w_in_threads() -> None:
    op = Gated(dims=[4, 4])
    x = views(4, 4)
    many = torch.randn(8, 24)
    expected = [op(x, w=w) for w in many]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            if not torch.equal(op(x, w=many[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_shared_child_is_twinned_once() -> None:
    class Twice(Gated):
        """The same child under two names."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.again = self.body

        def _fuse(self, x: Sequence[Tensor]) -> Tensor:
            result: Tensor = self.again(super()._fuse(x))
            return result

    op = Twice(dims=[4, 4])
    x = views(4, 4)
    assert op.calculate_l() == op.flat_w().numel()
    assert torch.equal(op(x), op(x, w=op.flat_w()))


def test_parametrized_pruned_and_tied_parameters_refuse_w() -> None:
    x, w = views(4, 4), torch.zeros(24)
    parametrized = Gated(dims=[4, 4])
    parametrizations.weight_norm(parametrized.body[0])
    with pytest.raises(
        FusionError, match=r"should have the parameters it was built with, .* \(parametrized or pruned\)"
    ):
        parametrized(x, w=w)
    pruned = Gated(dims=[4, 4])
    prune.l1_unstructured(pruned.body[0], "weight", amount=2)
    with pytest.raises(FusionError, match=r"parametrized or pruned"):
        pruned(x, w=w)
    tied = Gated(dims=[4, 4])
    tied.body[0].bias = tied.gate
    with pytest.raises(FusionError, match=r"should have untied parameters to take w; found tied ones"):
        tied(x, w=w)


def test_frozen_parameters_count() -> None:
    op = Gated(dims=[4, 4]).requires_grad_(False)
    assert op.calculate_l() == op.flat_w().numel() == 24


@pytest.mark.skipif(Version(torch.__version__) < Version("2.12"), reason="torch.compile breaks its graph at __dict__")
def test_external_w_compiles() -> None:
    op = Gated(dims=[4, 4], require_parameters=False)
    x, w = views(4, 4), torch.randn(24)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, w=w), op(x, w=w))


# ---------------------------------------------------------------------- config, copies, devices


def test_to_config_round_trip() -> None:
    op = fusionkit.create(
        "parameterized_concatenation",
        dims=(3, 4),
        n=2,
        parameter_fabrication={"name": "lowrank", "r": 2},
        preprocess="layer_norm",
        dtype=torch.float64,
    )
    config = op.to_config()
    assert config == {
        "name": "parameterized_concatenation",
        "dims": [3, 4],
        "n": 2,
        "parameter_fabrication": {"name": "lowrank", "r": 2},
        "preprocess": "layer_norm",
        "dtype": "float64",
    }
    again = fusionkit.create(**config)
    again.load_state_dict(op.state_dict())
    x = views(3, 4, dtype=torch.float64)
    assert torch.equal(again(x), op(x))


def test_to_config_follows_a_cast() -> None:
    assert ParameterizedConcatenation(dims=[2, 2]).double().to_config()["dtype"] == "float64"
    assert ParameterizedConcatenation(dims=[2, 2], dtype="bfloat16").float().to_config()["dtype"] == "float32"


def test_to_config_refuses_what_has_no_plain_form() -> None:
    with pytest.raises(ConfigError, match=r"summation: the argument preprocess should be a name"):
        Summation(dims=[4], preprocess=torch.tanh).to_config()
    with pytest.raises(ConfigError, match=r"test_fusion:Gated should be registered to have a config; it is not"):
        Gated(dims=[4]).to_config()


def test_name() -> None:
    assert Summation(dims=[4]).name == "summation"
    assert fusionkit.create("sum", dims=[4]).name == "summation"
    assert Summation(dims=[4], name="my sum").name == "my sum"
    assert Summation(dims=[4], name="my sum").to_config() == {"name": "summation", "dims": [4]}
    assert Gated(dims=[4]).name == "Gated"


def test_pickle_and_deepcopy() -> None:
    op = Gated(dims=[4, 4])
    x = views(4, 4)
    for again in (pickle.loads(pickle.dumps(op)), copy.deepcopy(op)):
        assert torch.equal(again(x), op(x))
        assert torch.equal(again(x, w=op.flat_w()), op(x))
        with torch.no_grad():
            again.gate.add_(1)
        assert not torch.equal(again(x), op(x))


def test_meta_to_empty() -> None:
    op = Gated(dims=[4, 4], device="meta")
    assert op.flat_w().device.type == "meta"
    op.to_empty(device="cpu")
    op.reset_parameters(torch.Generator().manual_seed(1))
    other = Gated(dims=[4, 4])
    other.reset_parameters(torch.Generator().manual_seed(1))
    x = views(4, 4)
    assert torch.equal(op(x), other(x))
    with torch.device("meta"):
        assert Gated(dims=[4, 4]).gate.is_meta


def test_repr_shows_the_arguments() -> None:
    text = repr(ParameterizedConcatenation(dims=[3, 4], n=2, parameter_fabrication="lowrank"))
    assert "dims=(3, 4), n=2, parameter_fabrication='lowrank'" in text


def test_the_default_reset_is_seeded_by_the_generator() -> None:
    class Inner(Fusion):
        def __init__(self, n: int | None = None, dims: Sequence[int] | None = None) -> None:
            super().__init__(n, dims)
            self.inner = nn.Linear(2, 2)

        def calculate_n(self, dims: Sequence[int] | None = None) -> int:
            return 2

        def calculate_l(self) -> int:
            return 6

        def _fuse(self, x: Sequence[Tensor]) -> Tensor:
            return self.inner(x[0])  # type: ignore[no-any-return]

    op = Inner(dims=[2])
    weights = []
    for _ in range(2):
        op.reset_parameters(torch.Generator().manual_seed(3))
        weights.append(op.inner.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", torch.float32), (torch.float16, torch.float16), (None, None)]
)
def test_check_dtype(dtype: Any, expected: Any) -> None:
    assert check_dtype(dtype) is expected


@pytest.mark.parametrize("dtype", ["float33", "int64", torch.int32, 7, "Tensor", "float8_e4m3fn", torch.float8_e5m2])
def test_bad_dtype(dtype: Any) -> None:
    with pytest.raises(FusionError, match=r"^dtype should .*found "):
        Average(dims=[2], dtype=dtype)


def test_bad_device() -> None:
    with pytest.raises(FusionError, match=r"^device should .*found 'gpu'\.$"):
        check_device("gpu")
    with pytest.raises(FusionError, match=r"one of this machine: cpu.*; found 'cpu:1'"):
        check_device("cpu:1")
    assert check_device("cpu:0") == torch.device("cpu:0")
    with pytest.raises(FusionError, match=r"^device should .*found 'cuda:99'\.$"):
        Average(dims=[2], device="cuda:99")
    assert check_device(None) is None


def test_in_place_only_in_plain_eager_mode() -> None:
    seen: list[bool] = []

    def look(tensor: Tensor) -> Tensor:
        seen.append(in_place_ok([tensor]))
        return tensor

    x = torch.ones(2)
    torch.vmap(look)(x)
    assert in_place_ok([x])
    assert seen == [False]


@pytest.mark.parametrize("kind", ["cpu", "cuda", "meta"])
def test_a_compiler_sees_whether_autocast_is_on(kind: str) -> None:
    device = torch.device(kind)

    def ask(x: Tensor) -> Tensor:
        return x + 1 if autocasting(device) else x

    compiled = torch.compile(ask, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(())) == 0
    if kind == "cpu":
        with torch.autocast(kind, torch.bfloat16):
            assert compiled(torch.zeros(())) == 1


def test_reset_parameters_draws_what_configs_made_too() -> None:
    def made(device: str) -> Fusion:
        return fusionkit.create(
            "parameterized_concatenation",
            dims=[3, 4],
            n=2,
            preprocess=["layer_norm", kept],
            postprocess="linear",
            device=device,
        )

    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

    kept = Kept()
    op = made("meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.fill_(7)
    before = torch.get_rng_state()
    op.reset_parameters(torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    sevens = {name for name, parameter in op.named_parameters() if (parameter == 7).any()}
    # A given module is not the operator's to reset.
    assert sevens == {name for name, parameter in op.named_parameters() if name.startswith("preprocess.steps.1.")}
    first = [parameter.clone() for parameter in op.parameters()]
    op.reset_parameters(torch.Generator().manual_seed(1))
    assert all(torch.equal(one, other) for one, other in zip(op.parameters(), first, strict=True))
    op.reset_parameters()
    assert not torch.equal(op.get_parameter("postprocess.steps.0.weight"), first[-2])
    bare = fusionkit.create("summation", dims=[3, 3], preprocess="linear")
    old = bare.get_parameter("preprocess.steps.0.weight").clone()
    bare.reset_parameters()
    assert not torch.equal(bare.get_parameter("preprocess.steps.0.weight"), old)


def test_a_converted_operator_with_processing_alone_writes_its_dtype() -> None:
    op = fusionkit.create("summation", dims=[3, 3], preprocess="layer_norm").double()
    assert op.to_config()["dtype"] == "float64"


def test_traits_of_one_instance() -> None:
    first, second = Gated(dims=[2]), Gated(dims=[2])
    first.declare_traits(batch_independent=False, missing="skip")
    assert first.traits == Traits(missing="skip")
    assert second.traits == Gated.traits == Traits(batch_independent=True)
    with pytest.raises(FusionError, match=r"^missing should be one of"):
        first.declare_traits(missing="skipped")
