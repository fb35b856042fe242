"""Where a fine-tuning stands: all of it that changes from step to step, as numbers and as tensors.

In:  a model and its optimizer's State.   Out: what a checkpoint holds, and the same put back, bit for bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from . import optim
from .errors import WeightsError
from .model import Model
from .processes import ALONE, World
from .train import Plan, State

FILES = ("model", "optimizer", "best")


@dataclass
class Reached:
    """What the epochs came to, as numbers. `validated`: epochs with scores; `stale`: those since the best."""

    best_epoch: int = 0
    validation: dict[str, float] = field(default_factory=dict)  # scores of the best
    validated: int = 0
    stale: int = 0
    loss: float = 0.0  # summed over the steps since the last validation
    count: float = 0.0


class Best:
    """The weights of the best epoch so far: one copy, overwritten in place."""

    def __init__(self, model: Model):
        self.model, self.state = model, None

    def take(self) -> None:
        """The model as it is now is the best."""
        now = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        if self.state is None:
            self.state = {name: tensor.clone() for name, tensor in now.items()}
            return
        for name, tensor in now.items():
            self.state[name].copy_(tensor)

    def restore(self) -> None:
        """Give the model the best weights back, if there are any."""
        if self.state is not None:
            self.model.load_state_dict(self.state)


@dataclass
class Course:
    """One training: of which model, by which plan, in which fold (0: there are none), and how far it is."""

    model: Model
    plan: Plan
    fold: int
    state: State
    best: Best
    reached: Reached = field(default_factory=Reached)
    world: World = ALONE

    @classmethod
    def new(cls, model: Model, plan: Plan, fold: int, world: World = ALONE) -> Course:
        """Before the first step."""
        return cls(model, plan, fold, State.new(model, plan), Best(model), world=world)

    def holds(self, event: dict[str, Any]) -> bool:
        """Whether an event of history.jsonl is no later than this; those of other folds are not asked about."""
        if event.get("fold", 0) != self.fold:
            return True
        if event["event"] == "evaluation":
            return event["epoch"] <= self.reached.validated
        return event["step"] <= self.state.step

    def facts(self) -> dict[str, Any]:
        """How far it is, for JSON. What is in neither of these two follows from the spec, the data and the step."""
        scaler = {"scaler": self.state.scaler.facts()} if self.state.scaler else {}
        return {"step": self.state.step, "budget": self.state.budget, **scaler, **asdict(self.reached)}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Its tensors, by file: weights, moments, and the best epoch's weights once there is one.

        Of several processes that hold shares all must ask; the first gets the tensors.
        """
        weights = (
            self.model.state_dict()
        )  # first: where shares were put together to predict, it parts them again
        moments = optim.moments(self.model, self.state.optimizer)
        found = dict(zip(FILES, (weights, moments, self.best.state or {})))
        return {name: self.world.whole(some) for name, some in found.items()}

    def restore(self, facts: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> None:
        """Put back what `facts` and `tensors` gave. WeightsError where they are another model's."""
        try:
            self.state.step = facts["step"]
            self.state.budget = min(facts["budget"], self.plan.tokens_per_microbatch)
            if self.state.scaler and "scaler" in facts:  # begun on another device, it may have had none
                self.state.scaler.restore(facts["scaler"])
            others = ("step", "budget", "scaler")
            self.reached = Reached(**{k: v for k, v in facts.items() if k not in others})
            part, now = self.world.part, self.model.state_dict()
            own = dict(self.model.named_parameters())
            moments = optim.renamed(self.model, tensors["optimizer"])
            self.model.load_state_dict({k: part(t, now.get(k)) for k, t in tensors["model"].items()})
            optim.set_moments(
                self.model,
                self.state.optimizer,
                {k: part(t, own.get(k.partition(".")[2])) for k, t in moments.items()},
            )
            if tensors["best"]:
                self.best.take()
                for name, kept in self.best.state.items():
                    kept.copy_(part(tensors["best"][name], kept))
        except (KeyError, TypeError, RuntimeError) as problem:
            raise WeightsError(
                f"the checkpoint does not fit this version of minibert: {problem}",
                "Go on with the version that began the run, or begin again with --overwrite.",
            ) from None
