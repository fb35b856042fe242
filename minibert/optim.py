"""AdamW on a model's parameters by depth: groups, one update with its clipping, moments by name; the rate.

In:  a model, and a summed loss whose gradients stand in its parameters.   Out: changed weights, and norms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .errors import TrainingError
from .processes import ALONE, World
from .wordrows import WordRows


class AdamW(torch.optim.AdamW):
    """torch's fused AdamW; an `update` divides by the count, clips, and skips what is not finite.

    layers   what `update` gives norms of: embeddings, layers.0, ..., head, those that learn
    """

    def __init__(self, model: nn.Module, weight_decay: float, layer_decay: float = 1.0):
        super().__init__(parameter_groups(model, weight_decay, layer_decay), lr=0.0, fused=True)
        self.trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.layers = tuple(dict.fromkeys(layer_of(name) for name, _ in self.trained))
        tables = [
            table for table in model.modules() if isinstance(table, WordRows) and table.used.requires_grad
        ]
        self.idle = [(table, group) for table in tables for group in self.param_groups
                     if any(p is table.used for p in group["params"])]  # fmt: skip
        self.known: dict[tuple[str, ...], Tensor] = {}
        self.broken: Tensor | None = None  # () bool: whether a step was not finite

    def update(
        self,
        rate: float,
        total: Tensor,
        count: Tensor,
        clip: float,
        world: World = ALONE,
        scaler: Scaler | None = None,
    ) -> Tensor:
        """One step down: (3 + layers,) mean loss, gradient norm before clipping, count, norm by layer; with a
        scaler behind them the scale that this step had.

        Gradients in: of the summed loss, times the scale. All is decided on the device: nothing here waits
        for it. Where loss or norm is not finite no weight changes, nor any moment.
        """
        held = [(name, p.grad) for name, p in self.trained if p.grad is not None]
        squares = torch.stack(world.norms([grad for _, grad in held])).to(total).square()  # (tensors,)
        owners = self.owners(tuple(name for name, _ in held), total.device)
        large = count if scaler is None else count * scaler.scale  # by so much the gradients are too large
        by_layer = squares.new_zeros(len(self.layers)).index_add(0, owners, squares).sqrt() / large
        norm, mean = squares.sum().sqrt() / large, total / count
        shrink = (clip / (norm + 1e-6)).clamp(max=1.0) if clip > 0 else torch.ones_like(norm)
        finite = torch.isfinite(norm) & torch.isfinite(mean)
        broken = ~torch.isfinite(mean) if scaler else ~finite
        if self.broken is not None:  # a step before, whose numbers nobody has read yet: all stays as it was
            finite = finite & ~self.broken
        self.broken = broken if self.broken is None else broken | self.broken
        for group in self.param_groups:
            group["lr"] = rate * group["scale"]
        self.found_inf = (~finite).float()
        if all(grad.dtype == torch.float32 for _, grad in held):
            self.grad_scale = (large / shrink).float()  # by which the kernel divides as it reads
        else:  # a scale of float32 would be too coarse
            self.grad_scale = None
            torch._foreach_mul_([grad for _, grad in held], shrink / large)
        self.step()
        for table, group in self.idle:
            if group["weight_decay"]:
                table.idle.mul_(1 - group["lr"] * group["weight_decay"] * finite)
        self.zero_grad(set_to_none=True)
        facts = torch.cat([torch.stack([mean, norm, count]), by_layer])
        if scaler is None:
            return facts
        facts = torch.cat([facts, scaler.scale[None]])
        scaler.follow(self.found_inf)
        return facts

    def owners(self, names: tuple[str, ...], device: torch.device) -> Tensor:
        """(tensors,) int64: which of `layers` each parameter is in; kept on the device, as it stays the same."""
        if names not in self.known:
            numbers = torch.tensor([self.layers.index(layer_of(name)) for name in names])
            self.known = {names: numbers.to(device, non_blocking=True)}
        return self.known[names]


class Scaler:
    """What losses are multiplied by before float16's backward pass, lest small gradients vanish in it.

    Halved after a step whose gradients overflowed, which changes no weight; doubled after EVERY steps
    without (Micikevicius et al. 2018, section 3.2). Decided on the device, by the operation of torch's GradScaler.

    scale   () float32
    clean   () int32: steps since it changed
    """

    FIRST = 2.0**12  # of a sum of losses: as 2^16, which is usual, of the mean of sixteen
    LEAST = 2.0**-10  # gradients that overflow even here are no matter of scale
    EVERY = 2000

    def __init__(self, device: torch.device):
        self.scale = torch.full((), self.FIRST, device=device)
        self.clean = torch.zeros((), dtype=torch.int32, device=device)

    def follow(self, overflowed: Tensor) -> None:
        """Change the scale after a step; overflowed () float32: 1, or 0."""
        torch._amp_update_scale_(self.scale, self.clean, overflowed, 2.0, 0.5, self.EVERY)

    def facts(self) -> list[float]:
        """Where it stands, as numbers."""
        return [float(self.scale), int(self.clean)]

    def restore(self, facts: list[float]) -> None:
        """Put it back to where it stood."""
        self.scale.fill_(facts[0])
        self.clean.fill_(facts[1])


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


def layer_of(name: str) -> str:
    """The layer of a parameter, by its name: embeddings, layers.0, ..., or head for all above them."""
    depth = depth_of(name)
    return "head" if depth is None else "embeddings" if depth == 0 else f"layers.{depth - 1}"


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors that an optimizer keeps, as "exp_avg.PARAMETER"; a parameter without gradients has none.

    "rows.PARAMETER" says which rows of a word table learn, where not all do.
    """
    names = {p: name for name, p in model.named_parameters()}
    out = {f"{key}.{names[p]}": t for p, slots in optimizer.state.items() for key, t in slots.items()}
    tables = [part for part in model.modules() if isinstance(part, WordRows) and part.used in optimizer.state]
    return out | {f"rows.{names[table.used]}": table.order[: len(table.used)] for table in tables}


def renamed(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `moments` took, for this model: it may hold a word table whole where the other held rows apart,
    or rows where the other held it whole. Rows that never occur have moments of zero."""
    names, out = dict(model.named_parameters()), {}
    for name, tensor in tensors.items():
        (key, _, parameter), table = name.partition("."), name.partition(".")[2].rpartition(".")[0]
        used, whole = f"{table}.used", f"{table}.weight"
        if key == "rows":
            continue
        if parameter == used and whole in names:
            parameter, rows = whole, tensors[f"rows.{used}"]
            if tensor.dim():  # all but "step"
                tensor = tensor.new_zeros(names[whole].shape).index_copy(0, rows, tensor)
        elif parameter == whole and used in names:
            parameter, apart = used, model.get_submodule(table)
            if tensor.dim():
                tensor = tensor.index_select(0, apart.order[: len(apart.used)].to(tensor.device))
        out[f"{key}.{parameter}"] = tensor
    return out


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
