"""What the page says in words: numbers as text, the summary, what a reader should know first.

In:  a Run.   Out: strings, and Markup where numbers are set off; nothing that was not measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..kinds import KINDS
from ..metrics import HIGHER_IS_BETTER, METRICS, ONE_LABEL
from ..spec import default_metric
from ..system import typed as typed
from .read import Run

# title, what it is in one line
METRIC = {
    "accuracy": ("Accuracy", "share of test texts given their true label"),
    "macro_f1": ("Macro F1", "mean F1 of the classes, rare ones weighing as much"),
    "pearson": ("Pearson r", "how closely the values follow a line; 1 is perfect"),
    "spearman": ("Spearman ρ", "how well their order is predicted; 1 is perfect"),
    "rmse": ("RMSE", "typical error, large ones weighing more; lower is better"),
    "mae": ("MAE", "mean size of the error; lower is better"),
    "r2": ("R²", "share of variance predicted; always saying the mean is 0"),
    "micro_f1": ("Micro F1", "precision and recall of all labels together, joined"),
    "exact": ("Exact match", "share of test texts given all their labels and no other"),
    "entity_f1": ("Entity F1", "precision and recall of entities, joined: bounds and type must be right"),
    "entity_precision": ("Entity precision", "of the entities that were marked, the share that is right"),
    "entity_recall": ("Entity recall", "of the true entities, the share that was found"),
}
OF_WORDS = {  # what these are where each word has a tag
    "accuracy": "share of the words of the test texts given their true tag",
    "macro_f1": "mean F1 of the tags, rare ones weighing as much",
}
ABSENT = "–"


def number(value: float | None, digits: int = 3) -> str:
    """0.948, −0.12, 1,234: three decimals below 10, fewer above; a dash for what is undefined."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return ABSENT
    size = abs(value)
    decimals = digits if size < 9.9995 else max(0, digits - len(f"{size:.0f}") + 1)
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "" if float(text.replace(",", "")) == 0 else "−")


def signed(value: float | None) -> str:
    """+0.032, −0.012."""
    text = number(value)
    return text if text == ABSENT or text.startswith("−") else f"+{text}"


def span(low: float | None, high: float | None, form: Any = number) -> str:
    """0.938 to 0.957, or that there is no interval."""
    return "no interval" if low is None or high is None else f"{form(low)} to {form(high)}"


def count(n: int | float, one: str, many: str = "") -> str:
    """1 text, 2,189 texts."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def percent(share: float | None) -> str:
    """31 %, 0.4 %, under 0.1 %; 100 % and 0 % only where nothing is rounded away."""
    if not isinstance(share, (int, float)) or not math.isfinite(share):
        return ABSENT
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.9995 <= share < 1:
        return "over 99.9 %"
    return f"{100 * share:.1f} %" if share < 0.0995 or 0.9905 < share < 1 else f"{100 * share:.0f} %"


@dataclass(frozen=True)
class Line:
    """One metric: the network's score, the baseline's, and ours minus theirs ({} where there is none)."""

    name: str
    ours: dict[str, Any]
    theirs: dict[str, Any]
    gain: dict[str, Any]
    validation: float | None
    words: bool = False

    @property
    def title(self) -> str:
        """Its name on the page."""
        return METRIC[self.name][0]

    @property
    def about(self) -> str:
        """What it is, in a line."""
        of_words = OF_WORDS if self.words else {}
        return of_words.get(self.name, METRIC[self.name][1])

    @property
    def verdict(self) -> str:
        """better, worse, open (the interval holds zero), or '' where there is no difference."""
        low, high = self.gain.get("low"), self.gain.get("high")
        if low is None or high is None:
            return ""
        if low <= 0 <= high:
            return "open"
        return "better" if (low > 0) == HIGHER_IS_BETTER[self.name] else "worse"


VERDICTS = {
    "better": "Excludes zero: the network is better.",
    "worse": "Excludes zero: the baseline is better.",
    "open": "Includes zero: it is open which is better.",
}


def lines(run: Run) -> list[Line]:
    """The metrics of the task's kind that the run has, in the order the page shows."""
    tested, other = run.metrics.get("test") or {}, (run.metrics.get("baseline") or {}).get("test") or {}
    gains, validation = run.metrics.get("difference") or {}, run.metrics.get("validation") or {}
    return [
        Line(
            name,
            tested[name],
            other.get(name) or {},
            gains.get(name) or {},
            validation.get(name),
            KINDS[run.kind].words,
        )  # fmt: skip
        for name in METRICS[run.kind]
        if name in tested
    ]


