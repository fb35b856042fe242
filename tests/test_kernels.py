"""Every kernel by the gate: forward and backward, on every shape of pack; and the registry's word."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from minibert import kernels
from minibert.batch import pack
from minibert.errors import ConfigError
from minibert.kernels import Dropout, counter, gate, native, varlen
from minibert.kernels.reference import reference

from .helpers import toy_batch

NAMES = ("reference", "sdpa", "padded", "tiled", pytest.param("native", marks=pytest.mark.slow))
GENERATORS = ("reference", "sdpa", "padded")  # that drop what torch's generator says, not the counter
PACKS = {
    "ragged": (5, 11, 2),
    "one token": (1,),
    "one text": (13,),
    "equal lengths": (6, 6, 6),
    "equal lengths apart": (4, 9, 4, 9, 4),
    "single tokens among others": (1, 7, 1, 1),
}


@pytest.fixture
def registry(monkeypatch):
    """A registry that forgets what the test registers."""
    monkeypatch.setattr(kernels, "KERNELS", dict(kernels.KERNELS))
    monkeypatch.setattr(kernels, "choose_cached", {})


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A cache folder of the tests' own, for what is compiled."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def compiler(request, monkeypatch):
    """Let a test of the kernel native compile it, once for all of them; no other one may."""
    if "native" in getattr(request.node, "callspec", request.node).__dict__.get("params", {}).values():
        switch_on(monkeypatch, request.getfixturevalue("compiled"))


def switch_on(monkeypatch, folder):
    monkeypatch.delenv("MINIBERT_NATIVE", raising=False)
    monkeypatch.setenv("MINIBERT_CACHE", str(folder))
    monkeypatch.setattr(kernels, "choose_cached", {})
    if not native.find_compiler():
        pytest.skip("no C++ compiler here")


def by_hand(q, k, v, layout, scale):
    """Attention a text, a head and a query at a time: the definition, in float64."""
    out = torch.empty_like(v)
    for start, end in zip(layout.cu_seqlens.tolist(), layout.cu_seqlens.tolist()[1:]):
        for head in range(q.shape[1]):
            for i in range(start, end):
                looks = torch.exp(k[start:end, head] @ q[i, head] * scale)
                out[i, head] = (looks[:, None] * v[start:end, head]).sum(0) / looks.sum()
    return out


@pytest.mark.parametrize("lengths", PACKS.values(), ids=PACKS)
def test_the_reference_is_the_definition(lengths):
    layout = pack([[0] * n for n in lengths]).layout
    q, k, v = torch.randn(3, sum(lengths), 3, 5, dtype=torch.float64)
    difference = reference(q, k, v, layout, scale=0.4) - by_hand(q, k, v, layout, 0.4)
    assert difference.abs().max() < 1e-13


# --- the gate -------------------------------------------------------------------------------------


TRIED = (torch.float32, torch.float64, torch.bfloat16)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(param, dtype, id=f"{param}-{dtype}") if isinstance(param, str)
        else pytest.param(*param.values, dtype, marks=param.marks, id=f"{param.values[0]}-{dtype}")
        for param in NAMES
        for dtype in TRIED
        if dtype in kernels.KERNELS[param if isinstance(param, str) else param.values[0]].dtypes
    ],
)  # fmt: skip
@pytest.mark.parametrize("lengths", PACKS.values(), ids=PACKS)
def test_every_kernel_passes_the_gate(name, lengths, dtype, monkeypatch):
    monkeypatch.setattr(gate, "LENGTHS", lengths)
    found = kernels.check(name, dtype)
    assert found.passed, found
    four = ("output", "dq", "dk", "dv")
    wishes = ("", "window ", "bias ", *(() if name in GENERATORS else ("dropout ",)))
    assert set(found.errors) == {f"{wish}{word}" for wish in wishes for word in four} | {"bias dbias"}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES[:-1])
def test_every_kernel_passes_the_gate_on_the_card(name, dtype):
    found = kernels.check(name, dtype, device="cuda")
    assert found.passed, found


def leaking(q, k, v, layout, *, scale, dropout=None):
    """Reads the whole pack as one text."""
    whole = dataclasses.replace(layout, lengths=(len(q),))
    return reference(q, k, v, whole, scale=scale)


def unscaled(q, k, v, layout, *, scale, dropout=None):
    return reference(q, k, v, layout, scale=1.0)


def low(q, k, v, layout, *, scale, dropout=None):
    """Right, in less precision than was asked for."""
    return reference(q.bfloat16(), k.bfloat16(), v.bfloat16(), layout, scale=scale).to(q.dtype)


def nan(q, k, v, layout, *, scale, dropout=None):
    return reference(q, k, v, layout, scale=scale) + torch.nan


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, out, k):
        ctx.save_for_backward(k)
        return out.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, 1e-3 * torch.ones_like(ctx.saved_tensors[0])  # a little of what is not there


def wrong_dk(q, k, v, layout, *, scale, dropout=None):
    return WrongBackward.apply(reference(q, k, v, layout, scale=scale), k)


@pytest.mark.parametrize(
    ("fn", "wrong"),
    [
        (leaking, {"output", "dq", "dk", "dv"}),
        (unscaled, {"output", "dq", "dk", "dv"}),
        (low, {"output", "dq", "dk", "dv"}),
        (nan, {"output"}),
        (wrong_dk, {"dk"}),
    ],
)
def test_a_wrong_kernel_fails(registry, fn, wrong):
    kernels.register("mine", devices=("cpu",), dtypes=(torch.float32,), dropout="", gradients=True)(fn)
    found = kernels.check("mine")
    assert not found.passed
    assert {name for name, ratio in found.ratios.items() if not ratio <= 2} == wrong


def test_a_right_kernel_of_ones_own_passes_and_serves(registry):
    @kernels.register("mine", devices=("cpu",), dtypes=kernels.FLOATS, dropout="", gradients=False)
    def mine(q, k, v, layout, *, scale, dropout=None):
        return reference(q, k, v, layout, scale=scale)

    found = kernels.check("mine")
    assert found.passed and set(found.errors) == {"output"}, "one without gradients is judged by its output"
    assert kernels.available()["mine"] == ""


OWN = """
from minibert import kernels
from minibert.kernels.reference import reference

