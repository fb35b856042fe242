"""Fine-tune one model on one split: the loop walked step by step, epochs scored, the best one kept.

In:  a TaskSpec, Splits, a model and token ids, a run folder for the history.
Out: Fitted; `predict_test` adds the test part's predictions.
What it begins with is outset.py's, what is told of it history.py's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from . import answers, compiled, device, metrics, nonfinite, spec, system
from .data import Part, Splits
from .errors import TrainingError
from .folder import MODEL, RunFolder
from .history import log_evaluation, log_memory, log_step, of_card
from .kinds import KINDS, metrics_of
from .model import TOKENS_AT_ONCE, Model
from .outset import learner_of, number_format, plan_of
from .processes import ALONE, World
from .progress import Bar
from .reading import Parts
from .resume import Checkpoints
from .spec import TaskSpec
from .standing import Course, Reached
from .tokenize import Encoded
from .train import Step, accumulate, micro_batches, train

Answers = Iterator[tuple[list[int], torch.Tensor]]  # places of texts, and what the head says of them


@dataclass
class Fitted:
    """A fine-tuned model on one split: what it predicts for the test part, and how it got there."""

    splits: Splits
    model: Model
    encoded: Parts
    test: np.ndarray  # probabilities (n, C), of tokens (words, C), or values (n,)
    reached: Reached = field(default_factory=Reached)
    course: Course | None = None  # of a training that is over, for a stop before the test part is done
    world: World = ALONE
    seconds: float = 0.0  # that the answers to the test part took

    @property
    def best_epoch(self) -> int:
        """Whose weights the model has; 0: none was validated."""
        return self.reached.best_epoch

    @property
    def validation(self) -> dict[str, float]:
        """Scores of the best epoch."""
        return self.reached.validation

    def save(self, folder: RunFolder) -> None:
        """Write the model into the run's folder; of several processes all take part."""
        with self.world.saving(self.model):
            if self.world.first:
                self.model.save(folder.path / MODEL, overwrite=True)

    def forget(self) -> None:
        """Let go of what a fold needs no more once it has predicted: its model and the ids it learned from."""
        self.model = None
        self.encoded.pop("train", None)