def parts(run: Run) -> dict[str, dict[str, Any]]:
    """The facts of train, validation and test."""
    return run.data.get("parts") or {}


def rows(run: Run, part: str) -> int:
    """How many texts a part has; 0 where that was not written down."""
    return int((parts(run).get(part) or {}).get("rows") or 0)


def reached(name: str, score: dict[str, Any], form: str) -> Markup:
    """`form` with the metric's name, its value and its interval, or why there is no such score."""
    if score.get("value") is None:
        return Markup("has no {}: {}").format(name, score.get("note") or "it is undefined")
    spread = span(score.get("low"), score.get("high"))
    return Markup(form).format(name=name, value=number(score["value"]), spread=spread)


def summary(run: Run) -> Markup:
    """What was trained, what it reached, and how that compares, in three sentences."""
    model, found, trained = run.spec.model.weights, lines(run), rows(run, "train")
    if not found:
        why = ended(run) or "the run did not get that far"
        return Markup("{} was to be fine-tuned. There are no test scores: {}.").format(model, why.rstrip("."))
    first = found[0]
    name = "accuracy" if first.name == "accuracy" else first.title
    said = reached(name, first.ours, "reached {name} <strong>{value}</strong> (95 % interval {spread})")
    start = f"Fine-tuned on {count(trained, 'text')}, " if trained else ""
    start = f"Cross-validated in {run.folds} folds, " if run.folds else start
    return Markup("{}{} {} on {}. {}").format(
        start, model, said, count(first.ours["n"], "test text"), comparison(run, first)
    )


def comparison(run: Run, first: Line) -> Markup:
    """The baseline's score and the difference, or that there is none."""
    if not first.theirs:
        return Markup("No baseline was run, so there is nothing to compare this with.")
    other = reached(first.title, first.theirs, "reached <strong>{value}</strong> ({spread})")
    said = Markup("{}, trained on the same texts, {}.").format(run.metrics["baseline"]["name"], other)
    if not first.verdict:
        return said + " No interval of the difference could be computed."
    meaning = {
        "better": "which excludes zero: the network is better on texts like these.",
        "worse": "which excludes zero: the baseline is better on texts like these.",
        "open": "which includes zero: these texts do not tell which is better.",
    }[first.verdict]
    return said + Markup(" The difference is <strong>{}</strong> ({}), {}").format(
        signed(first.gain["value"]), span(first.gain["low"], first.gain["high"], signed), meaning
    )


def ended(run: Run) -> str:
    """Why a run ended, in a line; in short, where the diagnosis says it in full."""
    if any(one["sign"] == "not_finite" for one in run.diagnosis.get("findings") or []):
        return "a loss or gradient was not finite."
    return "".join(
        f"{line.rstrip('.')}. " for line in (run.status.get("message") or "").splitlines()
    ).rstrip()


def cautions(run: Run) -> list[str]:
    """What a reader must know before the scores: an unfinished run, a test part that proves little."""
    status, message, out = run.status.get("status", "unknown"), ended(run), []
    # a run writes its report just before it says "completed"
    if status != "completed" and not (status == "running" and lines(run)):
        said = f"{message[:1].upper()}{message[1:]}"
        out.append(f"The run’s status is “{status}”, not “completed”. {said}".strip())
    if any(line.ours.get("note") == ONE_LABEL for line in lines(run)):
        out.append(f"{ONE_LABEL.capitalize()}, so the scores say nothing about telling labels apart.")
    tested = max((line.ours["n"] for line in lines(run)), default=100)
    if tested < 100:
        out.append(f"Only {count(tested, 'text')} were tested: mind the intervals.")
    return out


def grave(run: Run) -> list[dict[str, Any]]:
    """The findings of the diagnosis that a reader must know before the scores; the status says the first itself."""
    return [
        one for one in run.diagnosis.get("findings") or [] if one["grave"] and one["sign"] != "not_finite"
    ]


def looked_for(run: Run) -> tuple[list[str], list[str]]:
    """Titles of the signs that were looked for and not found; those that could not be, each with the reason."""
    found = {one["title"] for one in run.diagnosis["findings"]}
    by_reason: dict[str, list[str]] = {}
    for title, why in run.diagnosis["not_looked_for"].items():
        by_reason.setdefault(why, []).append(title)
    unseen = [f"{', '.join(titles)} ({why})" for why, titles in by_reason.items()]
    return [title for title in run.diagnosis["looked_for"] if title not in found], unseen


