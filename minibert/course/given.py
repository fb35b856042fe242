"""What a reader handed in, as the numbers, text or function that a check can look at.

In:  an answer of any type.   Out: the same as an array, a number, a string; or Wrong, which `check` prints.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from . import Wrong


def numbers(answer: object, shape: tuple[int, ...], what: str = "the answer") -> np.ndarray:
    """An array of this shape in float64: from an array, a tensor, or nested lists."""
    try:
        found = np.asarray(answer.detach() if hasattr(answer, "detach") else answer, dtype=np.float64)
    except (TypeError, ValueError):
        raise Wrong(f"{what} is a {kind(answer)}, where an array of shape {shape} is asked for") from None
    if found.shape != shape:
        raise Wrong(f"{what} has the shape {found.shape}, not {shape}")
    if not np.isfinite(found).all():
        raise Wrong(f"{what} holds numbers that are not finite")
    return found


def number(answer: object, what: str = "the answer") -> float:
    """One finite number."""
    return float(numbers(answer, (), what))


def several(found: object, shapes: dict[str, tuple[int, ...]]) -> list[np.ndarray]:
    """The arrays that a function gives together, by name; Wrong where they are not so many, or misshapen."""
    names = ", ".join(shapes)
    if not isinstance(found, (tuple, list)) or len(found) != len(shapes):
        raise Wrong(f"the function gives {len(shapes)} things, in this order: {names}")
    for one, name in zip(found, shapes):
        if one is None:
            raise Wrong(f"{name} is still None")
    return [numbers(one, shape, name) for one, (name, shape) in zip(found, shapes.items())]


def text(answer: object, what: str = "the answer") -> str:
    """A string, without spaces around it."""
    if not isinstance(answer, str):
        raise Wrong(f"{what} is a {kind(answer)}, where a string is asked for")
    return answer.strip()


def texts(answer: object, what: str = "the answer") -> list[str]:
    """A list or tuple of strings."""
    if not isinstance(answer, (list, tuple)) or not all(isinstance(one, str) for one in answer):
        raise Wrong(f"{what} is a {kind(answer)}, where a list of strings is asked for")
    return list(answer)


def called(answer: object, *inputs: object) -> object:
    """What the reader's function gives for these inputs; what it raises is told, not passed on."""
    if not callable(answer):
        raise Wrong(f"the answer is a {kind(answer)}, where a function is asked for: hand it in without ()")
    try:
        inspect.signature(answer).bind(*inputs)
    except TypeError:
        raise Wrong(f"the function is called with {len(inputs)} arguments, which it doesn't take") from None
    except ValueError:  # NumPy's own functions don't all say what they take
        pass
    try:
        with np.errstate(all="ignore"):
            found = answer(*(one.copy() if isinstance(one, np.ndarray) else one for one in inputs))
    except Exception as problem:
        raise Wrong(f"the function stopped with {type(problem).__name__}: {problem}") from None
    if found is None:
        raise Wrong("the function returns nothing: does it end in `return`?")
    return found


def slip(found: np.ndarray | float, slips: dict[str, np.ndarray | float], tolerance: float = 1e-3) -> str:
    """What to say of an answer that is one of the usual slips, {what to say: what the slip gives}; else ''."""
    return next((rule for rule, wrong in slips.items() if close(found, wrong, tolerance)), "")


def close(found: np.ndarray | float, wanted: np.ndarray | float, tolerance: float = 1e-3) -> bool:
    """Whether every number lies within the tolerance, absolute or relative: rounded answers are right too."""
    return bool(np.allclose(found, wanted, rtol=tolerance, atol=tolerance))


def kind(answer: object) -> str:
    """How an answer of the wrong type is named: "a function", not its address."""
    return "function" if isinstance(answer, Callable) else type(answer).__name__