def fit(
    task: TaskSpec,
    splits: Splits,
    model: Model,
    encoded: Parts,
    folder: RunFolder,
    stop: system.Stop,
    checkpoints: Checkpoints,
    fold: int = 0,
) -> Fitted:
    """Fine-tune, from the newest checkpoint if there is one, and keep the best epoch by validation.

    A run that is stopped saves where it is; one that diverges saves its best epoch before it says so.
    """
    word, world = number_format(task, model), checkpoints.world
    plan = plan_of(task, splits, model)
    learner = learner_of(task, splits, model, encoded["train"], world)
    name = f"{task.task.name}, fold {fold}" if fold else task.task.name
    loss_of = world.join(learner, model, [model.encoder.embeddings, *model.encoder.layers])
    course = Course.new(model, plan, fold, world)
    if checkpoints.resumed:
        checkpoints.restore(course)
        folder.cut_history(course.holds)
    done = course.state.step
    lengths = encoded["train"].lengths.tolist()
    world.wait(texts=len(lengths), tokens=sum(lengths), steps=plan.steps, step=done)
    fitted = Fitted(splits, model, encoded, np.zeros(0), course.reached, course, world)

    def search(places: Sequence[int]) -> nonfinite.Place | None:
        """Where the step that took these texts, and changed no weight, is not finite first."""
        key = (plan.dropout_seed, course.state.step)

        def again(some: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
            ready = micro_batches(learner.prepare, some, learner.encoded.lengths, course.state.budget, key)
            return accumulate(learner, ready, *key, ALONE, course.state.scaler)

        return nonfinite.search(model, again, places)

    try:
        with (
            Bar(name, plan.steps, "steps") as bar,
            device.float32_as(word),
            rows_named(splits.train, search if world.size == 1 else None),
            compiled.problems_named(task.train.compile),
        ):
            bar.line(
                f"{name}: {len(splits.train):,} texts to learn from, {len(splits.validation):,} to choose the epoch, "
                f"{len(splits.test):,} to test; {plan.steps:,} steps on {model.device}"
                + (f", of which {done:,} are done" if done else "")
            )
            bar.advance(done)
            run = train(model, loss_of, lengths, plan, course.state, prepare=learner.prepare, world=world)
            with contextlib.closing(run) as steps:
                epochs(task, fitted, steps, folder, stop, bar, checkpoints)
    except TrainingError as problem:
        if course.best.state is None or fold > 1 or folder.path is None:
            raise
        course.best.restore()
        fitted.save(folder)
        world.wait()
        kept = f"{MODEL}/ holds epoch {fitted.best_epoch}, the best before it"
        raise TrainingError(f"{problem.message}; {kept}", problem.fix) from None
    if stop.requested or world.shards:  # which are together now, and not later
        checkpoints.save(course)
        fitted.course = None  # from here on the model is no longer where the training stopped
    course.best.restore()
    return fitted


def epochs(
    task: TaskSpec,
    fitted: Fitted,
    steps: Iterator[Step],
    folder: RunFolder,
    stop: system.Stop,
    bar: Bar,
    checkpoints: Checkpoints,
) -> None:
    """Walk the steps: note each, validate after each epoch, keep the best, and end where it is time to."""
    course, reached, patience = fitted.course, fitted.reached, task.train.patience

    def go_on() -> bool:
        """Validate if an epoch is over; whether training goes on."""
        ended = course.state.step // course.plan.steps_per_epoch
        if ended > reached.validated and not stop.requested:
            validated(task, fitted, ended, folder, stop, bar)
        if stop.requested:
            return False
        if patience and reached.stale >= patience:
            bar.line(f"no better validation in {reached.stale} epochs: stopped at epoch {reached.validated}")
            return False
        return True

    if not go_on():  # of a run that goes on: it may have been stopped between an epoch and its validation
        return
    budget, word = course.state.budget, number_format(task, fitted.model)
    encoded, cards = fitted.encoded["train"], fitted.world.size
    device.forget_peak(fitted.model.device)
    due = False
    for step in steps:
        taken = encoded.piece_lengths(course.plan.places(step.step - 1))
        log_step(
            folder,
            step,
            bar,
            course.fold,
            of_card(task, fitted.model, taken, step, word, cards),
        )
        reached.loss += step.loss * step.count
        reached.count += step.count
        if step.tokens_per_microbatch < budget:
            budget = step.tokens_per_microbatch
            log_memory(folder, step, bar, course.fold)
        due = due or checkpoints.due(step.step)
        if step.step < course.state.step:  # a card's steps are told several at a time
            continue
        now, due = stop.meet(due), False
        if not go_on():
            return
        if now:
            checkpoints.save(course)


def validated(
    task: TaskSpec, fitted: Fitted, epoch: int, folder: RunFolder, stop: system.Stop, bar: Bar
) -> None:
    """Score an epoch, and keep it if it is the best. Nothing of it counts if a stop is asked for meanwhile."""
    labels, reached, course = fitted.splits.labels, fitted.reached, fitted.course
    with device.float32_as("float32"):
        scores = validate(task, fitted, stop)
    if stop.requested:
        return
    is_best = course.best.state is None or improves(
        spec.chosen_metric(task, labels), scores, reached.validation
    )
    loss = reached.loss / reached.count
    log_evaluation(task, folder, course.state.step, epoch, loss, scores, is_best, bar, course.fold, labels)
    reached.validated, reached.stale, reached.loss, reached.count = epoch, reached.stale + 1, 0.0, 0.0
    if is_best:
        reached.validation, reached.best_epoch, reached.stale = scores, epoch, 0
        course.best.take()


def predict_test(fitted: Fitted, stop: system.Stop) -> None:
    """Put the test part's predictions into `fitted`; half of them, which nobody uses, if stopped."""
    with Bar("predicting the test texts", len(fitted.encoded["test"]), "texts") as bar:
        began = time.monotonic()
        fitted.test = answered(fitted, "test", stop, bar)
        fitted.seconds = time.monotonic() - began


def answered(fitted: Fitted, part: str, stop: system.Stop, bar: Bar | None = None) -> np.ndarray:
    """What the model says of every text of a part; of several processes each asks it for a share, and all
    know all. Nonsense if a stop is asked for meanwhile."""
    model, encoded, world = fitted.model, fitted.encoded[part], fitted.world
    with world.calling():
        found = model.answer_table(encoded, until(stop, model, encoded, world, bar))
    return world.sum(torch.from_numpy(found)).numpy()  # 0 where another process answers


def until(stop: system.Stop, model: Model, encoded: Encoded, world: World, bar: Bar | None) -> Answers:
    """This process's answers, up to where a stop is asked for."""
    groups = world.groups(encoded.lengths.tolist(), TOKENS_AT_ONCE)
    answers = model.answers(encoded, groups=[places for places, _ in groups])
    for (places, found), (_, counts) in zip(answers, groups):
        if counts:
            yield places, found
        if bar:
            bar.advance(len(places) * world.size)
        stop.meet()
        if stop.requested:
            return


@contextlib.contextmanager
def rows_named(
    part: Part, search: Callable[[Sequence[int]], nonfinite.Place | None] | None
) -> Iterator[None]:
    """Let an error of the loop, which knows texts by their place, name the rows of their table, and the first
    part of the model that shows it, unless search is None."""
    try:
        yield
    except TrainingError as problem:
        if not problem.places:
            raise
        rows = ", ".join(str(part.rows[place]) for place in problem.places)
        message = f"{problem.message}, rows {rows} of {part.table.path}"
        if search is None:  # of several processes
            raise TrainingError(
                f"{message}; one process alone would say where it shows", problem.fix
            ) from None
        with contextlib.suppress(RuntimeError):  # memory that runs out here must not hide what happened
            where = nonfinite.told(
                search(problem.places), problem.places, lambda place: part.table.where(int(part.rows[place]))
            )
            message += f"; {where}"
        raise TrainingError(message, problem.fix) from None


def improves(metric: str, new: dict[str, float], old: dict[str, float]) -> bool:
    """Whether an epoch's scores are better than the best so far; of equal ones the lower loss is.

    NaN is worse than anything.
    """
    now, best = new[metric], old.get(metric, np.nan)
    if metric == "loss":
        return now < best or (now == now and best != best)
    return metrics.better(metric, now, best) or (now == best and improves("loss", new, old))


def validate(task: TaskSpec, fitted: Fitted, stop: system.Stop) -> dict[str, float]:
    """Every metric and the loss on the validation part; nonsense if a stop is asked for meanwhile."""
    kind, encoded, labels = task.task.kind, fitted.encoded["validation"], fitted.splits.labels
    found = answered(fitted, "validation", stop)
    truth, said = fitted.splits.validation.targets, answers.said(kind, found, labels, encoded.words)
    loss = answers.loss(kind, found, truth, labels, getattr(fitted.model.head, "deviation", 1.0))
    known = answers.all_labels(kind, labels, truth)
    pair = [answers.scored(kind, one, known if KINDS[kind].none else labels) for one in (truth, said)]
    scores = {
        name: metrics.value(name, *pair, len(labels) or None, kind) for name in metrics_of(kind, labels)
    }
    return fitted.world.as_first({"loss": loss} | scores)
