"""A spec becomes a run folder: the one place where data, model, loop, scores and report meet.

In:  a TaskSpec and a folder.   Out: Outcome; the folder holds model, scores, predictions and report.
The fine-tuning itself stands in fit.py, what is written in results.py.
"""

from __future__ import annotations

import contextlib
import datetime
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__, baseline, catalogue, data, device, report, several, spec, system
from .data import Splits
from .data.withheld import withheld
from .errors import ConfigError, MiniBertError, TrainingError
from .fit import Fitted, fit, predict_test
from .folder import CHECKPOINTS, MODEL, Onlooker, RunFolder, alone, check_folder, check_unfinished
from .kinds import KINDS
from .metrics import HIGHER_IS_BETTER
from .model import Model
from .outset import new_model, weights_of
from .progress import say
from .reading import Parts, encode_all
from .results import Opener, describe_data, environment, store_answers, write_scores, write_up
from .resume import Checkpoints, Saved
from .saving import check_place
from .spec import TaskSpec
from .standing import Reached
from .trackers import Trackers


@dataclass(frozen=True)
class Outcome:
    """Where a run ended: its folder, status.json's word, the exit code, and metrics.json's table.

    Of several processes only the first one knows; the others say that they have "helped".
    """

    folder: Path
    status: str
    exit_code: int
    metrics: dict[str, Any]
    cautions: tuple[str, ...] = ()


def headline(outcome: Outcome) -> str:
    """What a run came to, in a line a metric, what to mind, and where its report is."""
    lines = []
    for name, found in outcome.metrics["test"].items():
        if found["value"] is None:
            lines.append(f"{name}: undefined on these {found['n']:,} texts")
            continue
        lower = "" if HIGHER_IS_BETTER[name] else ", lower is better,"
        line = (
            f"{name} {found['value']:.3f} (95 % interval {span(found)}){lower} on {found['n']:,} test texts"
        )
        other, gap = outcome.metrics["baseline"], outcome.metrics["difference"].get(name)
        if other and gap and gap["value"] is not None:
            line += f"; {other['name']} {other['test'][name]['value']:.3f}; difference {round(gap['value'], 3) + 0.0:+.3f} ({span(gap)})"
        lines.append(line)
    lines += [f"Mind: {caution}" for caution in outcome.cautions]
    return "\n".join([*lines, f"report: {outcome.folder / 'report.html'}"])


def span(found: dict[str, Any]) -> str:
    """An interval in words."""
    return " to ".join(
        "?" if found[k] is None else f"{round(found[k], 3) + 0.0:.3f}" for k in ("low", "high")
    )


def run(
    task: TaskSpec,
    out: Path | str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    tables: data.splits.Tables | None = None,
    unscored: Mapping[str, Opener] | None = None,
) -> Outcome:
    """Do the whole task, with `resume` from where it was interrupted. Raises MiniBertError; the folder's
    status.json then says why. `tables`: those of the task, where they are in memory and not in files.

    unscored   not None: only answers are stored, in answers/, also to these further parts by name; the test
               part's labels are taken away before anything learns, and no baseline is fitted (for a study)

    The data and the weights are looked at before the folder is made, so that bad input leaves nothing.
    Of several processes, as torchrun starts them, each comes here, and the first one writes.
    """
    if resume and overwrite:
        raise ConfigError("a run is either resumed or overwritten, not both")
    task, out = task.absolute({*catalogue.weights(), *catalogue.data_sets()}), Path(out).absolute()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    checkpoints = Checkpoints(out / CHECKPOINTS, task, started, __version__)
    with (
        system.Stop() as stop,
        device.float32_as("float32"),
        several.joined(task.train.parallel, task.train.device) as world,
        contextlib.ExitStack() as held,
    ):
        checkpoints.world = world
        try:
            with stop.at_once():
                if resume and world.first:
                    check_unfinished(out)
                    held.enter_context(alone(out))
                elif world.first:
                    check_out(task, out, overwrite)
                world.wait()
                if resume:
                    checkpoints.resume()
                splits, first, encoded = look_ahead(task, tables)
                splits = splits if unscored is None else [withheld(one, task.data.label) for one in splits]
                checkpoints.made_of = splits, first
                if resume:
                    checkpoints.check()
                elif world.first:
                    held.enter_context(alone(out))
                world.wait()
        except system.Interrupted as signal:
            say(f"stopped on {signal} before training began; nothing was written")
            world.tell(signal)
            return Outcome(out, "stopped", 75, {})
        folder = RunFolder(out, overwrite, resume) if world.first else Onlooker(out)
        if world.first:
            folder.listeners.append(held.enter_context(Trackers(task.train.trackers, out)).event)
        try:
            folder.text("spec.toml", task.to_toml())
            with device.memory_named():
                return carry_out(task, splits, (first, encoded), folder, stop, checkpoints, unscored)
        except MiniBertError as problem:
            diverged = isinstance(problem, TrainingError)
            folder.status("diverged" if diverged else "failed", message=str(problem))
            if diverged:
                with contextlib.suppress(MiniBertError):  # a full disk must not hide what happened
                    write_up(folder)
            raise
        except BaseException as problem:
            folder.status("failed", message=repr(problem))
            raise


