"""Every kernel there is, on every form of pack, against the oracle; and the oracle against what it replaces."""

from __future__ import annotations

import itertools
import subprocess
import sys
import types

import pytest
import torch

from minibert import kernels
from minibert.batch import pack
from minibert.errors import ConfigError, EnvironmentProblem
from minibert.kernels import Dropout, backends, compiled, counter, flex, gate, packages
from minibert.kernels.oracle import oracle
from minibert.kernels.reference import reference

COMPILE = {"native", "compiled", "compiled_own", "flex"}  # that take seconds to compile, or a minute
HERE = [
    pytest.param(name, marks=pytest.mark.slow) if name in COMPILE else name
    for name, kernel in kernels.KERNELS.items()
    if "cpu" in kernel.devices and not kernel.needs
]
LENGTHS = {"one token": (1,), "ragged": (5, 11, 2, 1, 70, 11), "equal": (12, 12, 12)}
DROP = Dropout(0.3, (5, 6, 7))


@pytest.fixture(autouse=True)
def built(request):
    """A kernel that is compiled needs a compiler."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if name == "native":
        request.getfixturevalue("can")(name)
    elif name in COMPILE and (why := kernels.KERNELS[name].at("cpu").build(True)):
        pytest.skip(f"{name} {why}")


def passes(name, dtype):
    kernel = kernels.KERNELS[name].at("cpu")
    if dtype not in kernel.dtypes:
        pytest.skip(f"{name} has no {dtype}")
    found = kernels.check(name, dtype)
    assert found.passed, found
    assert ("dropout output" in found.errors) == (kernel.dropout == "counter")
    assert ("dq" in found.errors) == kernel.gradients


# --- the gate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", HERE)
def test_ragged_texts_in_every_dtype(name, dtype):
    passes(name, dtype)


@pytest.mark.parametrize("lengths", ["one token", "equal"])
@pytest.mark.parametrize("name", HERE)
def test_other_forms_of_pack(name, lengths, monkeypatch):
    monkeypatch.setattr(gate, "LENGTHS", LENGTHS[lengths])
    passes(name, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_texts_of_more_than_a_thousand_tokens(name, monkeypatch):
    monkeypatch.setattr(gate, "LENGTHS", (1030, 3))
    monkeypatch.setattr(gate, "HEADS", 1)
    monkeypatch.setattr(gate, "WIDTHS", (32,))
    passes(name, torch.float32)


def test_tiles_smaller_than_a_text(monkeypatch):
    """So that a row's largest score and its sum run through several tiles."""
    monkeypatch.setattr(kernels.numpy, "QUERIES", 16)
    monkeypatch.setattr(kernels.numpy, "KEYS", 10)
    passes("numpy", torch.float64)


@pytest.mark.parametrize("shape", [(12, 32), (12, 64), (16, 64)], ids=str)
@pytest.mark.parametrize("name", ["oracle", "numpy", "loop", "sdpa_flash", "tiled"])
def test_the_heads_of_real_models(name, shape, monkeypatch):
    monkeypatch.setattr(gate, "LENGTHS", (17, 40))
    monkeypatch.setattr(gate, "HEADS", shape[0])
    monkeypatch.setattr(gate, "WIDTHS", shape[1:])
    passes(name, torch.float32)


# --- what is the same in all ----------------------------------------------------------------------


@pytest.mark.parametrize("name", HERE)
def test_the_batch_reordered_gives_the_same(name):
    """Output and gradients, and where the mask is the counter's with dropout."""
    kernel = kernels.KERNELS[name].at("cpu")
    dtype = torch.float64 if torch.float64 in kernel.dtypes else torch.float32
    lengths, order = (5, 11, 2, 70, 11), (3, 1, 4, 0, 2)
    parts = [torch.randn(4, n, 2, 16, dtype=dtype) for n in lengths]
    drop = DROP if kernel.dropout == "counter" else None

    def found(rows):
        layout = pack([[0] * lengths[row] for row in rows], rows=rows).layout
        q, k, v, grad = torch.cat([parts[row] for row in rows], 1)
        q, k, v = (x.requires_grad_(kernel.gradients) for x in (q, k, v))
        out = kernels.attend(name, q, k, v, layout, scale=0.3, dropout=drop)
        every = (out, *torch.autograd.grad(out, (q, k, v), grad)) if kernel.gradients else (out,)
        return dict(zip(rows, zip(*(x.detach().split(layout.lengths) for x in every))))

    one, other = found(range(5)), found(order)
    limit = 1e-13 if dtype == torch.float64 else 1e-5
    assert all((a - b).abs().max() < limit for row in one for a, b in zip(one[row], other[row]))