@kernels.register({name!r}, devices=("cpu",), dtypes=kernels.FLOATS, dropout="generator", gradients=True)
def mine(q, k, v, layout, *, scale, dropout=None):
    return reference(q, k, v, layout, scale=scale, dropout=dropout)
"""


def test_a_file_of_ones_own_adds_a_kernel(registry, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN.format(name="mine"), encoding="utf-8")
    assert kernels.register_file(path) == ("mine",) and kernels.check("mine").passed
    more = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\n"
    path.write_text(more + OWN.format(name="other"), encoding="utf-8")
    assert kernels.register_file(path) == ("other",)


def test_window_and_bias_reach_a_kernel_that_takes_them_and_no_other(registry):
    @kernels.register(
        "near", devices=("cpu",), dtypes=kernels.FLOATS, dropout="", gradients=True, window=True
    )
    def near(q, k, v, layout, *, scale, dropout=None, window=None):
        return q + window[0]

    q, layout = torch.zeros(18, 2, 4), toy_batch().layout
    out = kernels.attend("near", q, q, q, layout, scale=1.0, window=(3, 3))
    assert torch.equal(out, q + 3)
    with pytest.raises(ConfigError, match="has no position bias"):
        kernels.attend("near", q, q, q, layout, scale=1.0, bias=torch.zeros(2, 21))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.format(name="sdpa"), "sdpa, which exists"),
        ("x = 1", "registers no kernel"),
        ("import no_such_package", "No module named"),
        ("def (", "SyntaxError"),
        ("import sys; sys.exit()", "SystemExit"),
        (OWN.format(name="mine") + "\nraise OSError('half way')", "half way"),
    ],
)
def test_a_file_that_adds_no_kernel_is_refused(registry, tmp_path, text, said):
    path, before = tmp_path / "mine.py", dict(kernels.KERNELS)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        kernels.register_file(path)
    assert before == kernels.KERNELS


def test_the_gate_judges_what_auto_takes():
    assert kernels.check("auto").name == kernels.choose("auto").name


# --- what is the same in all ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_texts_is_no_trouble(name):
    q = torch.randn(0, 3, 5, requires_grad=True)
    assert kernels.attend(name, q, q, q, pack([]).layout, scale=1.0).shape == (0, 3, 5)


@pytest.mark.parametrize("name", NAMES)
def test_filler_changes_nothing(name):
    q, k, v = torch.randn(3, 25, 4, 6, dtype=torch.float64)
    full, plain = toy_batch(fill_to=25).layout, toy_batch().layout
    out = kernels.attend(name, q, k, v, full, scale=0.3)
    alone = kernels.attend(name, q[:18], k[:18], v[:18], plain, scale=0.3)
    assert out.shape == q.shape and (out[:18] - alone).abs().max() < 1e-14


@pytest.mark.parametrize("name", NAMES)
def test_dropout_drops_the_stated_share_and_keeps_the_mean(name):
    """With equal scores and values of 1, a token's context is the mean of what was kept, scaled up."""
    n, p = 40, 0.25
    q, v = torch.zeros(n, 50, 4), torch.ones(n, 50, 4)
    out = kernels.attend(name, q, q, v, pack([[0] * n]).layout, scale=1.0, dropout=Dropout(p))
    kept = out[..., 0] * n * (1 - p)  # how many of n were kept, for each token and head
    assert torch.allclose(kept, kept.round(), atol=1e-3)
    assert abs(float(out.mean()) - 1) < 0.01, "what is kept is scaled by 1 / (1 - p)"
    assert abs(float(kept.var()) / (n * p * (1 - p)) - 1) < 0.2, "each look is dropped on its own"