def check_out(task: TaskSpec, out: Path, overwrite: bool) -> None:
    """Refuse a folder that is not free, before anything is fetched or read."""
    check_folder(out.absolute(), overwrite)
    if overwrite:
        check_place(out / MODEL, out / MODEL, overwrite)
    check_apart(task, out)


def check_apart(task: TaskSpec, out: Path) -> None:
    """Refuse a folder that the task reads from, and a spec that can't be written into it."""
    d, inside, words = task.data, out.resolve(), [task.model.weights]
    words += [d.train, d.test, d.source, d.validation]
    words += [*task.study.weights, *task.study.transfer] if task.study else []
    words += [task.human.source] if task.human else []
    for word in words:
        path = Path(word).resolve() if isinstance(word, str) and word and Path(word).exists() else None
        if path is not None and (path == inside or inside in path.parents):
            raise ConfigError(
                f"{word} lies in {out}, which this run would write into", "Choose another --out."
            )
    try:
        specs_text = task.to_toml().encode()
        spec.parse(tomllib.loads(specs_text.decode()))
    except (UnicodeEncodeError, tomllib.TOMLDecodeError) as problem:
        raise ConfigError(f"a name or path of the spec can't be written down: {problem}") from None


def look_ahead(task: TaskSpec, tables: data.splits.Tables | None = None) -> tuple[list[Splits], Model, Parts]:
    """The splits, and of the first one the model and token ids; raises what bad input would raise later."""
    Trackers.check(task.train.trackers)
    place, t = device.pick(task.train.device), task.train
    mind = device.caution(device.number_format(t.dtype, place, t.force_dtype), place)
    for word in filter(None, (device.hint(), mind)):
        say(word)
    splits = list(every_split(task, tables))
    first = new_model(task, splits[0], str(place))
    encoded = encode_all(task, first, splits[0])  # a text that is too long for truncation "error"
    for one in splits:
        if one is not splits[0] and task.model.truncation == "error":
            encode_all(task, first, one)
        weights_of(task, one)
        spec.chosen_metric(task, one.labels)
        if baseline_kind(task) != "none":
            baseline.check(baseline_kind(task), task.task.kind, one.train)
    return splits, first, encoded