@pytest.mark.parametrize("name", HERE)
def test_no_texts_and_a_filler(name):
    q = torch.randn(25, 2, 16)
    assert kernels.attend(name, q[:0], q[:0], q[:0], pack([]).layout, scale=1.0).shape == (0, 2, 16)
    full, plain = (pack([[0] * 18], fill_to=n).layout for n in (25, 18))
    out = kernels.attend(name, q, q, q, full, scale=0.3)
    alone = kernels.attend(name, q[:18], q[:18], q[:18], plain, scale=0.3)
    assert out.shape == q.shape and (out[:18] - alone).abs().max() < 1e-5


COUNTERS = [x for x in ("oracle", "numpy", "tiled") if kernels.KERNELS[x].dropout == "counter"]


@pytest.mark.parametrize("name", COUNTERS)
def test_the_mask_is_the_counters_forward_and_backward(name):
    """Where v is the unit matrix a token's output is its row of P∘M, and where dO is, dv is that turned."""
    n = 130  # more than a tile
    layout, q = pack([[0] * n], rows=(9,)).layout, torch.zeros(n, 2, n)
    v = torch.eye(n)[:, None].repeat(1, 2, 1).requires_grad_()
    out = kernels.attend(name, q, q, v, layout, scale=1.0, dropout=DROP)
    (dv,) = torch.autograd.grad(out, v, torch.eye(n)[:, None].repeat(1, 2, 1))
    (mask,) = counter.masks(layout, 2, DROP)  # (2, n, n)
    assert (out.transpose(0, 1) * n - mask).abs().max() < 1e-4
    assert (dv.transpose(0, 1).mT * n - mask).abs().max() < 1e-4
    assert abs(float((mask > 0).double().mean()) - 0.7) < 0.01, "the share kept"


# --- the oracle -----------------------------------------------------------------------------------

WISHES = {
    "plain": {},
    "dropout": {"dropout": DROP},
    "window": {"window": (2, 1)},
    "bias": {"bias": torch.randn(2, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(1))},
}


