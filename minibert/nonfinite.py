"""Where a loss or a gradient first stopped being a finite number: in which part of a module, with which texts.

In:  a module, and a function that computes (sum, count) of some texts' loss, and its gradients.   Out: Place.

The step is computed once more, with a hook on every part. Forward, the first part is named that is given, or gives,
something not finite; a kernel is a function between parts, so what it spoils is what the next one is given.
Where all of that is finite, backward: the first parameter whose gradient is not. Nothing is trained by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

Compute = Callable[[Sequence[int]], tuple[Tensor, Tensor]]  # places of texts -> (sum, count), gradients added


@dataclass(frozen=True)
class Place:
    """The first that is not finite, in words; `texts`: those that show it, computed alone."""

    said: str
    texts: tuple[int, ...] = ()


class Found(Exception):
    """Ends a pass at the first part that shows it: what comes behind is spoilt anyway."""


def search(model: nn.Module, compute: Compute, places: Sequence[int]) -> Place | None:
    """The first place, of the texts together; None where the same step is finite this time. Gradients are emptied."""
    place = first(model, compute, places)
    return place and replace(place, texts=tuple(p for p in places if first(model, compute, [p])))


def first(model: nn.Module, compute: Compute, places: Sequence[int]) -> Place | None:
    """The first place, of these texts in one step."""
    model.zero_grad(set_to_none=True)
    spoilt: list[str] = []  # parameters, in the order of the backward pass
    try:
        with watched(model, spoilt):
            total, count = compute(places)
        if not torch.isfinite(total / count):
            return Place(
                f"the loss, {total:g} over a count of {count:g}, while every part gives finite numbers"
            )
        if spoilt:
            return Place(f"the gradient of {spoilt[0]}, while the loss and what leads to it are finite")
        return of_the_norm(model)
    except Found as found:
        return Place(str(found))
    finally:
        model.zero_grad(set_to_none=True)


@contextmanager
def watched(model: nn.Module, spoilt: list[str]) -> Iterator[None]:
    """Inside, the first part that shows it ends the pass, and parameters with such a gradient are noted."""
    handles = []

    def given(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: Any) -> None:
            if broken(inputs):
                raise Found(f"what {name} is given, while every part before it gives finite numbers")

        return hook

    def gives(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: Any, output: Any) -> None:
            if broken(output):
                raise Found(f"what {name} gives, {cause(part, inputs)}")

        return hook

    def learns(name: str) -> Callable[[Tensor], None]:
        def hook(p: Tensor) -> None:
            if name not in spoilt and broken(p.grad):
                spoilt.append(name)

        return hook

    for name, part in model.named_modules():
        if name:
            handles.append(part.register_forward_pre_hook(given(name)))
            handles.append(part.register_forward_hook(gives(name)))
    for name, p in model.named_parameters():
        if p.requires_grad:
            handles.append(p.register_post_accumulate_grad_hook(learns(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors(value: Any) -> list[Tensor]:
    """The floating tensors among what a part is given or gives."""
    some = value if isinstance(value, (tuple, list)) else [value]
    return [x.detach() for x in some if isinstance(x, Tensor) and x.is_floating_point()]


def broken(value: Any) -> bool:
    """Whether any number of it is NaN or infinite."""
    return any(not torch.isfinite(x).all() for x in tensors(value))


def cause(part: nn.Module, inputs: Any) -> str:
    """Why a part that is given finite numbers gives others: its own weights, or the size of what it is given."""
    own = [name for name, p in part.named_parameters() if broken(p)]
    if own:
        return f"whose own {own[0]} holds numbers that are not"
    largest = max((float(x.abs().max()) for x in tensors(inputs) if x.numel()), default=None)
    return "from finite numbers" + ("" if largest is None else f" of up to {largest:.2g}")


def of_the_norm(model: nn.Module) -> Place | None:
    """Gradients that are finite each, and whose norm is none any more."""
    sizes = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    if not sizes or torch.isfinite(torch.stack([*sizes.values()]).norm()):
        return None
    name = max(sizes, key=lambda name: float(sizes[name]))
    return Place(f"the gradients' norm, while every number is finite: the largest are those of {name}")


def told(place: Place | None, places: Sequence[int], named: Callable[[int], str]) -> str:
    """A Place as the end of a message. `named`: how people find a text again by its place."""
    if place is None:
        return "computed once more, all of it is finite: a fault of the machine, or a kernel that is not repeatable"
    alone = place.texts
    if len(alone) == len(places):
        which = "so with each of these texts by itself" if len(alone) > 1 else "so with this text"
    elif alone:
        shown = ", ".join(map(named, alone[:3])) + (f" and {len(alone) - 3} more" if alone[3:] else "")
        which = f"so with {shown} alone, and not with the others"
    else:
        which = "so with these texts together, and with none of them alone"
    return f"not finite first: {place.said}; {which}"
