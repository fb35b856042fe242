"""Attention on a CPU in C++ (native.cpp), compiled for the machine's own processor when first used.

What is different: one thread takes one head of one text, and of it 48 queries at a time; their scores
against all keys, (48, n), stay in its cache from the first product to the last. Only the output and
the log of each softmax's sum are kept; the backward pass computes the probabilities again from them,
and draws counter.py's mask again.
Why that is faster: torch's fused kernel has no dropout on a CPU and falls back to the textbook, which
writes (n, n) for each head to memory again and again and keeps several of them (a step of four texts of
512 tokens, 12 heads of 64: 233 MB; here 31). Here they never leave the cache, nothing is padded, and a
mask takes an eighth to a fifth of a step's time without (benchmarks/results). Of a window only the keys
that some query of the 48 sees are computed. Without dropout it is as fast as torch's own up to 32 tokens,
and up to twice as fast beyond; `auto` still leaves that to torch, which needs no compiler.

In:  q, k, v (N, H, K), float32 or float64.   Out: (N, H, K).

The compiler is g++ or clang++, or what CXX names; the result stands in the cache folder under the hash
of all that it depends on. MINIBERT_NATIVE=0 switches the kernel off.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..batch import Layout
from ..errors import EnvironmentProblem
from ..progress import say
from ..system import cache, lock, replacing, sha256, write_text
from . import Dropout, register
from .counter import rows_of, threshold

SOURCE = Path(__file__).with_suffix(".cpp")
# No -ffast-math: infinities and NaNs must come out as torch's do. The second line is for a compiler
# without OpenMP (Apple's): one thread.
FLAGS = tuple(
    ("-std=c++17", "-O3", *more, "-shared", "-fPIC")
    for more in (("-march=native", "-fopenmp"), ("-march=native",), ())
)
FUNCTIONS = {torch.float32: "attention_float", torch.float64: "attention_double"}
NUMBERS = ctypes.c_int64

built: dict[str, ctypes.CDLL | str] = {}  # the library of this process, or why there is none


class DropoutFields(ctypes.Structure):
    """struct Dropout of native.cpp."""

    _fields_ = [
        *((name, NUMBERS) for name in ("seed", "step", "layer")),
        ("scale", ctypes.c_double),
        *((name, ctypes.c_int32) for name in ("threshold", "on")),
    ]


class Call(ctypes.Structure):
    """struct Call of native.cpp: pointers, strides, sizes."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "grad")),
        *((f"{name}_{step}", NUMBERS) for name in ("q", "k", "v", "grad") for step in ("token", "head")),
        *((name, ctypes.c_void_p) for name in ("made", "made_k", "made_v", "lse", "starts", "rows")),
        *((name, NUMBERS) for name in ("texts", "tokens", "heads", "width")),
        ("scale", ctypes.c_double),
        ("drop", DropoutFields),
        *((name, NUMBERS) for name in ("near", "left", "right")),
        *((name, ctypes.c_void_p) for name in ("bias", "made_bias")),
        ("reach", NUMBERS),
    ]


def build(really: bool) -> str:
    """'' if the kernel can run here, else why not; compiles and loads it only if `really`."""
    if os.environ.get("MINIBERT_NATIVE") == "0":
        return "is switched off by MINIBERT_NATIVE=0"
    if "library" not in built:
        compiler = find_compiler()
        if not compiler:
            return "needs a C++ compiler (g++ or clang++), and none was found"
        if really:
            try:
                built["library"] = ctypes.CDLL(str(compiled(compiler)))
            except (EnvironmentProblem, OSError) as problem:
                built["library"] = f"could not be compiled: {problem}"
                say(f"attention kernel native {built['library']}")
    found = built.get("library", "")
    return found if isinstance(found, str) else ""


def find_compiler() -> list[str]:
    """The command of the C++ compiler, or []."""
    named = shlex.split(os.environ.get("CXX", ""))
    found = [shutil.which(name) for name in (named[:1] or ("g++", "clang++"))]
    return [next(filter(None, found)), *named[1:]] if any(found) else []


def compiled(compiler: list[str]) -> Path:
    """The shared library, compiled by whichever process comes first. Raises EnvironmentProblem."""
    key = "\n".join((SOURCE.read_text("utf-8"), *compiler, *map(str, FLAGS), processor()))
    folder = cache() / "native"
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.so"
    if whole(path):
        return path
    with lock(folder / ".lock", lambda: say("attention kernel native: another process compiles it")):
        if not whole(path):
            say(f"attention kernel native: compiled once for this processor, some seconds, kept in {folder}")
            with replacing(path) as part:
                compile_into(part, compiler)
            write_text(path.with_suffix(".sha256"), sha256(path))
    return path


def whole(path: Path) -> bool:
    """Whether a library is there, byte for byte as it was compiled: loading a cut one ends the process."""
    proof = path.with_suffix(".sha256")
    return path.is_file() and proof.is_file() and proof.read_text("utf-8") == sha256(path)


