"""The kernel triton without a card: interpreted on a CPU, compiled for cards, and when `auto` takes it.

Triton's interpreter says nothing of a card's own rounding, races and speed: those are for the tests marked `gpu`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minibert import kernels
from minibert.batch import pack
from minibert.errors import ConfigError
from minibert.kernels import Dropout, counter, gate, triton
from minibert.kernels.reference import reference

ROOT = Path(__file__).parent.parent
DROP = Dropout(0.3, (2**63 - 1, 2**40 + 3, 2**31))
needs_triton = pytest.mark.skipif(
    kernels.KERNELS["triton"].why_not("cuda").startswith("needs the package"),
    reason="triton is in the extra of that name",
)

# name -> (dtype, lengths, head widths): tiles are 128 x 64 in half precision, 32 x 32 in float32
GATES = {
    "ragged": ("float32", (33, 1, 70, 5), (64,)),
    "one token": ("float32", (1,), (16, 32)),
    "a block exactly": ("float32", (32, 64), (32,)),
    "any width": ("float32", (9, 40), (20, 128)),
    "bfloat16": ("bfloat16", (130, 3), (64,)),
    "bfloat16, wide": ("bfloat16", (65,), (128,)),
    "float16": ("float16", (64, 17), (32,)),
}


# --- interpreted on a CPU ---------------------------------------------------------------------------


def scenario() -> None:
    """What the interpreting process does; what it found is printed, as JSON. Some minutes beside other work."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gate.HEADS = 2
    out = {}
    for name, (dtype, gate.LENGTHS, gate.WIDTHS) in GATES.items():
        found = kernels.check("triton", getattr(torch, dtype))
        out[name] = {"passed": found.passed, "ratios": found.ratios}
    out["order"], out["mask"] = in_any_order(), masks()
    out["trouble"] = trouble()
    print(json.dumps(out))


def attend(q, k, v, lengths, rows, fill=0, name="triton", **wish):
    layout = pack([[0] * n for n in lengths], rows=rows, fill_to=sum(lengths) + fill).layout
    return kernels.attend(name, q, k, v, layout, scale=wish.pop("scale", 0.3), **wish)


def in_any_order() -> dict[str, bool]:
    """Output and gradients of each text, bit for bit; and other bits where its row number is another."""
    lengths, width = {3: 5, 11: 40, -4: 33}, 16
    parts = {row: torch.randn(4, n, 2, width) for row, n in lengths.items()}

    def found(rows, fill=0, more=0):
        numbers = torch.cat([*(parts[row] for row in rows), torch.ones(4, fill, 2, width)], 1)
        q, k, v, grad = numbers
        q, k, v = (x.requires_grad_() for x in (q, k, v))
        ns = [lengths[row] for row in rows]
        out = attend(q, k, v, ns, [row + more for row in rows], fill, dropout=DROP)
        every = (out, *torch.autograd.grad(out, (q, k, v), grad))
        return dict(zip(rows, zip(*(x.detach().split([*ns, fill]) for x in every))))

    rows = list(lengths)
    plain, turned, others = found(rows), found(rows[::-1], fill=7), found(rows, more=1)
    same = all(torch.equal(a, b) for row in rows for a, b in zip(plain[row], turned[row]))
    return {"same": same, "other rows": torch.equal(plain[11][0], others[11][0])}


def masks() -> bool:
    """With equal scores, and values that are the keys' own unit vectors, the output is the mask over n."""
    lengths, rows = (40, 3), (2**33 + 1, -9)
    layout = pack([[0] * n for n in lengths], rows=rows, fill_to=50).layout
    q, v = torch.zeros(50, 2, 64), torch.zeros(50, 2, 64)
    v[torch.arange(50), :, layout.positions] = 1.0
    out = kernels.attend("triton", q, q, v, layout, scale=1.0, dropout=DROP)
    wanted = torch.cat([
        torch.nn.functional.pad(mask.transpose(0, 1) / n, (0, 64 - n))
        for n, mask in zip(layout.lengths, counter.masks(layout, 2, DROP))
    ])  # fmt: skip
    return torch.equal(out == 0, wanted == 0) and bool((out - wanted).abs().max() < 1e-6)


