"""AdamW's parameter groups, its moments by name, and the learning rate: linear, with warm-up."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .errors import TrainingError


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Matrices decay, vectors (biases, LayerNorm) don't. Raises if nothing is trainable.

    A vector is no direction that overfits, and LayerNorm's scale belongs at 1, not at 0.
    `layer_decay` below 1: a group for each depth, whose rate is multiplied by "scale", the decay to the
    power of the layers that stand above (Howard & Ruder 2018, ULMFiT); what is below knows the language.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise TrainingError("no parameter of the model is trainable")
    top = 1 + max((depth_of(name) or 0 for name, _ in model.named_parameters()), default=0)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, p in trained:
        depth = depth_of(name)
        scale = layer_decay ** (top - (top if depth is None else depth))
        groups.setdefault((scale, p.dim() > 1), []).append(p)
    ordered = sorted(groups, key=lambda which: (-which[0], not which[1]))
    return [
        {"params": groups[which], "weight_decay": weight_decay if which[1] else 0.0, "scale": which[0]}
        for which in ordered
    ]


def depth_of(name: str) -> int | None:
    """How deep a parameter lies, by its name: 0 in embeddings, i + 1 in layers.i, None above all layers."""
    parts = name.split(".")
    if "layers" in parts[:-1] and parts[parts.index("layers") + 1].isdecimal():
        return int(parts[parts.index("layers") + 1]) + 1
    return 0 if {"embeddings", "distance"} & set(parts) else None


def adamw(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> torch.optim.AdamW:
    """AdamW in one fused pass over all parameters; the rate is set before each step."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay, layer_decay), lr=0.0, fused=True)


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors that an optimizer keeps, as "exp_avg.PARAMETER"; a parameter without gradients has none."""
    names = {p: name for name, p in model.named_parameters()}
    return {f"{key}.{names[p]}": t for p, slots in optimizer.state.items() for key, t in slots.items()}


def set_moments(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer the tensors back that `moments` took, on the parameters' device."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        key, _, parameter = name.partition(".")
        p = parameters[parameter]
        optimizer.state[p][key] = tensor.to(p.device)


def learning_rate(step: int, total: int, warmup: float, peak: float) -> float:
    """The rate of step 0, 1, ... total - 1: up from 0 over a share of the steps, then down to 0.

    A pure function, equal at every step to the linear schedule that the field uses
    (`get_linear_schedule_with_warmup`), so losses can be compared step by step.
    """
    rising = min(math.ceil(warmup * total), total - 1)  # a single step learns, too
    if step < rising:
        return peak * step / rising
    return peak * max(0.0, (total - step) / max(1, total - rising))
