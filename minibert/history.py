"""What is written and said of each step and epoch: history.jsonl, the bar, lines for people.

In:  Step, scores.   Out: events of the run folder, in the order in which things happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from . import device, flops, spec
from .folder import RunFolder
from .model import Model
from .progress import Bar
from .spec import TaskSpec
from .train import Step

# Of a step, what its line of history leaves out.
UNTOLD = ("ends_epoch", "seconds", "count", "tokens_per_microbatch", "loss_scale", "skipped")


def of_card(
    task: TaskSpec, model: Model, lengths: Sequence[int], step: Step, word: str, cards: int
) -> dict[str, float]:
    """What a step's line of history says of a card: the most memory so far, and the share of its peak that
    the encoder's arithmetic came to, where the peak is known and all weights learn. {} on a processor.

    lengths: of what the step computed, in tokens; word: of device.FORMATS; cards: that shared it.
    """
    if model.device.type != "cuda":
        return {}
    found = {"peak_memory": device.peak_memory(model.device)}
    most = flops.peak(device.card(model.device), word)
    if most and not (task.train.freeze_layers or task.train.lora_rank):
        found["model_flops_share"] = flops.training_flops(model.config, lengths) / (
            step.seconds * most * cards
        )
    return found


def log_step(folder: RunFolder, step: Step, bar: Bar, fold: int, card: dict[str, float]) -> None:
    """A line of history and a turn of the bar."""
    facts = {name: value for name, value in asdict(step).items() if name not in UNTOLD}
    speed = {"texts_per_second": step.texts / step.seconds, "tokens_per_second": step.tokens / step.seconds}
    scaled = {"loss_scale": step.loss_scale, "skipped": step.skipped} if step.loss_scale else {}
    folder.event("step", **facts, **speed, **scaled, **card, **({"fold": fold} if fold else {}))
    if step.skipped:
        bar.line(
            f"step {step.step}: gradients overflowed float16 at a loss scale of {step.loss_scale:,g}, so no weight "
            "changed; the next step has half of it"
        )
    bar.advance(
        1,
        f"epoch {step.epoch} loss {step.loss:.3f} {speed['texts_per_second']:.1f} texts/s {speed['tokens_per_second']:,.0f} tokens/s",
    )


def log_evaluation(
    task: TaskSpec,
    folder: RunFolder,
    step: int,
    epoch: int,
    loss: float,
    scores: dict[str, float],
    best: bool,
    bar: Bar,
    fold: int,
    labels: tuple[str, ...],
) -> None:
    """A line of history and a line for people, once an epoch."""
    which = {"fold": fold} if fold else {}
    folder.event("evaluation", step=step, epoch=epoch, best=best, training_loss=loss, **scores, **which)
    told = spec.scored_metric(task, labels)
    mark = " (best so far)" if best else ""
    bar.line(
        f"epoch {epoch}/{task.train.epochs}: loss {loss:.3f}, validation loss {scores['loss']:.3f}, "
        f"{told} {scores[told]:.3f}{mark}"
    )


def log_memory(folder: RunFolder, step: Step, bar: Bar, fold: int) -> None:
    """Say that a step was split because memory ran out."""
    budget = step.tokens_per_microbatch
    folder.event("memory", step=step.step, tokens_per_microbatch=budget, **({"fold": fold} if fold else {}))
    bar.line(
        f"step {step.step}: memory ran out, so from here on {budget:,} tokens are computed at once; a step still "
        f"learns from all its texts. To begin with that: --set train.tokens_per_microbatch={budget}"
    )