@pytest.mark.parametrize("name", GENERATORS)
def test_dropout_follows_torchs_generator(name):
    q, k, v = torch.randn(3, 18, 4, 6)
    layout = toy_batch().layout

    def once(seed):
        torch.manual_seed(seed)
        return kernels.attend(name, q, k, v, layout, scale=0.4, dropout=Dropout(0.5))

    assert torch.equal(once(1), once(1)) and not torch.equal(once(1), once(2))
    assert kernels.KERNELS[name].dropout == "generator"


# --- the registry ---------------------------------------------------------------------------------


def test_auto_takes_the_first_of_the_written_order(registry, monkeypatch):
    monkeypatch.setenv("MINIBERT_NATIVE", "0")
    assert kernels.ORDER == ("sdpa", "padded", "reference")
    assert ("native", "tiled", *kernels.ORDER) == kernels.DROPPING
    assert kernels.choose("auto", dropout=True).name == "tiled", "native is switched off"
    assert kernels.choose("auto", dropout=True, window=True, bias=True).name == "tiled"
    assert kernels.CARD == ("varlen", "padded", "sdpa", "reference")
    assert kernels.CARD_DROPPING == ("varlen", "triton", "padded", "sdpa", "reference")
    able = kernels.KERNELS["triton"].why_not("cuda") == ""
    assert kernels.choose("auto", dropout=True, device="cuda").name == ("triton" if able else "padded")
    able = list(kernels.ORDER)
    while able:
        assert kernels.choose("auto").name == able[0]
        del kernels.KERNELS[able.pop(0)]
        kernels.choose_cached.clear()
    kernels.KERNELS.clear()
    with pytest.raises(ConfigError, match="No registered kernel can do this"):
        kernels.choose("auto")


def test_auto_passes_over_what_can_not(registry, monkeypatch):
    monkeypatch.setenv("MINIBERT_NATIVE", "0")
    options = {"devices": ("cpu",), "dtypes": kernels.FLOATS, "dropout": "", "gradients": True}
    for name in ("sdpa", "tiled"):
        kernels.register(name, **options)(reference)
    assert kernels.choose("auto").name == "sdpa"
    assert kernels.choose("auto", dropout=True).name == "padded"


WISHES = [
    ({"device": "xpu"}, "runs on cpu, not xpu"),
    ({"dtype": torch.float16}, "has no float16"),
    ({"dropout": True}, "has no dropout"),
    ({"gradients": True}, "has no gradients"),
    ({"window": True}, "has no local windows"),
    ({"bias": True}, "has no position bias"),
]


@pytest.mark.parametrize(("wish", "why"), WISHES)
def test_an_unsupported_wish_says_why_and_names_one_that_can(registry, wish, why):
    options = {"devices": ("cpu", "xpu"), "dtypes": kernels.FLOATS, "dropout": "counter", "gradients": True}
    kernels.register("able", **options, window=True, bias=True)(reference)
    kernels.register("poor", devices=("cpu",), dtypes=(torch.float32,), dropout="", gradients=False)(
        reference
    )
    with pytest.raises(ConfigError) as caught:
        kernels.choose("poor", **wish)
    assert why in str(caught.value) and "able" in str(caught.value).split("Kernels that can:")[1]
    assert kernels.available(**wish)["poor"] == why and kernels.available(**wish)["able"] == ""


def test_a_kernel_whose_package_is_missing_says_so(registry):
    options = {"devices": ("cpu",), "dtypes": kernels.FLOATS, "dropout": "", "gradients": True}
    kernels.register("far", **options, needs="no_such_package")(reference)
    with pytest.raises(ConfigError, match="needs the package no_such_package"):
        kernels.choose("far")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match=r'none of that name; did you mean "sdpa"\?'):
        kernels.choose("spda")


@pytest.mark.parametrize("wish", ["window", "bias"])
def test_the_gate_finds_a_kernel_that_passes_a_wish_over(registry, wish):
    """Registered for windows or a bias, and blind to them: it fails where it is checked."""
    options = {"devices": ("cpu",), "dtypes": kernels.FLOATS, "dropout": "", "gradients": True, wish: True}

    @kernels.register("blind", **options)
    def blind(q, k, v, layout, *, scale, dropout=None, window=None, bias=None):
        out = reference(q, k, v, layout, scale=scale, dropout=dropout)
        return out if bias is None else out + 0 * bias.sum()

    gate = kernels.check("blind")
    assert not gate.passed and gate.ratios["output"] <= 2 < gate.ratios[f"{wish} output"]


