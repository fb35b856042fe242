"""The accuracy gate: how wrong a kernel is, forward and backward, beside plain PyTorch.

In:  a registered kernel's name.   Out: its largest errors against the oracle, in units of the error
that the reference kernel makes in the same dtype. Over 2 is a fail (the rule of flash-attention's
tests): a fixed tolerance would pass a wrong kernel at small values and fail a right one at large.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Layout, pack

LENGTHS = (5, 11, 2, 1, 70, 11)  # ragged, odd, one single token, one length twice
ROWS = (7, 3, 2**33, 0, 5, 4)  # their numbers in a table, for dropout by counter
HEADS, WIDTHS = 4, (16, 32, 64)
# Errors below so many units in the last place of the largest result are the order of summation, not
# a fault: in float32 and float64 two right kernels differ by a few of them. In low precision the
# units are float32's, which kernels sum in, so that there the ratio alone decides.
ROUNDING = 8
WORST = 2.0  # times the reference kernel's error: more is a fail


@dataclass(frozen=True)
class Gate:
    """What `check` found: for output, dq, dk, dv the error, and its ratio to the reference kernel's.

    The worst of all head widths. Of a kernel that has windows, a bias by distance or dropout by counter also
    "window output", "bias dq", "bias dbias", "dropout dv", ...
    """

    name: str
    dtype: str
    errors: dict[str, float]
    ratios: dict[str, float]
    passed: bool


def check(name: str, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> Gate:
    """Run kernel `name` on random ragged texts, forward and backward, against the oracle's float64."""
    from . import Dropout, choose, counter

    place = torch.device(device).type
    kernel = choose(name, device=place, dtype=dtype).at(place)
    generator = torch.Generator().manual_seed(seed)
    layout = pack([[0] * n for n in LENGTHS], rows=ROWS[: len(LENGTHS)]).layout.to(device)
    shape = (4, sum(LENGTHS), HEADS)  # q, k, v and the output's gradient
    numbers = torch.randn(*shape, WIDTHS[0], generator=generator, dtype=torch.float64)
    distances = torch.randn(HEADS, 2 * max(LENGTHS) - 1, generator=generator, dtype=torch.float64)
    others = [torch.randn(*shape, width, generator=generator, dtype=torch.float64) for width in WIDTHS[1:]]
    drop = Dropout(0.3, (seed, 2**40 + 1, 2))
    wishes = [("", {})]
    if kernel.dropout == "counter":  # a generator's draws can't be foretold
        wishes.append(("dropout ", {"dropout": drop}))
    cases = [(x, *wish) for x in (numbers, *others) for wish in wishes]
    if kernel.window:
        cases.append((numbers, "window ", {"window": (2, 3)}))
    if kernel.bias:
        cases.append((numbers, "bias ", {"bias": distances.to(device, dtype)}))
    errors, ratios = {}, {}
    for tensors, wish, extra in cases:
        low = list(tensors.to(device, dtype))
        plainly = {"kept": counter.masks(layout, HEADS, drop)} if "dropout" in extra else extra
        wide = {word: x.double() if isinstance(x, Tensor) else x for word, x in extra.items()}
        truth = evaluate("oracle", [x.double() for x in low], layout, kernel.gradients, wide)
        plain = evaluate("reference", low, layout, kernel.gradients, plainly)
        ours = evaluate(kernel.name, low, layout, kernel.gradients, extra)
        found = against(truth, plain, ours, dtype)
        for word, (error, ratio) in found.items():
            for kept, value in ((errors, error), (ratios, ratio)):
                kept[wish + word] = worse(kept.get(wish + word, 0.0), value)
    passed = all(ratio <= WORST for ratio in ratios.values())  # a NaN fails too
    return Gate(kernel.name, str(dtype).removeprefix("torch."), errors, ratios, passed)


def against(
    truth: dict[str, Tensor], plain: dict[str, Tensor], ours: dict[str, Tensor], dtype: torch.dtype
) -> dict[str, tuple[float, float]]:
    """For output, dq, ...: our largest error against `truth` in float64, and its ratio to `plain`'s in our dtype."""
    unit = min(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    floor = ROUNDING * unit * max(float(right.abs().max()) for right in truth.values())
    found = {}
    for word, right in truth.items():
        error, usual = (float((x[word].double() - right).abs().max()) for x in (ours, plain))
        found[word] = error, error / max(usual, floor)
    return found


def worse(a: float, b: float) -> float:
    """The larger; a NaN is larger than all."""
    return a if a != a or a > b else b


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
    output = KERNELS[name].fn(q, k, v, layout, scale=q.shape[-1] ** -0.5, **extra)
    found = {"output": output.detach()}
    if backward:
        found |= zip(inputs, torch.autograd.grad(output, list(inputs.values()), grad))
    return found