def trouble() -> dict[str, object]:
    """Odd inputs: the largest difference from the reference in float64, or what is said."""
    out: dict[str, object] = {}

    def beside(name, q, k, v, grad, **wish):
        both = []
        for kernel, dtype in (("triton", torch.float32), ("reference", torch.float64)):
            inputs = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
            made = attend(*inputs, (30, 7), None, name=kernel, **wish)
            both.append((made, *torch.autograd.grad(made, inputs, grad.to(dtype))))
        out[name] = float(torch.stack([(a.detach() - b).abs().max() for a, b in zip(*both)]).max())  # or NaN

    whole = torch.randn(37, 3, 2, 16)
    q, k, v = whole.unbind(1)
    beside("slices, an expanded gradient", q, k, v, torch.ones(()).expand(37, 2, 16))
    turned = torch.randn(2, 16, 37).permute(2, 0, 1)
    beside("turned", turned, k, turned, turned)
    beside("scores of -256", torch.full_like(q, -4.0), torch.full_like(k, 4.0) + k / 100, v, v, scale=1.0)
    beside("a scale below 0", q, k, v, v, scale=-0.3)
    beside("a window that is wider than all", q, k, v, v, window=(2**40, 0))
    q = q.clone()
    q[3, 0, 0] = torch.nan
    ours, right = (attend(q, k, v, (30, 7), None, name=name) for name in ("triton", "reference"))
    out["nan"] = torch.equal(ours.isfinite(), right.isfinite()) and not ours.isfinite().all()
    out["no texts"] = list(attend(*torch.randn(3, 0, 2, 16), (), None).shape)
    try:
        attend(*torch.zeros(3, 1, 1, 136), (1,), None)
    except ConfigError as problem:
        out["wide"] = str(problem)
    return out


@pytest.fixture(scope="module")
def found():
    """What the interpreting process printed; the variable must be there before Triton is imported."""
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", "from tests.test_triton import scenario; scenario()"]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-10000:]
    return json.loads(done.stdout.splitlines()[-1])


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", GATES)
def test_interpreted_it_passes_the_gate(found, name):
    """Forward and gradients; plain, with windows, and with dropout, whose mask both passes must draw."""
    # The interpreter cuts bfloat16 off where a card rounds it: twice the last place's share of an error.
    assert found[name]["passed"] or "bfloat16" in name, found[name]
    assert max(found[name]["ratios"].values()) <= 3, found[name]
    wishes, four = ("", "dropout ", "window "), ("output", "dq", "dk", "dv")
    assert set(found[name]["ratios"]) == {f"{wish}{word}" for wish in wishes for word in four}


@needs_triton
@pytest.mark.slow
def test_the_mask_is_the_counters(found):
    assert found["mask"]


@needs_triton
@pytest.mark.slow
def test_a_text_gets_the_same_bits_in_any_order(found):
    assert found["order"] == {"same": True, "other rows": False}


@needs_triton
@pytest.mark.slow
def test_odd_inputs(found):
    odd = dict(found["trouble"])
    assert odd.pop("nan") and odd.pop("no texts") == [0, 2, 16]
    assert "heads up to 128 wide, not 136" in odd.pop("wide")
    # In float32 a score of 256 has a last place of 3e-5, so have the probabilities made of it.
    assert odd.pop("scores of -256") < 1e-3, "the last block's empty places take no part: 2^256 is no number"
    assert all(difference < 2e-5 for difference in odd.values()), odd


# --- compiled for cards, without one ----------------------------------------------------------------

COMPILE = """
import sys, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from minibert.kernels import triton as host, triton_code as code

POINTERS = {"tiles": "*i32", "rows": "*i64", "words": "*i32", "lse": "*fp32", "delta": "*fp32"}
TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}
for dtype, width, capability in ((torch.bfloat16, 64, 90), (torch.bfloat16, 128, 80), (torch.float32, 64, 90)):
    for name in ("forward", "backward_queries", "backward_keys"):
        chosen = host.sizes(name, width, dtype, 512, True)
        options = {word: chosen.pop(word) for word in ("num_warps", "num_stages", "maxnreg") if word in chosen}
        fixed = {**chosen, "DROPOUT": True, "WINDOW": True, "WIDTH": width, "COLUMNS": width, "PRECISION": "ieee"}
        program, types, aligned = getattr(code, name), {}, {}
        for i, word in enumerate(program.arg_names):
            tensor = word in ("q", "k", "v", "out", "grad", "dq", "dk", "dv")
            types[word] = ("constexpr" if word in fixed else TYPES[dtype] if tensor else
                           "fp32" if word in ("factor", "scale", "kept") else POINTERS.get(word, "i32"))
            if types[word].startswith("*") or word.endswith(("_token", "_head")):
                aligned[i,] = [["tt.divisibility", 16]]
        places = {(program.arg_names.index(word),): value for word, value in fixed.items()}
        source = ASTSource(fn=program, signature=types, constexprs=places, attrs=aligned)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        products = [word for word in ("wgmma", "mma.sync", "tf32") if word in made.asm["ptx"]]
        print(name, str(dtype)[6:], capability, made.metadata.shared, *products)
"""


