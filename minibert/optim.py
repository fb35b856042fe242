"""AdamW's parameter groups and the learning rate: no decay on biases and LayerNorm, linear with warm-up."""

from __future__ import annotations

import math

import torch
from torch import nn

from .errors import TrainingError


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices decay, vectors (biases, LayerNorm) don't. Raises if nothing is trainable.

    A vector is no direction that overfits, and LayerNorm's scale belongs at 1, not at 0.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise TrainingError("no parameter of the model is trainable")
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def adamw(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW in one fused pass over all parameters; the rate is set before each step."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=0.0, fused=True)


def learning_rate(step: int, total: int, warmup: float, peak: float) -> float:
    """The rate of step 0, 1, ... total - 1: up from 0 over a share of the steps, then down to 0.

    A pure function, equal at every step to the linear schedule that the field uses
    (`get_linear_schedule_with_warmup`), so losses can be compared step by step.
    """
    rising = min(math.ceil(warmup * total), total - 1)  # a single step learns, too
    if step < rising:
        return peak * step / rising
    return peak * max(0.0, (total - step) / max(1, total - rising))
