"""Every shape that is written down is true: In: and Out: of each module, and the comments behind lines.

A toy whose sizes differ pairwise is run, the letters are bound, and each claim is held against the
tensor it speaks of. Capitals that no size has (T) are bound where they first occur in a call, small
words (n, count) by each claim anew.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from minibert import batch as batches
from minibert import dropout, encoder, heads, pooling, variants
from minibert.batch import PackedBatch, pad, unpad
from minibert.families import reads
from minibert.kernels import Dropout, blockmask, counter, loop, numpy, oracle, padded, reference, sdpa, tiled
from minibert.scratch import encoder as np_encoder
from minibert.scratch import heads as np_heads
from minibert.scratch import layers as np_layers

from .helpers import CLASSES, EVERY, LENGTHS, toy_batch, toy_config, toy_encoder, toy_ids
from .test_scratch import toys

SIZES = {
    "B": 3,
    "N": 18,
    "D": 24,
    "E": 13,
    "H": 4,
    "K": 6,
    "F": 37,
    "L": 3,
    "V": 101,
    "P": 53,
    "S": 2,
    "C": 7,
}
SHAPE = re.compile(r"\(([A-Za-z]+(?:, (?:[A-Za-z]+|\d|\.\.\.))*,?)\)")


def claimed(text: str) -> tuple[str, ...] | None:
    """The last shape in a text: "hidden (N, D)" -> ("N", "D")."""
    found = SHAPE.findall(text)
    return tuple(x.strip() for x in found[-1].rstrip(",").split(",")) if found else None


def agrees(claim: tuple[str, ...], shape: tuple[int, ...], bound: dict[str, int]) -> bool:
    """Whether a shape is the one claimed; unknown letters are bound in passing."""
    if "..." in claim:
        claim, shape = claim[: claim.index("...")], shape[: claim.index("...")]
    small: dict[str, int] = {}
    sizes = [
        int(x) if x.isdigit() else (small if x.islower() else bound).setdefault(x, size)
        for x, size in zip(claim, shape)
    ]
    return len(claim) == len(shape) and sizes == list(shape)


def test_the_sizes_differ_where_a_mix_up_could_hide():
    apart = [SIZES[x] for x in "BNDHKFVPC"]
    assert len(set(apart)) == len(apart) and sum(LENGTHS) == SIZES["N"] and len(LENGTHS) == SIZES["B"]


# --- In: and Out: of the modules ------------------------------------------------------------------


def modules():
    """A toy of every module class in encoder.py and heads.py, with what it is called on."""
    batch = toy_batch()
    for family in EVERY:
        yield toy_encoder(family), (batch,)
        config = toy_config(family)
        for kind, head in heads.HEADS.items():
            if reads(kind) in config.facts.heads:
                made = head(config, None if head.outputs else CLASSES)
                heads.tie(made, nn.Parameter(torch.randn(101, config.words_width)), {})
                yield made, (torch.randn(18, 24), batch.layout)
    for name in pooling.POOLING:
        yield pooling.Embedding(name, True), (torch.randn(18, 24), batch.layout)


def declared(module: nn.Module) -> dict[str, str]:
    lines = [line.strip() for line in (inspect.getdoc(type(module)) or "").splitlines()]
    return {line[:3].rstrip(":"): line[4:].strip() for line in lines if line.startswith(("In:", "Out:"))}


def test_every_module_says_what_comes_in_and_goes_out():
    seen = set()

    def hold(module, inputs, output):
        says = declared(module)
        assert set(says) == {"In", "Out"}, type(module).__name__
        if isinstance(inputs[0], int):
            assert "longest" in says["In"]
        elif isinstance(inputs[0], PackedBatch):
            assert "PackedBatch with N tokens" in says["In"] and len(inputs[0].token_ids) == SIZES["N"]
        else:
            assert agrees(claimed(says["In"]), tuple(inputs[0].shape), dict(SIZES)), (type(module), says)
        outputs = output if isinstance(output, tuple) else (output,)
        for text, one in zip(says["Out"].split(" and "), outputs, strict=len(outputs) > 1):
            claim = claimed(says["Out"] if len(outputs) == 1 else text)
            assert agrees(claim, tuple(one.shape), dict(SIZES)), (type(module), says)
        seen.add(type(module))

    for module, inputs in modules():
        for part in module.modules():
            if type(part).__module__.startswith("minibert."):
                part.register_forward_hook(hold)
        module(*inputs)
    every = {
        x
        for file in (dropout, encoder, variants, pooling, heads)
        for x in vars(file).values()
        if inspect.isclass(x) and issubclass(x, nn.Module) and x.__module__ == file.__name__
    }
    assert seen == every - {heads.Head}


def test_the_modules_own_line_of_the_encoder():
    assert claimed(re.search(r"^Out: (.*)", inspect.getdoc(encoder), re.M)[1]) == ("N", "D")


# --- comments behind lines ------------------------------------------------------------------------

FILES = (
    encoder,
    variants,
    pooling,
    heads,
    batches,
    reference,
    sdpa,
    padded,
    loop,
    blockmask,
    tiled,
    numpy,
    oracle,
    counter,
    np_layers,
    np_encoder,
    np_heads,
)


def calls():
    """Every function whose lines carry shapes, called once."""
    batch = toy_batch()
    q, k, v = torch.randn(3, 18, 4, 6)
    for module, inputs in modules():
        yield lambda module=module, inputs=inputs: module(*inputs)
    for kernel in (reference.reference, sdpa.sdpa, padded.padded, loop.loop, oracle.oracle):
        for extra in ({}, {"window": (1, 2)}, {"bias": torch.randn(4, 2 * 11 - 1)}):
            yield lambda kernel=kernel, extra=extra: kernel(q, k, v, batch.layout, scale=0.4, **extra)
    dropout = Dropout(0.1)
    yield lambda: blockmask.blockmask(q, k, v, batch.layout, scale=0.4)
    for kernel in (tiled.tiled, numpy.numpy, oracle.oracle):
        learnt = [x.clone().requires_grad_() for x in (q, k, v)]
        yield (
            lambda kernel=kernel, learnt=learnt: (
                kernel(*learnt, batch.layout, scale=0.4, dropout=dropout).sum().backward()
            )
        )
    masks = counter.masks(batch.layout, 4, dropout)
    yield lambda: reference.reference(q, k, v, batch.layout, scale=0.4, kept=masks)
    span = heads.Span(toy_config(), None)
    yield lambda: span.loss(torch.randn(18, 2), torch.zeros(3, 2, dtype=torch.int64), batch.layout)
    yield lambda: unpad(pad(torch.randn(18, 24), batch.layout)[0], batch.layout)
    packed, (twin, targets), masked = np_encoder.pack(toy_ids()), toys("classification")[2:], toys("mlm")[2]
    yield lambda: twin.gradients(packed, targets)
    yield lambda: np_layers.squared_error(np.zeros(3), np.ones(3))
    trace = masked.forward(packed)
    masked.params.grads, hidden = defaultdict(float), trace["layers.2.ffn_normed"]
    yield lambda: np_heads.decode(masked.params, 1e-12, packed, trace, hidden)
    yield lambda: np_heads.decode_backward(masked.params, 1e-12, packed, trace, hidden, trace["logits"])


class Claim(NamedTuple):
    """A statement whose last line ends in a shape: what it sets ("" for what it returns), the shape."""

    place: str
    name: str
    shape: tuple[str, ...]


def claims_of(file) -> dict[int, Claim]:
    """line -> the claim of the statement it belongs to, for every line of such statements."""
    source = inspect.getsource(file)
    lines, out = source.splitlines(), {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Assign, ast.Return)):
            continue
        shape = claimed(lines[node.end_lineno - 1].partition("#")[2])
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if shape and not isinstance(target, (ast.Attribute, ast.Subscript)):
            name = "" if target is None else [x.id for x in ast.walk(target) if isinstance(x, ast.Name)][-1]
            claim = Claim(f"{file.__name__}:{node.lineno}", name, shape)
            out |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), claim)
    return out


CLAIMS = {file.__file__: claims_of(file) for file in FILES}


def watch(wrong: dict[str, str], held: set[str]):
    """A trace function: when a statement is done, its claim is held against what it set or returned."""

    def on_call(frame, event, _):
        claims = CLAIMS.get(frame.f_code.co_filename)
        bound = {x: SIZES[x] for x in "DHKFVPC"}  # N and B are the call's own
        last: list[Claim | None] = [None]

        def on_line(frame, event, value):
            claim, now = last[0], claims.get(frame.f_lineno)
            if claim is not None and (now is not claim or event == "return"):
                found = frame.f_locals.get(claim.name) if claim.name else value if event == "return" else None
                if isinstance(found, (torch.Tensor, np.ndarray)):
                    held.add(claim.place)
                    if not agrees(claim.shape, tuple(found.shape), bound):
                        wrong[claim.place] = (
                            f"{claim.name or 'return'}: {tuple(found.shape)}, not {claim.shape}, {bound}"
                        )
            last[0] = now
            return on_line

        return on_line if claims else None

    return on_call


def test_comments_behind_lines_are_true():
    wrong: dict[str, str] = {}
    held: set[str] = set()
    old = sys.gettrace()
    sys.settrace(watch(wrong, held))
    try:
        for call in calls():
            call()
    finally:
        sys.settrace(old)
    assert not wrong
    assert held == {claim.place for claims in CLAIMS.values() for claim in claims.values()}, (
        "not all were met"
    )
    assert len(held) >= 15