@pytest.mark.parametrize("name", NAMES)
def test_windows_and_a_bias_by_hand(name):
    """One head, values that are the tokens' own numbers: what is out of reach counts nothing."""
    layout = pack([[0] * 5]).layout
    q = torch.zeros(5, 1, 2, dtype=torch.float64)
    v = torch.arange(5.0, dtype=torch.float64)[:, None, None].expand(5, 1, 2).contiguous()
    near = kernels.attend(name, q, q, v, layout, scale=1.0, window=(1, 0))
    assert near[:, 0, 0].tolist() == pytest.approx([0, 0.5, 1.5, 2.5, 3.5])
    bias = torch.full((1, 9), -1e9, dtype=torch.float64)
    bias[0, 4 + 1] = 0.0  # only the next one
    ahead = kernels.attend(name, q, q, v, layout, scale=1.0, bias=bias)
    assert ahead[:4, 0, 0].tolist() == pytest.approx([1, 2, 3, 4])


@pytest.mark.parametrize("wish", ["unknown", "wrong rows"])
def test_the_gate_finds_a_kernel_that_drops_something_else(registry, wish):
    @kernels.register("own", devices=("cpu",), dtypes=kernels.FLOATS, dropout="counter", gradients=True)
    def own(q, k, v, layout, *, scale, dropout=None):
        if wish == "wrong rows":
            layout = dataclasses.replace(layout, rows=layout.rows + 1)
        kept = counter.masks(layout, q.shape[1], dropout) if dropout and wish == "wrong rows" else None
        return reference(q, k, v, layout, scale=scale, dropout=dropout, kept=kept)

    found = kernels.check("own")
    assert not found.passed and found.ratios["output"] <= 2 < found.ratios["dropout output"]


# --- dropout by counter ---------------------------------------------------------------------------

COUNTERS = [x for x in NAMES if x not in GENERATORS]
DROP = Dropout(0.3, (5, 6, 7))


