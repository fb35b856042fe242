"""How wrong a kernel is on the case that it is timed on, in units of plain PyTorch's own error.

The rule and its floor are the gate's (kernels/gate.py): against float64, over 2 is a fail. Where the
case needs more memory in float64 than CAP, its first texts are taken, the last one cut.

In:  a kernel, a case.   Out: {"output": ratio, "dq": ..., "dk": ..., "dv": ...} and what was left out.
"""

from __future__ import annotations

import torch

from ..batch import pack
from ..kernels import Dropout, Kernel, counter
from ..kernels.gate import WORST, against, evaluate

CAP = 256 * 2**20  # bytes of float64 probabilities, three of which autograd keeps


def ratios(
    kernel: Kernel,
    lengths: tuple[int, ...],
    heads: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
    dropout: Dropout | None = None,
    seed: int = 0,
) -> tuple[dict[str, float], str]:
    """Each ratio, and in words on what if not on the whole case; "" if it was.

    What a generator drops can't be foretold, so a kernel that draws from one is judged without dropout.
    """
    taken = capped(lengths, heads)
    words = [f"errors on the first {sum(taken):,} tokens"] if taken != tuple(lengths) else []
    ours: dict[str, object] = {}
    plainly: dict[str, object] = {}
    layout = pack([[0] * n for n in taken], rows=range(len(taken))).layout.to(device)
    if dropout and kernel.dropout == "counter":
        ours, plainly = {"dropout": dropout}, {"kept": counter.masks(layout, heads, dropout)}
    elif dropout:
        words.append("errors without dropout")
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(4, sum(taken), heads, width, generator=generator)
    low = list(numbers.to(device, dtype))
    truth = evaluate("reference", [x.double() for x in low], layout, kernel.gradients, plainly)
    plain = evaluate("reference", low, layout, kernel.gradients, plainly)
    found = against(truth, plain, evaluate(kernel.name, low, layout, kernel.gradients, ours), dtype)
    return {word: ratio for word, (_, ratio) in found.items()}, ", ".join(words)


def verdict(found: dict[str, float]) -> str:
    """PASS or FAIL; "" where nothing was measured. A NaN fails."""
    return "" if not found else "PASS" if all(ratio <= WORST for ratio in found.values()) else "FAIL"


def capped(lengths: tuple[int, ...], heads: int) -> tuple[int, ...]:
    """The first lengths whose squares fit into CAP, the next one cut to fit; one token at least."""
    left, taken = CAP // (8 * heads), []
    for length in lengths:
        fits = min(length, int(left**0.5))
        if not fits:
            break
        taken.append(fits)
        left -= fits * fits
        if fits < length:
            break
    return tuple(taken)