def majority(run: Run) -> str:
    """What always saying the commonest training label would reach, counted from the label counts."""
    known = (parts(run).get("train") or {}).get("labels") or {}
    tested = {one["label"]: one["n"] for one in run.metrics.get("classes") or []}
    found = lines(run)
    if not (known and tested and found and found[0].ours["n"] and run.metrics.get("confusion")):
        return ""
    label = max(known, key=known.get)
    share = tested.get(label, 0) / (sum(tested.values()) if KINDS[run.kind].words else found[0].ours["n"])
    return (
        f"Always answering “{label}”, the most frequent training label, would reach accuracy {number(share)}."
    )


def truncation(run: Run) -> list[str]:
    """What of a long text reaches the network, that the baseline is not bound by it, and oddities."""
    model, out = run.spec.model, []
    kept = {
        "head": f"The network reads the first {model.max_tokens} tokens of a text.",
        "tail": f"The network reads the last {model.max_tokens} tokens of a text.",
        "head+tail": f"Of a long text the network reads both ends, {model.max_tokens} tokens together.",
        "window": f"The network reads up to {model.max_windows} windows of {model.max_tokens} tokens a text.",
    }.get(model.truncation, f"The network reads {model.max_tokens} tokens of a text.")
    if KINDS[run.kind].words:
        out.append(f"A text of more than {model.max_tokens} tokens is read in pieces, cut between words: every "
                   "word has an answer.")  # fmt: skip
    elif any((facts.get("truncated") or {}).get("texts") for facts in parts(run).values()):
        out.append(f"{kept} The baseline reads every text whole." if run.metrics.get("baseline") else kept)
    else:
        out.append(f"No text was cut: none is longer than {model.max_tokens} tokens.")
    for part, facts in parts(run).items():
        if facts.get("unknown_share", 0) >= 0.005:
            out.append(
                f"In {part}, {percent(facts['unknown_share'])} of the tokens are unknown to the tokenizer."
            )
        if facts.get("special_names_in_text"):
            texts = count(facts["special_names_in_text"], "text")
            out.append(
                f"In {part}, {texts} hold the name of a special token, such as [SEP]; it is read as plain text."
            )
        if facts.get("pairs_with_one_side_gone"):
            pairs = count(facts["pairs_with_one_side_gone"], "pair")
            out.append(f"In {part}, {pairs} lost nearly all of one side.")
    return out


def task(run: Run) -> str:
    """What was predicted from what, and who was compared."""
    data, model = run.spec.data, run.spec.model
    source = f"“{run.text}” and “{data.pair}”" if data.pair else f"“{run.text}”"
    labels = run.metrics.get("labels") or []
    known = labels or not KINDS[run.kind].labels
    what = KINDS[run.kind].about.format(len(labels)) if known else "a label"
    baseline = run.metrics.get("baseline")
    other = f" {baseline['name']} was trained on the same texts to compare with." if baseline else ""
    once = (
        f"in each of {run.folds} folds; all test texts are scored together"
        if run.folds
        else "and tested once"
    )
    return (
        f"The task: from {source}, predict “{run.label}”, {what}. The encoder {model.weights} was fine-tuned on "
        f"the training part, its epoch chosen on validation, {once}.{other}"
    )


def notes(run: Run) -> list[str]:
    """Beneath the scores: how to read an interval, what it leaves out, and why a score is missing."""
    paired = (
        "; the difference is paired: both are scored on the same draws" if run.metrics.get("baseline") else ""
    )
    out = [
        "An interval says how far a score would move if other test texts like these had been drawn (95 % "
        f"bootstrap over test texts{paired}). It does not cover another seed or other training texts."
    ]
    missing = {}
    for line in lines(run):
        for who, scored in (("network", line.ours), ("baseline", line.theirs)):
            if scored.get("note"):
                missing.setdefault(f"{who}: {scored['note']}", []).append(line.title)
    out += [f"{', '.join(titles)}, {reason}." for reason, titles in missing.items()]
    return out