@pytest.mark.parametrize("name", COUNTERS)
def test_gradients_with_dropout_are_those_of_finite_differences(name):
    layout = pack([[0] * n for n in (5, 1, 4)], rows=(9, 2, 4)).layout
    inputs = [torch.randn(10, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def function(q, k, v):
        return kernels.attend(name, q, k, v, layout, scale=0.6, dropout=DROP)

    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("name", COUNTERS)
def test_a_text_loses_the_same_looks_in_any_pack(name):
    """Alone, with others, in another order, with a filler: output and gradients by its row number only."""
    lengths = {3: 5, 11: 150, 4: 2, 8: 150, 20: 60}
    parts = {row: torch.randn(4, n, 2, 8, dtype=torch.float64) for row, n in lengths.items()}

    def found(rows, fill=0):
        total = sum(lengths[r] for r in rows)
        layout = pack([[0] * lengths[r] for r in rows], rows=rows, fill_to=total + fill).layout
        numbers = torch.cat([*(parts[r] for r in rows), torch.ones(4, fill, 2, 8, dtype=torch.float64)], 1)
        q, k, v, grad = numbers
        q, k, v = (x.requires_grad_() for x in (q, k, v))
        out = kernels.attend(name, q, k, v, layout, scale=0.3, dropout=DROP)
        every = (out, *torch.autograd.grad(out, (q, k, v), grad))
        return dict(zip(rows, zip(*(x.detach().split(layout.lengths) for x in every))))

    together, shuffled = found([3, 11, 4, 8, 20]), found([20, 8, 4, 3, 11], fill=7)
    for row in lengths:
        for alone, one, other in zip(found([row])[row], together[row], shuffled[row]):
            assert (alone - one).abs().max() < 1e-13 and (alone - other).abs().max() < 1e-13


@pytest.mark.parametrize("name", COUNTERS)
@pytest.mark.parametrize("lengths", [(48, 49, 128, 129, 300), (200,)], ids=str)
def test_the_mask_is_the_counters_where_texts_are_longer_than_a_block(name, lengths, monkeypatch):
    monkeypatch.setattr(gate, "LENGTHS", lengths)
    found = kernels.check(name)
    assert found.passed, found


@pytest.mark.parametrize("name", COUNTERS)
@pytest.mark.parametrize("window", [None, (3, 0), (0, 150), (64, 64), (300, 300)], ids=str)
def test_windows_a_bias_and_dropout_together(name, window):
    """Across blocks of queries and of keys, beside the oracle."""
    layout = pack([[0] * n for n in (5, 300, 1, 130, 49)], rows=(3, 0, 7, 1, 2)).layout
    bias = torch.randn(2, 2 * 310 - 1, dtype=torch.float64, requires_grad=True)
    *qkv, grad = torch.randn(4, 485, 2, 16, dtype=torch.float64)
    inputs = [*(x.requires_grad_() for x in qkv), bias]

    def found(name):
        wish = {"dropout": DROP, "window": window, "bias": bias}
        out = kernels.attend(name, *qkv, layout, scale=0.25, **wish)
        return out, *torch.autograd.grad(out, inputs, grad)

    for ours, right in zip(found(name), found("oracle"), strict=True):
        assert (ours - right).abs().max() < 1e-11 * right.abs().max()


@pytest.mark.parametrize("name", COUNTERS)
def test_any_strides_and_any_width(name):
    """q, k, v as slices of one tensor, and gradients that are expanded or turned."""
    layout = pack([[0] * n for n in (7, 30)]).layout
    for width in (1, 5, 16, 33, 100):
        whole = torch.randn(37, 3, 2, width, dtype=torch.float64)
        q, k, v = (x.requires_grad_() for x in whole.unbind(1))
        ours = kernels.attend(name, q, k, v, layout, scale=0.2)
        right = reference(q, k, v, layout, scale=0.2)
        assert (ours - right).abs().max() < 1e-13
        for grad in (
            torch.ones(()).double().expand(37, 2, width),
            torch.randn(width, 2, 37).double().mT.mT.permute(2, 1, 0),
        ):
            for one, other in zip(
                *(torch.autograd.grad(x, (q, k, v), grad, retain_graph=True) for x in (ours, right))
            ):
                assert (one - other).abs().max() < 1e-12


@pytest.mark.parametrize("name", COUNTERS)
def test_what_is_not_finite_stays_visible(name):
    layout = pack([[0] * 5, [0] * 5]).layout
    q, k, v = torch.randn(3, 10, 2, 4)
    q[2, 0, 0], k[7, 1, 1] = torch.nan, torch.inf
    ours, right = (kernels.attend(n, q, k, v, layout, scale=0.5) for n in (name, "reference"))
    assert torch.equal(ours.isfinite(), right.isfinite()) and not ours.isfinite().all()


@pytest.mark.parametrize("name", COUNTERS)
def test_what_is_kept_for_the_backward_pass_grows_with_n_alone(name):
    """The textbook keeps (n, n) a head several times; here q, k, v, the output, and a number or two a query."""

    def kept(kernel, n):
        q, k, v = (torch.randn(n, 12, 64, requires_grad=True) for _ in range(3))
        saved = {}

        def keep(x):
            saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            kernels.attend(kernel, q, k, v, pack([[0] * n]).layout, scale=0.125, dropout=DROP)
        return sum(saved.values())

    one = 512 * 12 * 64 * 4
    assert kept(name, 512) < 4.2 * one, "q, k, v, output; log of the sum; the draws' keys"
    assert kept(name, 1024) == 2 * kept(name, 512)
    assert kept("sdpa", 512) > 5 * kept(name, 512)


PEAK = """
import re, sys, torch
from minibert import kernels
from minibert.batch import pack
name, n = sys.argv[1], 512
q, k, v = (torch.randn(4 * n, 12, 64, requires_grad=True) for _ in range(3))
layout = pack([[0] * n] * 4).layout
def step(texts):
    part = pack([[0] * 16] * texts).layout
    out = kernels.attend(name, *(x[: 16 * texts] for x in (q, k, v)), part, scale=0.1, dropout=kernels.Dropout(0.1))
    out.sum().backward()
step(2)  # what loading costs is no cost of the kernel
def most():  # kB; getrusage would tell the parent's, where that was larger
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = most()
kernels.attend(name, q, k, v, layout, scale=0.1, dropout=kernels.Dropout(0.1)).sum().backward()
print(most() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", COUNTERS)
def test_peak_memory_of_a_step_is_below_the_textbooks(name):
    """4 texts of 512 tokens, 12 heads of 64: a text's (n, n) for all heads is 12.6 MB, its q 1.6 MB."""

    def peak(kernel):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, kernel], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert 0 < peak(name) < 0.4 * peak("sdpa")


# --- native: the compiler ---------------------------------------------------------------------------


@pytest.fixture
def fresh(registry, monkeypatch, tmp_path):
    """A process that has neither compiled nor loaded anything, and a compiler that it must not need."""
    monkeypatch.setattr(native, "built", {})
    monkeypatch.delenv("MINIBERT_NATIVE", raising=False)
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path))
    return tmp_path


def broken(folder):
    """A compiler that says a thing and fails."""
    path = folder / "cc.py"
    path.write_text("import sys; print('no such option', file=sys.stderr); sys.exit(3)", "utf-8")
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"


