"""Operations by formula are what torch's counter counts; nothing that multiplies is left out of its count."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minibert.batch import pack
from minibert.bench import work
from minibert.kernels import KERNELS

LENGTHS, H, K = (5, 11, 2, 1, 11), 3, 8
# Operations that move numbers or work on each alone: no formula needed.
FREE = set(
    [
        "view",
        "_unsafe_view",
        "expand",
        "transpose",
        "permute",
        "slice",
        "slice_backward",
        "split_with_sizes",
        "detach",
        "cat",
        "empty_like",
        "zeros",
        "new_zeros",
        "ones_like",
        "arange",
        "index_select",
        "index_add",
        "index_copy",
        "index_fill",
        "index_put_",
        "add",
        "mul",
        "_softmax",
        "_softmax_backward_data",
    ]
)


class Seen(TorchDispatchMode):
    """Notes every operation that torch runs."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


def run(kernel, mode):
    """Forward and backward of a kernel inside a mode."""
    layout = pack([[0] * n for n in LENGTHS]).layout
    q, k, v = (torch.randn(sum(LENGTHS), H, K, requires_grad=True) for _ in range(3))
    with mode:
        out = KERNELS[kernel].fn(q, k, v, layout, scale=K**-0.5)
        forward = mode.get_total_flops() if hasattr(mode, "get_total_flops") else 0
        torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    return forward


def test_the_formula_is_torchs_count():
    counter = work.counter()
    assert run("sdpa", counter) == work.flops(LENGTHS, H, K, "forward") > 0
    assert counter.get_total_flops() == work.flops(LENGTHS, H, K, "both")


def test_one_that_keeps_its_probabilities_needs_no_fifth_product():
    counter = work.counter()
    assert run("reference", counter) == work.flops(LENGTHS, H, K, "forward")
    assert counter.get_total_flops() * 7 == work.flops(LENGTHS, H, K, "both") * 6


@pytest.mark.parametrize("kernel", ["sdpa", "reference", "padded"])
def test_no_operation_is_uncounted(kernel):
    seen = Seen()
    run(kernel, seen)
    counted = set(work.counter().flop_registry)
    names = {op.__name__ for op in seen.names - counted}
    assert not names - FREE, "neither counted nor known to be free"
    assert seen.names & counted


def test_bytes_are_those_of_the_tensors():
    N = sum(LENGTHS)
    assert work.moved(LENGTHS, H, K, 2, "forward") == 4 * N * H * K * 2
    assert work.moved(LENGTHS, H, K, 4, "both") == 11 * N * H * K * 4


def test_the_machines_peaks(monkeypatch):
    monkeypatch.setattr(work, "SPELL", 0.01)
    monkeypatch.setitem(work.PRODUCTS, "cpu", ((256, 256, 256),))
    found = work.peak(["float32", "float64"], torch.device("cpu"))
    assert 0 < found["float64"]["tflops"] < found["float32"]["tflops"] < 100
    assert 0.1 < found["gbps"] < 10_000
    other = {"float32": {"tflops": 1e9}, "float64": {"tflops": 0.0}, "gbps": 0.0}
    assert work.higher(found, other) == found | {"float32": {"tflops": 1e9}}