@pytest.mark.parametrize("wish", WISHES)
def test_the_oracles_derivatives_are_autograds_and_those_of_finite_differences(wish):
    layout = pack([[0] * n for n in (5, 1, 4)], rows=(9, 2, 4)).layout
    inputs = [torch.randn(10, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    extra = dict(WISHES[wish])
    names = ["bias"] if wish == "bias" else []
    inputs += [extra.pop(name).clone().requires_grad_() for name in names]

    def run(kernel, *inputs, **more):
        return kernel(*inputs[:3], layout, scale=0.6, **dict(zip(names, inputs[3:])), **more)

    assert torch.autograd.gradcheck(lambda *x: run(oracle, *x, **extra), inputs)
    plainly = {"kept": counter.masks(layout, 2, DROP)} if wish == "dropout" else extra
    ours, theirs = run(oracle, *inputs, **extra), run(reference, *inputs, **plainly)
    assert (ours - theirs).abs().max() < 1e-14
    grad = torch.randn_like(ours)
    for one, other in zip(*(torch.autograd.grad(x, inputs, grad) for x in (ours, theirs))):
        assert (one - other).abs().max() < 1e-14


def test_the_oracle_computes_in_float64_and_a_few_heads_at_a_time(monkeypatch):
    layout, q = pack([[0] * 30]).layout, torch.randn(30, 5, 16)
    exact = oracle(*[q.double()] * 3, layout, scale=0.2)
    assert torch.equal(oracle(q, q, q, layout, scale=0.2), exact.float())
    monkeypatch.setattr(sys.modules["minibert.kernels.oracle"], "CELLS", 2 * 30 * 30)
    assert torch.allclose(oracle(*[q.double()] * 3, layout, scale=0.2), exact, atol=1e-15)


# --- the registry ---------------------------------------------------------------------------------


def test_auto_asks_no_kernel_that_is_there_to_be_read_or_raced():
    written = {*kernels.ORDER, *kernels.DROPPING, *kernels.CARD, *kernels.CARD_DROPPING}
    assert kernels.OURS - written >= {"oracle", "numpy", "loop", "blockmask", "flex", "compiled", "sdpa_math"}
    for device, dropout in itertools.product(("cpu", "cuda", "mps"), (False, True)):
        assert set(kernels.order(device, dropout)) <= written


def test_auto_asks_a_kernel_of_ones_own_last(monkeypatch):
    monkeypatch.setattr(kernels, "KERNELS", dict(kernels.KERNELS))
    options = {"devices": ("cpu",), "dtypes": kernels.FLOATS, "dropout": "", "gradients": True}
    kernels.register("mine", **options)(reference)
    assert kernels.order("cpu", False) == (*kernels.ORDER, "mine")


def test_every_kernel_is_listed_with_its_reason():
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        listed = kernels.available(device=device, dtype=dtype)
        assert set(listed) == set(kernels.KERNELS)
    listed = kernels.available()
    assert listed["sdpa_efficient"] == "runs on cuda, not cpu" and listed["numpy"] == ""
    assert listed["xformers"].startswith("needs the package xformers") or packages_installed("xformers")


def packages_installed(name):
    return name in sys.modules or __import__("importlib.util").util.find_spec(name) is not None


def test_what_a_kernel_can_may_differ_by_device():
    assert kernels.available(gradients=True)["flex"].endswith("has no gradients")
    assert "gradients" not in kernels.available(device="cuda", gradients=True)["flex"]
    assert kernels.available(dropout=True)["sdpa_flash"] == "has no dropout"
    assert "dropout" not in kernels.available(device="cuda", dropout=True)["sdpa_flash"]
    with pytest.raises(ConfigError, match="dropout = 'often'"):
        kernels.register(
            "x",
            devices=("cpu",),
            dtypes=(),
            dropout="",
            gradients=True,
            elsewhere={"cpu": {"dropout": "often"}},
        )


@pytest.mark.slow
def test_importing_the_kernels_loads_no_compiler():
    script = "import sys, minibert.kernels; print({'torch._dynamo', 'torch.nn.attention.flex_attention'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- torch's backends by name ---------------------------------------------------------------------


def test_a_backend_is_the_one_named():
    q = torch.randn(18, 2, 16, requires_grad=True)
    for lengths in ((18,), (11, 7)):  # without a mask and with one
        seen = {}
        for name in ("sdpa_math", "sdpa_flash"):
            with torch.profiler.profile() as profile:
                kernels.attend(name, q, q, q, pack([[0] * n for n in lengths]).layout, scale=1.0)
            seen[name] = {one.key for one in profile.key_averages()}
        fused = "aten::_scaled_dot_product_flash_attention_for_cpu"
        assert fused in seen["sdpa_flash"] and fused not in seen["sdpa_math"]


@pytest.mark.filterwarnings("ignore")
def test_a_backend_that_can_not_says_so_and_no_other_serves():
    q, layout = torch.randn(18, 2, 16), pack([[0] * 18]).layout
    with pytest.raises(ConfigError, match="'sdpa_flash' can't be used here: has no dropout"):
        kernels.attend("sdpa_flash", q, q, q, layout, scale=1.0, dropout=DROP)
    with pytest.raises(ConfigError, match="can't compute this here"):  # past the table
        kernels.KERNELS["sdpa_flash"].fn(q, q, q, layout, scale=1.0, dropout=DROP)
    narrow = backends.TABLE["sdpa_cudnn"][0]._replace(device="cpu")
    for width in (100, 136):
        wide = torch.randn(18, 1, width)
        with pytest.raises(ConfigError, match=f"multiple of 8, up to 128, not {width}"):
            backends.kernel("narrow", {"cpu": narrow})(wide, wide, wide, layout, scale=1.0)


# --- what is compiled -----------------------------------------------------------------------------


def test_without_a_compiler_they_say_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    listed = kernels.available()
    assert all("needs a C++ compiler" in listed[name] for name in ("compiled", "compiled_own", "flex"))


def test_what_the_compiler_raises_gets_a_name():
    import torch._inductor.exc as exc

    with pytest.raises(EnvironmentProblem, match="kernel mine could not be compiled"), compiled.named("mine"):
        raise exc.CppCompileError(["g++"], "no such option")
    with pytest.raises(ValueError), compiled.named("mine"):
        raise ValueError


def test_flexs_blocks_are_made_once_for_a_layout_and_hold_what_is_allowed():
    layout = pack([[0] * n for n in (200, 100, 212)]).layout
    mask = flex.mask_of(layout)
    assert flex.mask_of(layout) is mask
    held = mask.to_dense()[0, 0]  # (4, 4): which blocks of 128 are computed
    assert held.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert flex.mask_of(pack([[0] * 5]).layout).seq_lengths == (256, 256), (
        "one block would be a graph of its own"
    )


@pytest.mark.slow
def test_flex_compiles_once_for_packs_of_like_size():
    from torch._dynamo.utils import counters

    if why := flex.missing():
        pytest.skip(f"flex {why}")

    def graphs(*lengths):
        q = torch.randn(sum(lengths), 3, 8)
        out = kernels.attend("flex", q, q, q, pack([[0] * n for n in lengths]).layout, scale=1.0)
        right = reference(q, q, q, pack([[0] * n for n in lengths]).layout, scale=1.0)
        assert (out - right).abs().max() < 1e-5
        return counters["stats"]["unique_graphs"]

    first = graphs(100, 64)
    assert {graphs(1), graphs(128), graphs(128, 128), graphs(5, 5)} == {first}
    assert graphs(50, 210) == first + 1 == graphs(300)


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(7, 7), (5, 9)], ids=str)
def test_what_inductor_made_of_the_textbook_is_told(lengths):
    """Of the unmasked textbook torch 2.13 makes fused attention; where it doesn't, the word is the other one."""
    if why := compiled.missing():
        pytest.skip(f"compiled {why}")
    layout, own = pack([[0] * n for n in lengths]).layout, "fused softmax, own code"
    tensors = torch.randn(3, 14, 2, 16)

    def told(name: str) -> str:
        kernel = kernels.KERNELS[name].fn
        return kernel.label(lambda: kernel(*tensors, layout, scale=0.25))

    assert told("compiled_own") == own
    assert told("compiled") == ("pattern-matched into SDPA" if lengths == (7, 7) else own)