def compile_into(part: Path, compiler: list[str]) -> None:
    """Run the compiler with the first flags that it takes; else raise EnvironmentProblem with its words."""
    for flags in FLAGS:
        done = subprocess.run(
            [*compiler, *flags, str(SOURCE), "-o", str(part)],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode == 0:
            return
    said = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[0]
    raise EnvironmentProblem(f"{shlex.join(compiler)}: {said}")


def processor() -> str:
    """What -march=native goes by: a library for one processor may not run on another."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        wanted = ("model name", "cpu family", "model\t", "flags", "Features", "CPU part")
        return "".join(sorted({line for line in file if line.startswith(wanted)}))
    return f"{platform.machine()} {platform.processor()} {platform.platform()}"


class Attention(torch.autograd.Function):
    """The C++ functions as one step of autograd."""

    @staticmethod
    def forward(ctx, q, k, v, bias, layout, scale, dropout, window):  # noqa: D102
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        added = {} if bias is None else {"bias": bias.to(q.dtype).contiguous()}  # (H, 2T - 1)
        out = q.new_empty(q.shape)  # (N, H, K)
        lse = q.new_empty(q.shape[1], q.shape[0])  # (H, N)
        run(layout, scale, dropout, window, q=q, k=k, v=v, made=out, lse=lse, **added)
        ctx.save_for_backward(q, k, v, out, lse, bias)
        ctx.rest = layout, scale, dropout, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: D102
        q, k, v, out, lse, bias = ctx.saved_tensors
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()
        made, made_k, made_v = (q.new_empty(q.shape) for _ in range(3))  # (N, H, K)
        added = {}
        if bias is not None:  # a text's own sums each: (B, H, 2T - 1)
            texts = len(ctx.rest[0].lengths)
            added = {"bias": bias.to(q.dtype).contiguous(), "made_bias": q.new_zeros(texts, *bias.shape)}
        run(
            *ctx.rest, q=q, k=k, v=v, out=out, grad=grad, made=made, made_k=made_k, made_v=made_v, lse=lse, **added
        )  # fmt: skip
        made_bias = added["made_bias"].sum(0).to(bias.dtype) if added else None
        return made, made_k, made_v, made_bias, None, None, None, None


def run(
    layout: Layout,
    scale: float,
    dropout: Dropout | None,
    window: tuple[int, int] | None,
    **tensors: Tensor,
) -> None:
    """Call C++ with these tensors by their names in struct Call; backward where a gradient is among them."""
    q = tensors["q"]
    starts, rows = layout.cu_seqlens.contiguous(), rows_of(layout).contiguous()  # alive until it returns
    call = Call(starts=starts.data_ptr(), rows=rows.data_ptr(), texts=len(layout.lengths), scale=scale)
    call.tokens, call.heads, call.width = q.shape
    for name, x in tensors.items():
        setattr(call, name, x.data_ptr())
    for name in tensors.keys() & {"q", "k", "v", "grad"}:
        setattr(call, f"{name}_token", tensors[name].stride(0))
        setattr(call, f"{name}_head", tensors[name].stride(1))
    if dropout:
        call.drop = DropoutFields(*dropout.key, 1 / (1 - dropout.p), threshold(dropout.p), 1)
    if window:
        call.near, call.left, call.right = 1, *(min(side, layout.max_seqlen) for side in window)
    if "bias" in tensors:
        call.reach = tensors["bias"].shape[1]
    function = getattr(built["library"], FUNCTIONS[q.dtype])
    function(ctypes.byref(call), int("grad" in tensors), torch.get_num_threads())


def drop_hidden(x: Tensor, layout: Layout, dropout: Dropout) -> Tensor:
    """(N, D), contiguous, float32 or float64 -> (N, D): counter.drop_hidden in C++."""
    out, starts, rows = torch.empty_like(x), layout.cu_seqlens.contiguous(), rows_of(layout).contiguous()
    fields = DropoutFields(*dropout.key, 1 / (1 - dropout.p), threshold(dropout.p), 1)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, out, starts, rows)]
    sizes = [NUMBERS(len(layout.lengths)), NUMBERS(x.shape[1])]
    function = getattr(built["library"], FUNCTIONS[x.dtype].replace("attention", "dropout"))
    function(*pointers, *sizes, ctypes.byref(fields), torch.get_num_threads())
    return out


@register(
    "native",
    devices=("cpu",),
    dtypes=tuple(FUNCTIONS),
    dropout="counter",
    gradients=True,
    window=True,
    bias=True,
    build=build,
)
def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: Dropout | None = None,
    window: tuple[int, int] | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    if why := build(True):
        raise EnvironmentProblem(f"kernel native {why}")
    return Attention.apply(q, k, v, bias, layout, scale, dropout, window) if len(q) else q.clone()