def test_a_machine_without_a_compiler_says_so_and_takes_the_next(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "needs a C++ compiler" in kernels.available()["native"]
    assert kernels.choose("auto", dropout=True).name == "tiled"
    with pytest.raises(ConfigError, match="needs a C.. compiler.*\n.*tiled"):
        kernels.choose("native")


def test_a_compile_that_fails_says_why_once_and_the_next_kernel_serves(fresh, monkeypatch, capsys):
    monkeypatch.setenv("CXX", broken(fresh))
    assert kernels.available()["native"] == "", "looking compiles nothing"
    assert kernels.choose("auto", dropout=True).name == "tiled"
    said = capsys.readouterr().err
    assert "compiled once for this processor" in said and "could not be compiled" in said
    assert "no such option" in said
    kernels.choose_cached.clear()
    assert "no such option" in kernels.available()["native"]
    assert kernels.choose("auto", dropout=True).name == "tiled" and not capsys.readouterr().err
    with pytest.raises(ConfigError, match="no such option") as caught:
        kernels.choose("native")
    assert "native" not in str(caught.value).split("Kernels that can:")[1]
    assert not list(fresh.glob("native/*.so*")), "nothing half made stays"


def test_a_cache_that_can_not_be_written_is_no_trouble_either(fresh, monkeypatch, capsys):
    (fresh / "file").write_text("")
    monkeypatch.setenv("MINIBERT_CACHE", str(fresh / "file"))
    monkeypatch.setenv("CXX", broken(fresh))
    assert kernels.choose("auto", dropout=True).name == "tiled"
    assert "could not be compiled" in capsys.readouterr().err


@pytest.mark.slow
def test_a_damaged_library_is_compiled_again(fresh, monkeypatch):
    path = native.compiled(native.find_compiler())
    path.write_bytes(path.read_bytes()[:1000])
    assert kernels.check("native").passed, "compiled again: loading what is cut off would end the process"


def test_the_switch_holds_for_a_name_too(registry, monkeypatch):
    monkeypatch.setenv("MINIBERT_NATIVE", "0")
    with pytest.raises(ConfigError, match="MINIBERT_NATIVE=0"):
        kernels.choose("native")


@pytest.mark.slow
def test_it_compiles_once_for_all_processes_and_says_so(compiled, tmp_path):
    """Two processes at once on an empty cache: one compiles, the other waits or finds it; a third is silent."""
    say = "from minibert import kernels; print(kernels.choose('native').name)"
    environment = {**os.environ, "MINIBERT_CACHE": str(tmp_path)}
    environment.pop("MINIBERT_NATIVE", None)

    def start():
        return subprocess.Popen([sys.executable, "-c", say], env=environment, text=True, stdout=-1, stderr=-1)

    both = [start(), start()]
    said = [p.communicate() for p in both]
    assert [out.strip() for out, _ in said] == ["native", "native"], said
    assert sum(err.count("compiled once for this processor") for _, err in said) == 1
    out, err = start().communicate()
    assert out.strip() == "native" and not err
    assert len(list(tmp_path.glob("native/*.so"))) == 1


@pytest.mark.slow
def test_what_is_compiled_is_fitted_to_the_source_and_the_processor(fresh, monkeypatch, tmp_path):
    names = {native.compiled(native.find_compiler()).name}
    monkeypatch.setattr(native, "processor", lambda: "another")
    names.add(native.compiled(native.find_compiler()).name)
    source = tmp_path / "native.cpp"
    source.write_text(native.SOURCE.read_text("utf-8") + "\n", "utf-8")
    monkeypatch.setattr(native, "SOURCE", source)
    names.add(native.compiled(native.find_compiler()).name)
    assert len(names) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["native"])
def test_threads_change_nothing(name):
    layout = pack([[0] * n for n in (100, 7, 60)]).layout
    q, k, v, grad = torch.randn(4, 167, 4, 32)
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        out = kernels.attend(name, q, k, v, layout, scale=0.2, dropout=DROP)
        found.append((out, *torch.autograd.grad(out, (q, k, v), grad)))
    torch.set_num_threads(1)
    assert all(torch.equal(one, other) for one, other in zip(*found))


# --- varlen: what torch's kernel is asked ---------------------------------------------------------


@pytest.fixture
def stand_in(registry, monkeypatch):
    """torch's kernel played by the reference, which holds the call to what the kernel's documentation says."""
    import torch.nn.attention.varlen as theirs

    calls = []

    def varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        assert cu_q is cu_k and cu_q.dtype == torch.int32 and cu_q.is_contiguous()
        assert type(max_q) is int and max_q == max_k == int(cu_q.diff().max())
        assert q.shape[-1] % 8 == 0 and q.shape == k.shape == v.shape and q.dtype == k.dtype == v.dtype
        assert q.dtype in (torch.bfloat16, torch.float16) and all(x.stride(-1) == 1 for x in (q, k, v))
        calls.append((tuple(q.shape), window_size))
        layout = dataclasses.replace(pack([[0] * n for n in cu_q.diff().tolist()]).layout)
        window = None if window_size == (-1, -1) else window_size
        return reference(q.float(), k.float(), v.float(), layout, scale=scale, window=window).to(q.dtype)

    monkeypatch.setattr(theirs, "varlen_attn", varlen_attn)
    kernels.register(
        "here",
        devices=("cpu",),
        dtypes=(torch.bfloat16, torch.float16),
        dropout="",
        gradients=True,
        window=True,
    )(varlen.varlen)
    return calls


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_varlen_hands_the_pack_over_as_it_is(stand_in, dtype):
    found = kernels.check("here", dtype)
    assert found.passed, found
    assert {window for _, window in stand_in} == {(-1, -1), (2, 3)}
    assert {shape for shape, _ in stand_in} == {(sum(gate.LENGTHS), 4, width) for width in gate.WIDTHS}