# --- packages that are not here: what they are asked -----------------------------------------------


def stand_in(calls):
    """Both packages played by the reference, which holds the calls to what their documentation says."""

    def flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None,
        causal=False, window_size=(-1, -1),
    ):  # fmt: skip
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32 and type(max_seqlen_q) is int
        assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max()) and not causal
        calls.append(("flash_attn", dropout_p, window_size))
        window = None if window_size == (-1, -1) else window_size
        layout = pack([[0] * n for n in cu_seqlens_q.diff().tolist()]).layout
        return reference(q, k, v, layout, scale=softmax_scale, window=window)

    def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None):
        assert query.dim() == 4 and len(query) == 1, "[B, M, H, K]"
        calls.append(("xformers", p, attn_bias))
        layout = pack([[0] * n for n in attn_bias]).layout
        return reference(query[0], key[0], value[0], layout, scale=scale)[None]

    class BlockDiagonalMask:
        @staticmethod
        def from_seqlens(q_seqlen, kv_seqlen=None, *, device=None):
            assert type(q_seqlen) is list and device is not None
            return q_seqlen

    return {
        "flash_attn": {"flash_attn_varlen_func": flash_attn_varlen_func},
        "xformers": {},
        "xformers.ops": {"memory_efficient_attention": memory_efficient_attention},
        "xformers.ops.fmha": {},
        "xformers.ops.fmha.attn_bias": {"BlockDiagonalMask": BlockDiagonalMask},
    }


def test_other_packages_are_asked_by_their_documentation(monkeypatch):
    calls = []
    for name, content in stand_in(calls).items():
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**content, __path__=[]))
    lengths = (5, 11, 2)
    layout, q = pack([[0] * n for n in lengths]).layout, torch.randn(18, 2, 16)
    right = reference(q, q, q, layout, scale=0.3)
    for fn in (packages.flash_attn, packages.xformers):
        assert torch.equal(fn(q, q, q, layout, scale=0.3), right)
        fn(q, q, q, layout, scale=0.3, dropout=Dropout(0.1))
    near = packages.flash_attn(q, q, q, layout, scale=0.3, window=(2, 3))
    assert torch.equal(near, reference(q, q, q, layout, scale=0.3, window=(2, 3)))
    assert calls == [
        ("flash_attn", 0.0, (-1, -1)), ("flash_attn", 0.1, (-1, -1)),
        ("xformers", 0.0, list(lengths)), ("xformers", 0.1, list(lengths)),
        ("flash_attn", 0.0, (2, 3)),
    ]  # fmt: skip
    wide = torch.zeros(18, 1, 264)
    with pytest.raises(ConfigError, match="heads up to 256 wide"):
        packages.flash_attn(wide, wide, wide, layout, scale=1.0)