@needs_triton
@pytest.mark.slow
def test_cards_compilers_take_every_program(tmp_path):
    """Half precision on tensor cores, float32 not in TF32, and no more shared memory than any card has."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    env.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-10000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 9
    for _, dtype, capability, shared, *products in lines:
        assert int(shared) <= 99 * 1024, "what cards of 8.6 and 8.9 have"
        assert products == ([] if dtype == "float32" else ["wgmma"] if capability == "90" else ["mma.sync"])


# --- what the host decides --------------------------------------------------------------------------


def test_no_tile_is_empty_and_long_texts_come_first():
    layout = pack([[0] * n for n in (5, 130, 1, 64, 65)], fill_to=300).layout
    table = triton.tiles(layout, 64)
    assert table.dtype == torch.int32 and table[:, 1].tolist() == [130] * 3 + [65] * 2 + [64, 35, 5, 1]
    assert table[:, 2].tolist() == [0, 64, 128, 0, 64, 0, 0, 0, 0]
    texts = layout.cu_seqlens
    assert torch.equal(texts[table[:, 3]], table[:, 0]) and triton.tiles(layout.at(3), 64) is table
    covered = [start + i for start, n, first, _ in table.tolist() for i in range(first, min(first + 64, n))]
    assert sorted(covered) == list(range(300))


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("program", ["forward", "backward_queries", "backward_keys"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tiles_are_what_triton_takes_and_no_larger_than_texts(dtype, program, dropout):
    for width in (16, 64, 128):
        for longest in (1, 16, 17, 100, 512, 8192):
            chosen = triton.sizes(program, width, dtype, longest, dropout)
            for side in (chosen["TILE"], chosen["STEP"]):
                assert side >= 16 and side & (side - 1) == 0 and side < max(17, 2 * longest)


@pytest.mark.parametrize("key", [(0, 0, 0), (2**63 - 1, 2**40 + 3, 11), (-5, 7, 2**31)], ids=str)
def test_the_first_words_are_the_counters_own(key):
    """From them its last two lines go on, here in counter.py's own philox, to what query_keys gives."""
    layout = pack([[0] * 3], rows=[2**33 + 1]).layout
    a, b, c, d = (word & counter.M32 for word in triton.first_words(Dropout(0.1, key)))
    a, b, c, d = counter.philox((*counter.halves(2**33 + 1), c, d), (a, b))
    words = counter.philox((2, 1, c, d), (a, b))[:2]
    found = counter.query_keys(layout, 2, Dropout(0.1, key))[:, 2, 1]
    assert [int(x) & counter.M32 for x in found] == list(words)


@pytest.mark.slow
def test_importing_the_kernels_imports_no_triton():
    code = "import sys, minibert.kernels; assert not {'triton', 'triton.language'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_it_says_what_a_machine_lacks(monkeypatch):
    if not torch.version.cuda:
        assert triton.missing() == "needs a torch that was built for CUDA"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card=None: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda card=None: "Tesla T4")
    assert triton.missing() == "needs cards from Ampere on, and Tesla T4 is older"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card=None: (9, 0))
    assert triton.missing() == ""


# --- on a card --------------------------------------------------------------------------------------


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("lengths", [(5, 11, 2, 1, 70, 11), (1000, 1, 128, 129, 300), (512,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_it_passes_the_gate_on_the_card(dtype, lengths, monkeypatch):
    """With and without dropout and windows, at widths 16, 32, 64, 128; and twice the same bits."""
    monkeypatch.setattr(gate, "LENGTHS", lengths)
    monkeypatch.setattr(gate, "WIDTHS", (16, 32, 64, 128))
    found = kernels.check("triton", dtype, device="cuda")
    assert found.passed, found
    layout = pack([[0] * n for n in lengths]).layout.to("cuda")
    q, k, v = torch.randn(3, sum(lengths), 4, 64, device="cuda", dtype=dtype)

    def once():
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        out = kernels.attend("triton", *inputs, layout, scale=0.125, dropout=DROP)
        return out, *torch.autograd.grad(out.square().sum(), inputs)

    assert all(torch.equal(a, b) for a, b in zip(once(), once()))


@needs_triton
@pytest.mark.gpu
def test_on_a_card_it_drops_what_tiled_drops():
    layout = pack([[0] * n for n in (300, 7)], rows=(2**33, 5)).layout.to("cuda")
    q, k, v = torch.randn(3, 307, 4, 32, device="cuda")
    ours, theirs = (
        kernels.attend(name, q, k, v, layout, scale=0.2, dropout=DROP) for name in ("triton", "tiled")
    )
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours - reference(q, k, v, layout, scale=0.2)).abs().max() > 0.1