def test_varlen_widens_heads_to_what_the_kernel_takes_and_refuses_wider_ones(stand_in):
    q, k, v, grad = torch.randn(4, 18, 4, 6, dtype=torch.bfloat16)
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    layout = toy_batch().layout
    out = kernels.attend("here", q, k, v, layout, scale=0.4)
    plain = reference(q.float(), k.float(), v.float(), layout, scale=0.4)
    assert stand_in == [((18, 4, 8), (-1, -1))] and torch.equal(out, plain.bfloat16())
    ours = torch.autograd.grad(out, (q, k, v), grad)
    theirs = torch.autograd.grad(plain, (q, k, v), grad.float())
    assert all(
        a.shape == b.shape and torch.allclose(a.float(), b.float(), atol=0.02) for a, b in zip(ours, theirs)
    )
    wide = torch.zeros(18, 1, 264, dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match="heads up to 256 wide"):
        kernels.attend("here", wide, wide, wide, layout, scale=1.0)


def a_card(monkeypatch, capability=(8, 0), built=True):
    """A machine with a card, as far as it is asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda card=None: "Tesla T4")
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: built)
    monkeypatch.setattr(kernels, "choose_cached", {})


def test_a_card_takes_varlen_and_with_dropout_triton_or_padded_and_says_why(monkeypatch, registry):
    a_card(monkeypatch)
    wish = {"device": "cuda", "dtype": torch.bfloat16, "gradients": True}
    assert kernels.choose("auto", **wish).name == "varlen" and kernels.passed_over("varlen", **wish) == {}
    here = {"needs": "", "build": lambda really: ""}
    for able, taken in (({"needs": "no_such_package"}, "padded"), (here, "triton")):
        kernels.KERNELS["triton"] = dataclasses.replace(kernels.KERNELS["triton"], **able)
        kernels.choose_cached.clear()
        assert kernels.choose("auto", **wish, dropout=True).name == taken
        why = {"varlen": "has no dropout", "triton": "needs the package no_such_package"}
        why = why if taken == "padded" else {"varlen": "has no dropout"}
        assert kernels.passed_over(taken, **wish, dropout=True) == why
    assert kernels.choose("auto", **wish, window=True).name == "varlen"
    assert kernels.choose("auto", **wish, bias=True).name == "padded", "MPNet"
    assert kernels.choose("auto", device="cuda").name == "padded", "in float32"
    assert kernels.passed_over("padded", device="cuda") == {"varlen": "has no float32"}
    with pytest.raises(ConfigError, match="'varlen' can't be used here: has no dropout") as caught:
        kernels.choose("varlen", **wish, dropout=True)
    assert "padded" in str(caught.value).split("Kernels that can:")[1]
    assert "tiled" in kernels.available(**wish) and kernels.passed_over("sdpa") == {}


@pytest.mark.parametrize(
    ("capability", "built", "why"),
    [((7, 5), True, "from Ampere on, and Tesla T4 is older"), ((8, 0), False, "built with flash attention")],
)
def test_varlen_says_what_a_machine_lacks(monkeypatch, capability, built, why):
    a_card(monkeypatch, capability, built)
    assert kernels.choose("auto", device="cuda", dtype=torch.float16).name == "padded"
    with pytest.raises(ConfigError, match=why):
        kernels.choose("varlen", device="cuda", dtype=torch.float16)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_varlen_passes_the_gate_on_the_card(dtype):
    found = kernels.check("varlen", dtype, device="cuda")
    assert found.passed, found


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["padded", "sdpa"])
@pytest.mark.parametrize("n", [64, 192, 320])
def test_a_mask_gives_no_nan_where_cudnn_would(name, n):
    """pytorch #196678: 64 more than a multiple of 128, scores so low that exp(0 - lse) overflows."""
    layout = pack([[0] * n, [0] * (n - 3)]).layout.to("cuda")
    q, k, v = torch.randn(3, 2 * n - 3, 2, 64, device="cuda", dtype=torch.bfloat16)
    q, k = q * 0.1, k * 0.1
    q[..., 0], k[..., 0] = 1.0, -120 * 8
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    window = (n, n) if name == "sdpa" else None  # a mask for sdpa, too
    out = kernels.attend(name, q, k, v, layout, scale=1 / 8, window=window)
    found = torch.autograd.grad(out.float().square().sum(), (q, k, v))
    assert all(bool(torch.isfinite(x).all()) for x in found)


def test_register_refuses_a_word_it_does_not_know():
    with pytest.raises(ConfigError, match="dropout"):
        kernels.register("x", devices=("cpu",), dtypes=kernels.FLOATS, dropout="yes", gradients=True)


