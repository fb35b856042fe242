"""How much work attention is, by formula, and how much the machine can do at most, by measurement.

A text of n tokens, H heads of width K; a multiplication with its addition counts two operations:

    forward    scores Q K^T       2 n n K a head       and P V the same:    4 n n H K
    backward   S = Q K^T again (the kernels that count keep no P), dV = P^T dO, dP = dO V^T,
               dQ = dS K, dK = dS^T Q: five such products where forward has two:  10 n n H K
    both       14 n n H K

Softmax, dropout and scaling are left out, as in FlashAttention's own benchmark; so is all arithmetic on
padding, which is no work but waste: a kernel that does more than this is slower, not faster. The same
formula is used for a kernel that keeps P, so the shares of all are of the same work. Bytes are what must cross the memory at
least: forward reads q, k, v and writes o; backward reads q, k, v, do and writes dq, dk, dv.

In:  lengths, H, K.   Out: operations and bytes; of a machine, its peaks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from .. import device as devices
from ..system import last_level_cache

FORWARD, BACKWARD = 4, 10  # times n n H K
TENSORS = {"forward": 4, "backward": 7, "both": 11}  # of (N, H, K): read or written
# (m, k, n) of products that processors and cards do well in, squares and an encoder's own
PRODUCTS = {
    "cpu": ((512, 512, 512), (1024, 1024, 1024), (1024, 768, 3072)),
    "cuda": ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 1024, 4096)),
}
SPELL = 0.15  # seconds that each of them is tried for


def flops(lengths: Sequence[int], heads: int, width: int, direction: str) -> int:
    """Operations of attention over texts of these lengths; direction: forward, backward or both."""
    times = {"forward": FORWARD, "backward": BACKWARD, "both": FORWARD + BACKWARD}[direction]
    return times * heads * width * sum(n * n for n in lengths)


def moved(lengths: Sequence[int], heads: int, width: int, itemsize: int, direction: str) -> int:
    """Bytes that must be read and written."""
    return TENSORS[direction] * sum(lengths) * heads * width * itemsize


def counter() -> FlopCounterMode:
    """torch's counter, taught the CPU's fused attention, which it counts as 0."""
    aten = torch.ops.aten

    def forward(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    def backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, q, k, v)

    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
        },
    )


def best_rate(call: Callable[[], object], amount: float, device: torch.device) -> float:
    """`amount` over the shortest call, a second, among those of one SPELL; the first only warms up."""
    shortest, until, done = float("inf"), time.perf_counter() + SPELL, 0
    while done < 3 or time.perf_counter() < until:
        devices.wait(device)
        start = time.perf_counter()
        call()
        devices.wait(device)
        done, spent = done + 1, time.perf_counter() - start
        shortest = min(shortest, spent) if done > 1 else shortest
    return amount / shortest


def product_ceiling(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of the best matrix product found: over shapes, and over libraries where two can be asked."""
    choices = [contextlib.nullcontext]
    if device.type == "cpu" and dtype == torch.float32 and devices.products() != "torch's own":
        choices.append(devices.torchs_own_products)
    best = 0.0
    for library in choices:
        with library(), torch.no_grad():
            for m, k, n in PRODUCTS.get(device.type, PRODUCTS["cpu"]):
                a, b = (torch.randn(*shape, device=device).to(dtype) for shape in ((m, k), (k, n)))
                out = torch.empty(m, n, device=device, dtype=dtype)
                rate = best_rate(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 2.0 * m * k * n, device)
                best = max(best, rate)
    return best


def bandwidth(device: torch.device) -> float:
    """Bytes a second of the best copy of a block that no cache holds: each byte read, each written."""
    size = 2**30 if device.type == "cuda" else min(max(2 * last_level_cache(), 2**27), 2**29)
    source, target = (torch.zeros(size // 4, device=device) for _ in range(2))
    return best_rate(lambda: target.copy_(source), 2.0 * size, device)


def peak(dtypes: Sequence[str], device: torch.device) -> dict[str, Any]:
    """{"float32": {"tflops": x}, ..., "gbps": y}: what this machine can do now, by trying."""
    found: dict[str, Any] = {
        word: {"tflops": product_ceiling(devices.number(word), device) / 1e12} for word in dtypes
    }
    return found | {"gbps": bandwidth(device) / 1e9}


def higher(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Of two such measurements the higher one everywhere: a busy machine only ever shows too little."""
    return {
        word: max(value, second[word])
        if word == "gbps"
        else max(value, second[word], key=lambda x: x["tflops"])
        for word, value in first.items()
    }
