"""The accuracy gate: how wrong a kernel is, forward and backward, beside plain PyTorch.

In:  a registered kernel's name.   Out: its largest errors against float64, in units of the error
that the reference kernel makes in the same dtype. Over 2 is a fail (the rule of flash-attention's
tests): a fixed tolerance would pass a wrong kernel at small values and fail a right one at large.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Layout, pack

LENGTHS = (5, 11, 2, 1, 33, 11)  # ragged, odd, one single token, one length twice
HEADS, WIDTH = 4, 16
# Errors below so many units in the last place of the largest result are the order of summation, not
# a fault: in float32 and float64 two right kernels differ by a few of them. In low precision the
# units are float32's, which kernels sum in, so that there the ratio alone decides.
ROUNDING = 8


@dataclass(frozen=True)
class Gate:
    """What `check` found: for output, dq, dk, dv the error, and its ratio to the reference kernel's.

    Of a kernel that has windows or a bias by distance also "window output", "bias dq", "bias dbias", ...
    """

    name: str
    dtype: str
    errors: dict[str, float]
    ratios: dict[str, float]
    passed: bool


def check(name: str, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> Gate:
    """Run kernel `name` on random ragged texts, forward and backward, against float64."""
    from . import choose

    kernel = choose(name, device=torch.device(device).type, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    layout = pack([[0] * n for n in LENGTHS]).layout.to(device)
    shape = (4, sum(LENGTHS), HEADS, WIDTH)
    q, k, v, grad = torch.randn(shape, generator=generator, dtype=torch.float64).to(device)
    low = [x.to(dtype) for x in (q, k, v, grad)]
    distances = torch.randn(HEADS, 2 * max(LENGTHS) - 1, generator=generator, dtype=torch.float64)
    wishes = {"": {}, "window ": {"window": (2, 3)}, "bias ": {"bias": distances.to(device, dtype)}}
    able = {"": True, "window ": kernel.window, "bias ": kernel.bias}
    unit = min(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    errors, ratios = {}, {}
    for wish, extra in wishes.items():
        if not able[wish]:
            continue
        wide = {word: x.double() if isinstance(x, Tensor) else x for word, x in extra.items()}
        truth = evaluate("reference", [x.double() for x in low], layout, kernel.gradients, wide)
        plain = evaluate("reference", low, layout, kernel.gradients, extra)
        ours = evaluate(kernel.name, low, layout, kernel.gradients, extra)
        floor = ROUNDING * unit * max(float(right.abs().max()) for right in truth.values())
        for word, right in truth.items():
            error = float((ours[word].double() - right).abs().max())
            errors[wish + word] = error
            ratios[wish + word] = error / max(float((plain[word].double() - right).abs().max()), floor)
    passed = all(ratio <= 2 for ratio in ratios.values())  # a NaN fails too
    return Gate(kernel.name, str(dtype).removeprefix("torch."), errors, ratios, passed)


def evaluate(
    name: str, tensors: list[Tensor], layout: Layout, backward: bool, extra: dict[str, object]
) -> dict[str, Tensor]:
    """Output, and with `backward` the gradients of q, k, v (and bias) for the given output gradient."""
    from . import KERNELS

    *qkv, grad = tensors
    inputs = dict(zip(("dq", "dk", "dv"), qkv)) | ({"dbias": extra["bias"]} if "bias" in extra else {})
    inputs = {word: x.detach().clone().requires_grad_(backward) for word, x in inputs.items()}
    q, k, v, *bias = inputs.values()
    extra = {**extra, "bias": bias[0]} if bias else extra
    output = KERNELS[name].fn(q, k, v, layout, scale=WIDTH**-0.5, **extra)
    found = {"output": output.detach()}
    if backward:
        found |= zip(inputs, torch.autograd.grad(output, list(inputs.values()), grad))
    return found