def test_attend_asks_for_gradients_only_where_they_are_wanted(registry):
    kernels.register("poor", devices=("cpu",), dtypes=kernels.FLOATS, dropout="", gradients=False)(reference)
    q = torch.randn(18, 4, 6, requires_grad=True)
    layout = toy_batch().layout
    with pytest.raises(ConfigError, match="has no gradients"):
        kernels.attend("poor", q, q, q, layout, scale=1.0)
    with torch.no_grad():
        kernels.attend("poor", q, q, q, layout, scale=1.0)


def test_equal_lengths_share_a_group_and_keep_their_places():
    from minibert.kernels import sdpa

    groups, order, back = sdpa.plan(pack([[0] * n for n in (4, 9, 4)]).layout, torch.device("cpu"))
    assert groups == [(2, 4), (1, 9)]
    assert order.tolist() == [0, 1, 2, 3, 13, 14, 15, 16, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert order[back].tolist() == list(range(17))
    assert sdpa.plan(pack([[0] * n for n in (9, 4, 4)]).layout, torch.device("cpu"))[1:] == (None, None)


@pytest.mark.parametrize("seed", range(6))
def test_texts_of_like_length_share_a_rectangle(seed):
    """Every text once, from short to long, in a bounded number of groups of little padding."""
    from minibert.kernels import padded

    generator = torch.Generator().manual_seed(seed)
    low = (1, 90, 1, 1, 400, 60)[seed]
    lengths = torch.randint(low, (513, 110, 60, 2, 513, 90)[seed], (64,), generator=generator).tolist()
    groups = padded.buckets(lengths)
    assert sorted(i for group in groups for i in group) == list(range(64)) and len(groups) <= padded.BUCKETS
    sizes = [[lengths[i] for i in group] for group in groups]
    assert [n for size in sizes for n in size] == sorted(lengths)
    waste = [1 - sum(size) / (len(size) * max(size)) for size in sizes]
    if low > 1:  # lengths that eight rectangles can hold as they should
        assert max(waste) <= padded.WASTE + 1e-9
        more = [[*a, b[0]] for a, b in zip(sizes, sizes[1:])]
        assert all(1 - sum(x) / (len(x) * max(x)) > padded.WASTE for x in more), "each is as large as may be"
    assert 1 - sum(lengths) / sum(len(size) * max(size) for size in sizes) < 0.2, "over all"
    assert padded.buckets([7] * 9) == [list(range(9))] and padded.buckets([5, 900]) == [[0], [1]]
    assert padded.buckets([]) == []


def test_a_rectangle_without_padding_has_no_mask(monkeypatch):
    """And the cells that a mask hides are told apart: what stands in them changes nothing."""
    from minibert.kernels import padded

    seen = []

    def fused(q, k, v, mask, dropout, scale, by):
        seen.append((tuple(q.shape), None if mask is None else mask.sum((1, 2, 3)).tolist()))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)

    monkeypatch.setattr(padded, "fused", fused)
    layout, q = pack([[0] * n for n in (40, 5, 39, 5)]).layout, torch.randn(89, 4, 8)
    kernels.attend("padded", q, q, q, layout, scale=1.0)
    assert seen == [((2, 4, 5, 8), None), ((2, 4, 40, 8), [39, 40])]
    kernels.attend("padded", q, q, q, layout, scale=1.0)
    assert [key for key in layout.memo] == ["padded"], "the rectangles are made once a batch"


def test_the_padded_kernel_matches_torchs_own_with_a_mask():
    layout = toy_batch().layout
    q, k, v = torch.randn(3, 18, 4, 6, dtype=torch.float64)
    out = kernels.attend("padded", q, k, v, layout, scale=6**-0.5)
    start = 0
    for n in layout.lengths:
        part = slice(start, start + n)
        alone = F.scaled_dot_product_attention(*(x[part].transpose(0, 1) for x in (q, k, v))).transpose(0, 1)
        assert (out[part] - alone).abs().max() < 1e-14
        start += n


@pytest.mark.parametrize("name", ["sdpa", "padded"])
def test_what_a_window_hides_is_made_once_a_batch(name):
    """One mask a length, kept for the next layer; a bias learns, so what it adds is made anew."""
    layout, q = pack([[0] * n for n in (5, 9, 5)]).layout, torch.randn(19, 4, 8)
    first = kernels.attend(name, q, q, q, layout, scale=1.0, window=(1, 2))
    kept = {key: x for key, x in layout.memo.items() if key[0] == "window"}
    assert len(kept) == 2
    assert torch.equal(kernels.attend(name, q, q, q, layout, scale=1.0, window=(1, 2)), first)
    assert all(layout.memo[key] is x for key, x in kept.items())
    kernels.attend(name, q, q, q, layout, scale=1.0, window=(1, 2), bias=torch.randn(4, 17))
    kernels.attend(name, q, q, q, layout, scale=1.0, window=(3, 3))
    assert len([key for key in layout.memo if key[0] == "window"]) == 4
