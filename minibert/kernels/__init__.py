"""The registry of attention kernels: what each can do is data, and one file adds one.

A kernel is a function

    fn(q, k, v, layout, *, scale, dropout=None, window=None, bias=None) -> (N, H, K)

In:  q, k, v (N, H, K), last axis contiguous; layout says where texts begin and end.
Out: (N, H, K): for each token of each text the mean of its text's v, weighted by
     softmax(q k^T * scale).

`choose` takes the kernel that is asked for, or the first of ORDER that can do what is needed. A
wish that a kernel can't meet raises, says why, and names one that can: nothing is swapped silently.
Read next: reference.py, then encoder.py.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError, nearest

# `auto` takes the first of these that can: sdpa computes no padding and takes torch's fused kernels,
# padded takes them on a rectangle, reference makes its small products a text at a time.
ORDER = ("sdpa", "padded", "reference")
# ... and with dropout on a CPU, for which torch has no fused kernel, first of these: native is several
# times as fast as sdpa's fallback there, tiled on a par with it (docs/evidence.md). Both drop the same, so
# that what is learned does not hang on a compiler, and their memory grows with n alone.
DROPPING = ("native", "tiled", *ORDER)
# ... and on a card: varlen takes the pack as it is, in one launch. Where it can't, padded has few rectangles,
# sdpa as many as there are lengths.
CARD = ("varlen", "padded", "sdpa", "reference")
# ... with dropout, which varlen lacks: triton takes the pack as it is, too, and drops what native and tiled
# drop. Without dropout, so in float32, torch's own are left to it: Triton is at home on tensor cores.
CARD_DROPPING = ("varlen", "triton", *CARD[1:])

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# What a kernel made of torch's own operations can do, by `register`'s words.
ALL = {
    "devices": ("cpu", "cuda", "mps"),
    "dtypes": FLOATS,
    "dropout": "generator",
    "gradients": True,
    "window": True,
    "bias": True,
}


@dataclass(frozen=True)
class Dropout:
    """Dropout on attention probabilities: the share dropped, and (seed, step, layer)."""

    p: float
    key: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Kernel:
    """A registered kernel and what it can do.

    dropout: "" can't; "generator": draws from torch's generator; "counter": what is dropped is a
    pure function of (seed, step, layer, row, head, query, key), alike in any pack and process.
    build(really): '' if it can be built here, or why not; builds it only if `really`, which `choose` asks
    of the kernel that it is about to take.
    elsewhere: what is different on one device, {"cuda": {"dropout": ""}}; read what `at` gives.
    """

    name: str
    fn: Callable[..., Tensor]
    devices: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    dropout: str
    gradients: bool
    window: bool = False
    bias: bool = False
    needs: str = ""
    build: Callable[[bool], str] = lambda really: ""
    elsewhere: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def at(self, device: str) -> Kernel:
        """The kernel as it is on "cpu", "cuda", ..."""
        return replace(self, **self.elsewhere[device]) if device in self.elsewhere else self

    def why_not(
        self,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        dropout: bool = False,
        gradients: bool = False,
        window: bool = False,
        bias: bool = False,
    ) -> str:
        """'' if it can do all that is asked, else the reasons."""
        reasons, here = [], self.at(device)
        if here.needs and importlib.util.find_spec(here.needs) is None:
            reasons.append(f"needs the package {here.needs}")
        elif unbuilt := here.build(False):
            reasons.append(unbuilt)
        if device not in here.devices:
            reasons.append(f"runs on {', '.join(here.devices)}, not {device}")
        if dtype not in here.dtypes:
            reasons.append(f"has no {str(dtype).removeprefix('torch.')}")
        for asked, has, word in (
            (dropout, here.dropout, "dropout"),
            (gradients, here.gradients, "gradients"),
            (window, here.window, "local windows"),
            (bias, here.bias, "position bias"),
        ):
            if asked and not has:
                reasons.append(f"has no {word}")
        return ", ".join(reasons)


KERNELS: dict[str, Kernel] = {}


def register(
    name: str,
    *,
    devices: tuple[str, ...],
    dtypes: tuple[torch.dtype, ...],
    dropout: str,
    gradients: bool,
    window: bool = False,
    bias: bool = False,
    needs: str = "",
    build: Callable[[bool], str] = lambda really: "",
    elsewhere: Mapping[str, Mapping[str, object]] | None = None,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorate a kernel function with its name and what it can do (see Kernel)."""
    elsewhere = elsewhere or {}
    for word in (dropout, *(there.get("dropout", "") for there in elsewhere.values())):
        if word not in ("", "generator", "counter"):
            raise ConfigError(f'kernel {name}: dropout = {word!r} must be "", "generator" or "counter"')

    def add(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
        KERNELS[name] = Kernel(
            name, fn, devices, dtypes, dropout, gradients, window, bias, needs, build, elsewhere
        )
        choose_cached.clear()
        return fn

    return add


def register_file(path: Path | str) -> tuple[str, ...]:
    """Run a Python file that registers kernels of its own; returns their names.

    Raises ConfigError where the file can't be run, registers nothing, or takes a name that is taken.
    """
    path, before = Path(path), dict(KERNELS)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist, so no kernel can be read from it")
    name = f"kernel_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    try:
        if spec is None or spec.loader is None:
            raise ImportError("its name must end in .py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        taken = [kernel for kernel in before if KERNELS[kernel] is not before[kernel]]
        if taken:
            raise ConfigError(f"{path} registers {', '.join(taken)}, which exists", "Give it another name.")
        new = tuple(kernel for kernel in KERNELS if kernel not in before)
        if not new:
            raise ConfigError(
                f"{path} registers no kernel", "Decorate a function with @minibert.kernels.register(...)."
            )
        return new
    except BaseException as problem:  # whatever the file does, also exit: nothing of it stays
        sys.modules.pop(name, None)
        KERNELS.clear()
        KERNELS.update(before)
        choose_cached.clear()
        if isinstance(problem, (ConfigError, KeyboardInterrupt)):
            raise
        raise ConfigError(f"{path} can't be run: {type(problem).__name__}: {problem}") from problem


def available(**wish: object) -> dict[str, str]:
    """Every kernel's name -> '' if it can do what is asked here, or why not. Wishes as in `why_not`."""
    return {name: kernel.why_not(**wish) for name, kernel in KERNELS.items()}


def order(device: str, dropout: bool) -> tuple[str, ...]:
    """In which order `auto` asks the kernels: the written one, then those that others registered.

    The rest of this folder is taken by name only: it is there to be read, or raced against.
    """
    plain, dropping = {"cuda": (CARD, CARD_DROPPING), "cpu": (ORDER, DROPPING)}.get(device, (ORDER, ORDER))
    first = dropping if dropout else plain
    return (*first, *(name for name in KERNELS if name not in first and name not in OURS))


def passed_over(chosen: str, **wish: object) -> dict[str, str]:
    """The kernels that `auto` asks before the one it took, and why they couldn't. Wishes as in `why_not`."""
    names = order(str(wish.get("device", "cpu")), bool(wish.get("dropout", False)))
    reasons = available(**wish)
    return {name: reasons[name] for name in names[: names.index(chosen)] if name in reasons}


choose_cached: dict[tuple, Kernel] = {}


def choose(
    name: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    dropout: bool = False,
    gradients: bool = False,
    window: bool = False,
    bias: bool = False,
) -> Kernel:
    """The kernel called `name`, or for "auto" the first of `order` that can; else ConfigError."""
    wish = (name, device, dtype, dropout, gradients, window, bias)
    if wish in choose_cached:
        return choose_cached[wish]
    reasons = available(
        device=device, dtype=dtype, dropout=dropout, gradients=gradients, window=window, bias=bias
    )
    asked = order(device, dropout) if name == "auto" else (name,)
    for found in [n for n in asked if reasons.get(n) == ""]:
        if not (why := KERNELS[found].at(device).build(True)):
            break
        reasons[found] = why
    else:
        able = [n for n in dict.fromkeys((*order(device, dropout), *reasons)) if reasons.get(n) == ""]
        known = "auto" if name == "auto" else f"kernel {name!r}"
        why = "; ".join(f"{n}: {r}" for n, r in reasons.items()) if name == "auto" else reasons.get(name)
        if name != "auto" and name not in KERNELS:
            why = f"there is none of that name{nearest(name, KERNELS)} Known: {', '.join(KERNELS)}"
        raise ConfigError(
            f"{known} can't be used here: {why}",
            f"Kernels that can: {', '.join(able)}." if able else "No registered kernel can do this.",
        )
    return choose_cached.setdefault(wish, KERNELS[found])


def attend(
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: object,
    *,
    scale: float,
    dropout: Dropout | None = None,
    window: tuple[int, int] | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Choose a kernel for these tensors and run it: (N, H, K) x 3 -> (N, H, K).

    window: how far a token looks to the left and right (None: everywhere); bias (H, 2T - 1), T at least
    the longest text: added to a score by the distance of its two tokens, the middle column for a token
    and itself. Both are for kernels that register them.
    """
    inputs = (q, k, v) if bias is None else (q, k, v, bias)
    needs_gradients = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    kernel = choose(
        name,
        device=q.device.type,
        dtype=q.dtype,
        dropout=dropout is not None,
        gradients=needs_gradients,
        window=window is not None,
        bias=bias is not None,
    )
    extra = {word: wish for word, wish in (("window", window), ("bias", bias)) if wish is not None}
    return kernel.fn(q, k, v, layout, scale=scale, dropout=dropout, **extra)


from . import (  # noqa: E402, F401  each registers itself
    backends,
    blockmask,
    compiled,
    flex,
    loop,
    native,
    numpy,
    oracle,
    packages,
    padded,
    reference,
    sdpa,
    tiled,
    triton,
    varlen,
)
from .gate import check  # noqa: E402, F401

OURS = frozenset(KERNELS)  # what stands in this folder
