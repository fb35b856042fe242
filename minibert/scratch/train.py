"""AdamW and the training loop.

In:  a Twin, and a function from places of texts to (pack, targets).   Out: a loss for each update.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from ..errors import TrainingError
from .layers import Array
from .model import Twin


class AdamW:
    """Adam with decoupled weight decay (Kingma and Ba 2015; Loshchilov and Hutter 2019, algorithm 2).

    m and v are running means of the gradient and of its square. A step of about `rate` goes the way of m, in
    units of how large this gradient usually is, √v. Both begin at 0, so after t steps a constant g has made
    m = (1-b) Σ_s b^(t-s) g = (1 - b^t) g; dividing by 1 - b^t mends it: bias correction. Decay pulls a weight to 0
    by itself, not through m and v, which would rescale it; vectors (biases, LayerNorm) don't decay.
    """

    def __init__(self, params: dict[str, Array], decay: float = 0.01):
        self.params, self.decay, self.betas, self.eps, self.t = params, decay, (0.9, 0.999), 1e-8, 0
        self.m, self.v = ({name: np.zeros_like(w) for name, w in params.items()} for _ in range(2))

    def step(self, grads: dict[str, Array], rate: float) -> None:
        """Change every parameter in place."""
        (b1, b2), t, self.t = self.betas, self.t + 1, self.t + 1
        for name, w in self.params.items():
            g, m, v = grads[name], self.m[name], self.v[name]
            m += (1 - b1) * (g - m)  # = b1 m + (1 - b1) g
            v += (1 - b2) * (g * g - v)
            w *= 1 - rate * self.decay * (w.ndim > 1)
            w -= rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + self.eps)


def clip(grads: dict[str, Array], longest: float) -> float:
    """Shorten all gradients as one vector, in place, to at most this length; returns the length before."""
    length = math.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))
    for g in grads.values():
        g *= min(1.0, longest / (length + 1e-6))
    return length


def learning_rate(step: int, steps: int, peak: float, warmup: float = 0.1) -> float:
    """Up from 0 over a share of the steps, then down to 0: the schedule of minibert/optim.py."""
    rising = math.ceil(warmup * steps)
    return peak * step / rising if step < rising else peak * ((steps - step) / max(1, steps - rising))


def train(twin: Twin, batch: Callable, n: int, epochs: int, size: int, rate: float, seed: int) -> Iterator:
    """Train on n texts in place, `size` a step, each once an epoch. Yields each step's mean loss, before it."""
    optimizer, turns = AdamW(twin.params), math.ceil(n / size)
    for step in range(epochs * turns):
        epoch, turn = divmod(step, turns)
        order = np.random.default_rng([seed, epoch]).permutation(n)
        total, count, grads = twin.gradients(*batch(order[turn * size : (turn + 1) * size]))
        for g in grads.values():
            g /= count  # of a sum to that of a mean
        if not math.isfinite(total + clip(grads, 1.0)):
            raise TrainingError(f"step {step + 1}: the loss or its gradient is not finite", "Lower the rate.")
        optimizer.step(grads, learning_rate(step, epochs * turns, rate))
        yield total / count