def ran(run: Run) -> list[str]:
    """Where, when and how long; what the baseline was given."""
    known, out = run.environment, []
    where = known.get("cpu") if known.get("device", "cpu") == "cpu" else known.get("device")
    if known.get("minutes") and where:
        several = f" in {known['processes']} processes" if known.get("processes", 1) > 1 else ""
        out.append(f"The whole run took {known['minutes']:.1f} minutes{several} on {where}.")
    if known.get("numbers") and known.get("kernel_why"):
        out.append(
            f"Training computed in {known['numbers']}; attention by the kernel {known['kernel']} ({known['kernel_why']})."
        )
    if known.get("numbers_mind"):
        out.append(known["numbers_mind"])
    for step, budget in run.splits:
        out.append(
            f"At step {step:,} memory ran out; from there on {budget:,} tokens were computed at once. Each step "
            "still learned from all of its texts."
        )
    settings = (run.metrics.get("baseline") or {}).get("settings") or {}
    chosen = settings.get("chosen")
    if chosen:
        facts = ", ".join(
            f"{key.replace('_', ' ')} {value:g}" if isinstance(value, (int, float)) else str(value)
            for key, value in chosen.items()
        )
        tuned_on = METRIC[settings["tuned_on"]][0]
        out.append(f"The baseline was tuned on validation by its {tuned_on}; chosen was {facts}.")
    return out


def errors(points: Sequence[tuple[float, float]]) -> str:
    """How large the errors of (true, predicted) values are, as two quantiles."""
    sizes = sorted(abs(said - true) for true, said in points)
    half, most = sizes[(len(sizes) - 1) // 2], sizes[math.ceil(0.9 * len(sizes)) - 1]
    return f"Half of the errors are at most {number(half, 2)}, nine in ten at most {number(most, 2)}."


def chosen_by(run: Run) -> str:
    """The metric that picked the best epoch, as the run wrote it down or would have."""
    own = default_metric(run.kind, run.metrics.get("labels") or ())
    return run.spec.train.metric or run.status.get("metric") or own


def best_epoch(run: Run) -> int | None:
    """The epoch whose weights were kept: the last that was the best so far."""
    return max(
        (one["epoch"] for one in run.evaluations if one.get("best")), default=run.status.get("best_epoch")
    )


def training(run: Run) -> list[str]:
    """How training went: which epoch was kept, how fast, and what that may mean."""
    best, wanted, out = best_epoch(run), run.spec.train.epochs, []
    ended = max((one["epoch"] for one in run.evaluations), default=wanted)
    chosen = chosen_by(run)
    if run.folds:
        out.append(f"This is the first of {run.folds} folds, whose model is the one saved.")
    if best:
        what = "lowest loss" if chosen == "loss" else f"best {METRIC[chosen][0]}"
        tested = "tested and saved" if lines(run) else "saved"
        out.append(f"Epoch {best} had the {what} on validation; its weights were {tested}.")
        if best == wanted > 1:
            out.append("It is the last epoch, so more epochs may help.")
    if ended < wanted:
        out.append(f"Training ended after {count(ended, 'epoch')} of {wanted}.")
    if 0 < rows(run, "validation") < 100:
        texts = count(rows(run, "validation"), "text")
        out.append(f"Validation has only {texts}, so the choice of epoch is a noisy one.")
    skipped = [s for s in run.steps if s.get("skipped")]
    if skipped:
        out.append(
            f"{count(len(skipped), 'step')} of {len(run.steps):,} changed no weight, because gradients overflowed "
            f"float16; the loss scale ended at {run.steps[-1]['loss_scale']:,g}."
        )
    speeds = sorted(s["texts_per_second"] for s in run.steps if s.get("texts_per_second"))
    if speeds:
        middle = speeds[len(speeds) // 2]
        out.append(f"The median speed was {number(middle, 0 if middle >= 10 else 1)} texts a second.")
    return out + card(run)


def card(run: Run) -> list[str]:
    """What training took of a card: memory, and the share of its peak."""
    out = []
    memory = max((s.get("peak_memory") or 0 for s in run.steps), default=0)
    if memory:
        out.append(f"The card’s tensors took at most {number(memory / 1e9, 2)} GB.")
    shares = sorted(s["model_flops_share"] for s in run.steps if s.get("model_flops_share"))
    if shares:
        out.append(
            f"The encoder’s matrix products came to {percent(shares[len(shares) // 2])} of the card’s published "
            f"peak in {run.environment.get('dtype')} (median of the steps; padding and what is computed again are "
            "not counted)."
        )
    return out


def place(folder: Path) -> str:
    """The run folder's path from where the run was started, or its name where it lies elsewhere."""
    whole = folder.absolute()
    return whole.relative_to(Path.cwd()).as_posix() if whole.is_relative_to(Path.cwd()) else whole.name


def literal(path: str) -> str:
    """A path as a Python string."""
    return json.dumps(path, ensure_ascii=False)