def carry_out(
    task: TaskSpec,
    splits: list[Splits],
    ready: tuple[Model, Parts],
    folder: RunFolder,
    stop: system.Stop,
    checkpoints: Checkpoints,
    unscored: Mapping[str, Opener] | None = None,
) -> Outcome:
    """Everything that writes into the run's folder. `ready`: model and token ids of the first split."""
    fits, others, world = [], [], checkpoints.world
    agreed = world.agreed(stop)
    for number, one in enumerate(splits):
        fold = number + 1 if len(splits) > 1 else 0
        own = ready if number == 0 else None
        saved = checkpoints.fold(fold) if fold else None
        if saved:
            fits.append(taken_up(one, saved, own or (ready[0], encode_all(task, ready[0], one))))
        else:
            fits.append(learned(task, one, own, folder, agreed, checkpoints, fold))
        if agreed.requested:
            outcome = stopped(fits, folder, agreed, checkpoints)
            world.wait()  # torchrun ends those that are left when one has ended
            return outcome
        if fold and not saved:
            checkpoints.finish(fold, fits[-1].test, fits[-1].reached)
            fits[-1].course = None
        if number:
            fits[-1].forget()
    if not world.first:
        return Outcome(folder.path, "helped", 0, {})
    for one in splits if unscored is None else ():
        if not stop.requested:
            others.append(fit_baseline(task, one))
    if stop.requested:
        return stopped(fits, folder, stop, checkpoints)
    first_fit = fits[0]
    if unscored is None:
        scores = write_scores(task, fits, others, folder)
        folder.json("data.json", describe_data(task, first_fit, splits))
    else:
        scores = store_answers(first_fit, unscored, folder, stop)
        if stop.requested:
            return stopped(fits, folder, stop, checkpoints)
    folder.json(
        "environment.json",
        environment(task, first_fit.model, checkpoints.started, checkpoints.seconds / 60, world),
    )
    summary = {
        "best_epoch": first_fit.best_epoch,
        "epochs": task.train.epochs,
        "metric": spec.chosen_metric(task, first_fit.splits.labels),
        "message": f"{len(fits)} folds; {MODEL}/ holds the first fold's model" if len(fits) > 1 else "",
    }
    folder.status("running", **summary)
    if unscored is None:
        write_up(folder, first_fit)
    folder.finish(**summary)
    told = report.cautions(folder.path) if unscored is None else ()
    return Outcome(folder.path, "completed", 0, scores, told)


def learned(
    task: TaskSpec,
    splits: Splits,
    ready: tuple[Model, Parts] | None,
    folder: RunFolder,
    stop: system.Stop,
    checkpoints: Checkpoints,
    fold: int,
) -> Fitted:
    """Fine-tune on one split, and answer its test part. Of several folds the first one's model is saved."""
    if ready is None:
        model = new_model(task, splits, task.train.device)
        ready = model, encode_all(task, model, splits)
    fitted = fit(task, splits, *ready, folder, stop, checkpoints, fold)
    if fold <= 1:  # at once: whatever comes from here on, the model is there
        fitted.save(folder)
    if not stop.requested:
        predict_test(fitted, stop)
    return fitted


def taken_up(splits: Splits, saved: Saved, ready: tuple[Model, Parts]) -> Fitted:
    """A fold that was done before the run was interrupted. Its model stays as published: it has answered already."""
    test = saved.tensors("test")["test"]["test"].numpy()
    return Fitted(splits, *ready, test, Reached(**saved.facts["reached"]))


def stopped(fits: list[Fitted], folder: RunFolder, stop: system.Stop, checkpoints: Checkpoints) -> Outcome:
    """What a run says that was stopped on request."""
    if fits[-1].course:
        checkpoints.save(fits[-1].course)  # stopped behind the training: it need not be done again
    best = fits[0].best_epoch
    reached = f"its best epoch so far, {best}" if best else "the first epoch, unfinished"
    message = f"stopped on {stop.requested}; {MODEL}/ holds what was reached ({reached}) and loads"
    if checkpoints.any():
        message += f"; go on with: minibert run {system.typed(folder.path)} --resume"
    folder.status("stopped", message=message, best_epoch=best)
    write_up(folder)
    say(f"{folder.path}: {message}")
    return Outcome(folder.path, "stopped", 75, {})


def every_split(task: TaskSpec, tables: data.splits.Tables | None = None) -> Iterator[Splits]:
    """The task's one split, or one for each fold."""

    def locate(source: str) -> Path:
        return catalogue.locate_data(source, task.folder)

    if task.data.folds:
        yield from data.fold_splits(task, locate, tables)
    else:
        yield data.load_splits(task, locate, tables)


def baseline_kind(task: TaskSpec) -> str:
    """The baseline that the spec asks for, or the default."""
    return task.baseline.kind or KINDS[task.task.kind].baselines[0]


def fit_baseline(task: TaskSpec, splits: Splits) -> baseline.Fitted | None:
    """The traditional method on the same training texts, or None where the spec asks for none."""
    if baseline_kind(task) == "none":
        return None
    return baseline.fit(
        baseline_kind(task),
        task.task.kind,
        splits.train,
        splits.validation,
        metric=spec.scored_metric(task, splits.labels),
        seed=task.train.seed,
    )
