"""torch's fused attention by each of its backends' names: sdpa_math, sdpa_flash, sdpa_efficient, sdpa_cudnn.

What is different: torch picks a backend by itself, and another one in silence where the first can't; here it
is the one named, or an error. What each can do is the table below. One that takes a mask gets padded.py's
rectangles, one that takes none (or gives NaN with one, as cuDNN does: sdpa.py) sdpa.py's equal lengths.
Which is faster, forward and backward: `math` is the textbook, (n, n) written to memory several times; `flash`
keeps a tile of it on the chip (tiled.py says how); `efficient` does, too, takes masks and float32, and is
older; `cudnn` is NVIDIA's own, on Hopper the fastest, with gradients that were wrong more than once.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from .. import device
from ..batch import Layout
from ..errors import ConfigError
from . import FLOATS, Dropout, register
from .padded import padded
from .sdpa import sdpa

HALVES = (torch.bfloat16, torch.float16)


class Backend(NamedTuple):
    """What one of torch's backends can do on one device.

    over      the kernel whose rectangles it computes: padded, or sdpa where it takes no mask
    widest    of a head; 0: any
    multiple  a head's width must be one of; torch widens heads for flash itself
    build     as in `register`: '', or what this machine lacks
    """

    kernel: SDPBackend
    device: str
    dtypes: tuple[torch.dtype, ...]
    dropout: bool
    over: Callable[..., Tensor]
    window: bool = False
    bias: bool = False
    widest: int = 0
    multiple: int = 1
    build: Callable[[bool], str] = lambda really: ""


def no_flash(really: bool) -> str:
    """'' if the cards here are new enough, or why not."""
    return device.no_flash()


# The lines of "cuda" are from torch's documentation and source (sdp_utils.cpp), and flash and cuDNN have run on one H100, the others never.
MATH, FLASH = SDPBackend.MATH, SDPBackend.FLASH_ATTENTION
EFFICIENT, CUDNN = SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION
TABLE = {
    "sdpa_math": (
        Backend(MATH, "cpu", FLOATS, True, padded, window=True, bias=True),
        Backend(MATH, "cuda", FLOATS, True, padded, window=True, bias=True),
    ),
    "sdpa_flash": (
        Backend(FLASH, "cpu", FLOATS, False, padded, window=True),  # its masks get no gradient
        Backend(FLASH, "cuda", HALVES, True, sdpa, widest=256, build=no_flash),
    ),
    "sdpa_efficient": (
        Backend(EFFICIENT, "cuda", (torch.float32, *HALVES), True, padded, multiple=8),
    ),
    "sdpa_cudnn": (
        Backend(CUDNN, "cuda", HALVES, True, sdpa, widest=128, multiple=8, build=no_flash),
    ),
}  # fmt: skip


def kernel(name: str, lines: dict[str, Backend]) -> Callable[..., Tensor]:
    """The kernel called `name`: on each device as its line says."""

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        layout: Layout,
        *,
        scale: float,
        dropout: Dropout | None = None,
        window: tuple[int, int] | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(N, H, K) x 3 -> (N, H, K)."""
        one, width = lines[q.device.type], q.shape[-1]
        if width % one.multiple or 0 < one.widest < width:
            most = f", up to {one.widest}" if one.widest else ""
            raise ConfigError(
                f"kernel {name!r} takes heads of a width that is a multiple of {one.multiple}{most}, not {width}",
                "Take 'sdpa'.",
            )
        extra = {"window": window, "bias": bias}
        try:
            return one.over(q, k, v, layout, scale=scale, dropout=dropout, **extra, by=one.kernel)
        except RuntimeError as problem:
            if "No available kernel" not in str(problem) and "No viable backend" not in str(problem):
                raise
            raise ConfigError(f"kernel {name!r} can't compute this here: {problem}", "Take 'sdpa'.") from None

    return attend


for name, lines in TABLE.items():
    can = {
        line.device: {
            "dtypes": line.dtypes,
            "dropout": "generator" if line.dropout else "",
            "window": line.window,
            "bias": line.bias,
            "build": line.build,
        }
        for line in lines
    }
    register(
        name,
        devices=tuple(can),
        **{**next(iter(can.values())), "gradients": True},
        elsewhere=can,
    )(kernel(name, {line.device: line for line in lines}))
