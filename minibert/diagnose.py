"""What went wrong, if something did: the signs that practitioners are taught to look for, looked for in a run.

In:  a Run, read from its folder: history, scores, facts of the data, settings.
Out: Diagnosis: for each sign that is there a Finding, which were looked for, and which could not be, and why.

SIGNS is the table of them. Every threshold stands in the block below, with its reason and where it is from; each is
set so that a sound run, short or with few texts, stays silent: what chance moves is no sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from statistics import NormalDist, fmean, median, stdev
from typing import Any, NamedTuple

from .kinds import ENTITY, KINDS, has_entities
from .metrics import better
from .report.read import Run
from .report.words import METRIC, chosen_by, count, number, percent
from .spec import default_metric

# --- thresholds -----------------------------------------------------------------------------------

# Standard errors of a difference that are noise: 95 in 100 lie within, as in any interval here.
NOISE = 2.0
# Of the loss of answering without reading: a smaller gain is none. Sound runs that were tried ended at 0.1 to 0.9
# of it, those that learned nothing at 1.00 and more.
LEARNED = 0.01
# Fewer losses have no mean and no noise worth the name.
FEWEST_STEPS = 8
# Outside of these the rate is the first suspect. BERT: 2e-5 to 5e-5 (Devlin et al. 2019, A.3), small encoders take
# 1e-4. LoRA: around 5e-4 for RoBERTa (Hu et al. 2021).
USUAL_RATES = {"whole": (1e-5, 2e-4), "lora": (1e-4, 2e-3)}
# Of the lowest validation loss, in the last two epochs: the generalisation loss of Prechelt 1998, "Early stopping -
# but when?". He stops from 1 to 5 % on; nothing is stopped here, so that it may be more.
RISE = 0.1
# Of sound runs have a test score so far below that of the epoch that was picked ...
BY_CHANCE = 0.005
# ... and a smaller gap matters to nobody: other seeds move a score as far (tasks/README.md).
LEAST_GAP = 0.02
# One answer for so many texts, while fewer than so many have it.
ALL_ALIKE, NOT_MOST = 0.97, 0.9
# True texts of a class that is never predicted: if half of them were found, 1 chance in 32.
FEWEST_MISSED = 5
# Of the largest part's gradient, in most steps. In ten sound runs on MiniLM no layer fell below 0.008 of it in any
# step; where training collapsed the lowest had 3e-10. Mosbach et al. 2021, "On the stability of fine-tuning BERT": gradients
# that vanish are how it fails.
DEAD = 1e-4
# Times the usual gradient, or the clip where that is more, in so many of the steps. The same sound runs reach 12
# times, and 10 times in 4 of 100 steps: one hard batch of 16 texts does it.
EXPLODED, OFTEN = 50.0, 0.05
# Times [train] clip, in most steps: of such a gradient hardly the direction is left.
FAR_CLIPPED = 100.0


# --- what is found --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """A sign that is there: what was seen, with its numbers, what to try, and what else was looked at for it."""

    sign: str
    sentence: str
    advice: str
    details: tuple[str, ...] = ()


class Sign(NamedTuple):
    """What it is called, whether a reader must know it before the scores, and how it is looked for.

    look   gives findings; or why this run can't say, in words; or None where such a run has no such thing
    """

    title: str
    grave: bool
    look: Callable[[Run], list[Finding] | str | None]


@dataclass(frozen=True)
class Diagnosis:
    """Findings in the order of SIGNS; titles of what was looked for; title -> why it could not be."""

    findings: tuple[Finding, ...]
    looked_for: tuple[str, ...]
    not_looked_for: Mapping[str, str]

    def has(self, sign: str) -> bool:
        """Whether this sign is there."""
        return any(one.sign == sign for one in self.findings)

    def explained(self, sign: str, details: Sequence[str]) -> Diagnosis:
        """The same, with what a closer look at this sign came to."""
        told = (replace(f, details=tuple(details)) if f.sign == sign else f for f in self.findings)
        return replace(self, findings=tuple(told))

    def as_dict(self) -> dict[str, Any]:
        """For diagnosis.json."""
        facts = [
            {"title": SIGNS[f.sign].title, "grave": SIGNS[f.sign].grave, **asdict(f)} for f in self.findings
        ]
        return {
            "findings": facts,
            "looked_for": list(self.looked_for),
            "not_looked_for": dict(self.not_looked_for),
        }


def look(run: Run) -> Diagnosis:
    """Look for every sign."""
    found = {name: sign.look(run) for name, sign in SIGNS.items()}
    lists = {name: some for name, some in found.items() if isinstance(some, list)}
    told: list[Finding] = []
    for one in (one for some in lists.values() for one in some):
        again = any(one.advice == other.advice for other in told)
        told.append(replace(one, advice="As above.") if again else one)
    return Diagnosis(
        tuple(told),
        tuple(SIGNS[name].title for name in lists),
        {SIGNS[name].title: why for name, why in found.items() if isinstance(why, str)},
    )


# --- the loss -------------------------------------------------------------------------------------


def not_finite(run: Run) -> list[Finding]:
    """A loss or gradient that ended the run; the error names step, texts, and the part that shows it first."""
    message, _, advice = (run.status.get("message") or "").partition("\n")
    if run.status.get("status") != "diverged" or "not finite" not in message:
        return []
    return [Finding("not_finite", f"{message[0].upper()}{message[1:]}.", advice)]


def does_not_fall(run: Run) -> list[Finding] | str:
    """A training loss that ends no lower than what needs no reading of texts, nor does that of validation."""
    losses, train = known(run.steps, "loss"), run.spec.train
    if len(losses) < FEWEST_STEPS or not run.evaluations:
        return f"{count(len(losses), 'step')}, {count(len(run.evaluations), 'epoch')}: too few"
    per_epoch = sum(one.get("epoch") == 1 for one in run.steps)
    steps = train.epochs * per_epoch
    if run.status.get("status") in ("stopped", "diverged") and len(losses) < steps / 2:
        return f"the run ended after {len(losses):,} of {count(steps, 'step')}"
    k = max(2, min(per_epoch, len(losses) // 2))  # an epoch holds each text once
    first, last = fmean(losses[:k]), fmean(losses[-k:])
    chance, unread = trivial_loss(run, weighted=True), trivial_loss(run)
    validation = run.evaluations[-1].get("loss")
    if last < (1 - LEARNED) * (chance or first):
        return []
    if validation is not None and validation < (1 - LEARNED) * (unread or first):
        return []
    noise = NOISE * math.sqrt((stdev(losses[:k]) ** 2 + stdev(losses[-k:]) ** 2) / k)
    went = "did not fall" if abs(first - last) <= noise else "rose" if last > first else "fell too little"
    bar = f"; answering without reading, by {shares(run)}, gives {number(chance)}" if chance else ""
    return [
        Finding(
            "does_not_fall",
            f"The training loss {went}: {number(first)} in the first {k} steps, {number(last)} in the last {k} "
            f"(chance moves it by {number(noise)}){bar}. The learning rate was {short(train.learning_rate)}, after "
            f"{min(math.ceil(train.warmup * steps), steps - 1)} of {count(steps, 'step')} of warm-up.",
            rate_advice(run),
        )
    ]


def overfits(run: Run) -> list[Finding] | str:
    """A validation loss that rises, for at least two epochs, while the training loss goes on falling."""
    epochs = [one for one in run.evaluations if one.get("loss") is not None]
    if len(epochs) < 3:
        return f"{count(len(epochs), 'epoch')} with a validation loss: too few"
    lowest = min(epochs, key=lambda one: one["loss"])
    before, after = (training_loss(run, one) for one in (lowest, epochs[-1]))
    least = max(RISE * lowest["loss"], LEARNED * (trivial_loss(run) or 0.0))
    risen = min(one["loss"] for one in epochs[-2:]) - lowest["loss"]
    if risen < least or before is None or after is None or after >= before:
        return []
    if after >= (trivial_loss(run, weighted=True) or math.inf):
        return []  # nothing is learned, by heart or otherwise
    kept = max((one["epoch"] for one in epochs if one.get("best")), default=None)
    chosen, labels = chosen_by(run), run.metrics.get("labels") or ()
    name = default_metric(run.kind, labels) if chosen == "loss" else chosen
    title, scores = METRIC[name][0], [one.get(name) for one in (lowest, epochs[-1])]
    gained = better(name, scores[1], scores[0])
    return [
        Finding(
            "overfits",
            f"Validation loss was lowest in epoch {lowest['epoch']}, {number(lowest['loss'])}, and rose to "
            f"{number(epochs[-1]['loss'])} in epoch {epochs[-1]['epoch']}, while the training loss fell on from "
            f"{number(before)} to {number(after)}: texts are learned by heart. {title} on validation went from "
            f"{number(scores[0])} to {number(scores[1])}."
            + (f" Kept is epoch {kept}, by {'loss' if chosen == 'loss' else title}." if kept else ""),
            (
                "Answers still got better, but the network is too sure of them: [train] metric says which of the two "
                "chooses the epoch."
                if gained
                else f"[train] epochs = {lowest['epoch']}, or patience = 2, saves the rest."
            )
            + " More texts help most; then more [model] dropout, or less that learns: freeze_layers, lora_rank.",
        )
    ]


def trivial_loss(run: Run, weighted: bool = False) -> float | None:
    """The loss of answering without reading: by the labels’ shares, or the mean. None where those are not known.

    `weighted`: as class weights make the training loss; validation is never weighted.
    """
    if not KINDS[run.kind].labels:
        return 1.0  # targets are standardised: the squared error of the mean is their variance
    part = (run.data.get("parts") or {}).get("train") or {}
    counts, rows = part.get("labels") or {}, part.get("rows") or 0
    if not counts or not rows:
        return None
    if KINDS[run.kind].none:  # each label by itself: yes or no
        return fmean(entropy((n, rows - n)) for n in counts.values())
    wanted = run.spec.train.class_weights if weighted else "none"
    if isinstance(wanted, dict):
        return entropy([n * wanted.get(label, 1.0) for label, n in counts.items()])
    return math.log(len(counts)) if wanted == "balanced" else entropy(list(counts.values()))


def entropy(counts: Sequence[float]) -> float:
    """Of the shares of some counts, in nats: the cross-entropy of answering with them."""
    whole = sum(counts)
    return -sum(n / whole * math.log(n / whole) for n in counts if n)


def shares(run: Run) -> str:
    """What answering without reading goes by."""
    return "the labels’ shares" if KINDS[run.kind].labels else "the mean"


def training_loss(run: Run, epoch: dict[str, Any]) -> float | None:
    """The mean training loss of an epoch."""
    if epoch.get("training_loss") is not None:
        return epoch["training_loss"]
    losses = known([one for one in run.steps if one.get("epoch") == epoch["epoch"]], "loss")
    return fmean(losses) if losses else None


def short(value: float) -> str:
    """2e-5, 0.01, 5.91: three digits."""
    digits, _, exponent = f"{value:.2e}".partition("e")
    return f"{value:.3g}" if value >= 1e-3 or not value else f"{float(digits):g}e{int(exponent)}"


def rate_advice(run: Run) -> str:
    """What to try where little is learned: by where the learning rate lies among the usual ones."""
    train = run.spec.train
    low, high = USUAL_RATES["lora" if train.lora_rank else "whole"]
    usual = f"{short(low)} to {short(high)} is usual"
    if train.learning_rate < low:
        return f"Raise [train] learning_rate: {usual}."
    if train.learning_rate > high:
        return f"Lower [train] learning_rate: {usual}. A longer warmup helps, too."
    return (
        f"Try another [train] seed, another learning_rate ({usual}), a longer warmup, more epochs. If none helps: "
        "do the labels belong to their texts?"
    )


# --- the scores -----------------------------------------------------------------------------------


def test_below(run: Run) -> list[Finding] | str:
    """A test score below that of validation by more than chance and the choice of the best epoch explain."""
    tested, validated = run.metrics.get("test") or {}, run.metrics.get("validation") or {}
    names = ("accuracy", *KINDS[run.kind].chosen) if not KINDS[run.kind].many else KINDS[run.kind].chosen
    # not macro F1: of few texts it is another thing than of many
    name = next((n for n in names if n in tested), None)
    ours, rows = tested.get(name) or {}, ((run.data.get("parts") or {}).get("validation") or {}).get("rows")
    if not tested:
        return "no test scores"
    if not rows or validated.get(name) is None or ours.get("low") is None:
        return "no score with an interval on both"
    gap = validated[name] - ours["value"]
    allowed = gap_allowed(ours, rows, len(run.evaluations))
    if gap <= max(allowed, LEAST_GAP):
        return []
    return [
        Finding(
            "test_below",
            f"{METRIC[name][0]} is {number(ours['value'])} on test and {number(validated[name])} on validation: "
            f"{number(gap)} lower; chance explains {number(allowed)} of it.",
            "Expect the test score of new texts, or worse. Look where the two parts come from: other sources, times or "
            "coders; texts of one author or group in train and in validation ([data] group keeps them together).",
        )
    ]


def gap_allowed(test: dict[str, Any], validation: int, epochs: int) -> float:
    """How far test may lie below validation, given the test score's interval and `validation` texts.

    The error of a mean falls with the root of the texts, so validation's follows from test's. The best of so many
    validations is kept, so they share the chance (Bonferroni).
    """
    error = (test["high"] - test["low"]) / (2 * 1.96)
    both = error * math.sqrt(1 + test["n"] / validation)
    return NormalDist().inv_cdf(1 - BY_CHANCE / max(epochs, 1)) * both


def one_answer(run: Run) -> list[Finding] | str | None:
    """One label for nearly all texts or words, though many have another; or none at all."""
    if not KINDS[run.kind].labels:
        return None
    classes, labels = run.metrics.get("classes"), run.metrics.get("labels") or []
    if not classes:
        return "no test scores"
    unit = "word" if KINDS[run.kind].words else "text"
    if matrix := run.metrics.get("confusion"):
        true, said = [sum(row) for row in matrix], [sum(column) for column in zip(*matrix)]
        top = max(range(len(said)), key=said.__getitem__)
        if not sum(said) or said[top] < ALL_ALIKE * sum(said) or max(true) >= NOT_MOST * sum(said):
            return []
        sentence = (
            f"The network answers “{labels[top]}” for {percent(said[top] / sum(said))} of the test {unit}s, "
            f"which {percent(true[top] / sum(said))} of them have: it has learned little."
        )
    else:
        if any(one.get("said", 1) for one in classes) or sum(one["n"] for one in classes) < FEWEST_MISSED:
            return []
        what = "marks no entity in" if has_entities(labels) else "gives no label to"
        sentence = f"The network {what} any test text, where there are {sum(one['n'] for one in classes):,}."
    return [Finding("one_answer", sentence, rate_advice(run))]


def never_predicted(run: Run) -> list[Finding] | str | None:
    """Classes that stand in train and in test, and that no test text, word or entity is said to be."""
    if not KINDS[run.kind].labels:
        return None
    classes = run.metrics.get("classes")
    if not classes:
        return "no test scores"
    if "said" not in classes[0]:
        return "no counts of what was predicted"
    if one_answer(run):
        return []  # said already
    taught = taught_counts(run)
    gone = [
        one for one in classes if not one["said"] and one["n"] >= FEWEST_MISSED and taught.get(one["label"])
    ]
    if not gone:
        return []
    one, many = ("text", "texts") if not KINDS[run.kind].words else ("word", "words")
    one, many = ("entity", "entities") if has_entities(run.metrics["labels"]) else (one, many)
    gone.sort(key=lambda row: -row["n"])
    shown = ", ".join(
        f"“{row['label']}” ({count(row['n'], f'test {one}', f'test {many}')}, {taught[row['label']]:,} in training)"
        for row in gone[:5]
    ) + (f" and {len(gone) - 5} more" if gone[5:] else "")
    return [
        Finding(
            "never_predicted",
            f"{count(len(gone), 'class', 'classes')} of {len(classes)} {'is' if len(gone) == 1 else 'are'} never "
            f"predicted: {shown}.",
            "More training texts that have it help most; then more epochs. " + RARE[run.kind],
        )
    ]


RARE = {  # what else gives a rare class a chance
    kind: '[train] class_weights = "balanced" lets rare classes weigh more.'
    if one.weighted
    else "A label is given from a probability of one half: predictions.csv has the probabilities, for a lower bar."
    for kind, one in KINDS.items()
}


def taught_counts(run: Run) -> dict[str, int]:
    """How often each class stands in train; of entities, by type, how often one begins."""
    counts = ((run.data.get("parts") or {}).get("train") or {}).get("labels") or {}
    if not has_entities(counts):
        return counts
    return {tag[2:]: n for tag, n in counts.items() if tag.startswith(ENTITY[0])}


def blind_validation(run: Run) -> list[Finding] | str:
    """Epochs whose score is undefined, or a validation part in which there is nothing to tell apart."""
    if not run.evaluations:
        return "no epoch was validated"
    name = chosen_by(run)
    gone = [one["epoch"] for one in run.evaluations if name in one and one[name] is None]
    part = (run.data.get("parts") or {}).get("validation") or {}
    labels = part.get("labels") or {}
    advice = "Give validation more texts: [data] validation, a larger share or a table of its own."
    if len(labels) == 1 and KINDS[run.kind].stratified:
        only = f"All {count(part['rows'], 'validation text')} have the label “{next(iter(labels))}”"
        return [Finding("blind_validation", f"{only}: no score on them says which epoch is best.", advice)]
    if not gone:
        return []
    title = "The loss" if name == "loss" else METRIC[name][0]
    shown = ", ".join(map(str, gone[:5])) + (" and more" if gone[5:] else "")
    return [
        Finding(
            "blind_validation",
            f"{title} on validation is undefined in {count(len(gone), 'epoch')} of {len(run.evaluations)} ({shown}), "
            "as for answers that are all the same; such an epoch is never the best.",
            f'{advice} [train] metric = "loss" is always defined.',
        )
    ]


# --- the gradients --------------------------------------------------------------------------------


def dead_layers(run: Run) -> list[Finding] | str:
    """Parts that learn, and whose gradient is next to nothing beside the largest, in most steps."""
    norms = [one["layer_norms"] for one in run.steps if one.get("layer_norms")]
    if not norms:
        return "the history holds no gradients by layer"
    steps: dict[str, list[bool]] = {}
    for step in norms:
        some = {part: norm for part, norm in step.items() if norm is not None}
        for part, norm in some.items():
            steps.setdefault(part, []).append(norm <= DEAD * max(some.values()))
    dead = [part for part, found in steps.items() if sum(found) > len(found) / 2]
    if not dead:
        return []
    usual = {part: median(one[part] for one in norms if one.get(part) is not None) for part in steps}
    top = max(usual, key=usual.__getitem__)
    return [
        Finding(
            "dead_layers",
            f"Next to no gradient reaches {ranges(dead, list(steps))}: its norm is at most "
            f"{short(max(usual[part] for part in dead))} there, and {short(usual[top])} in {top} (medians of "
            f"{count(len(norms), 'step')}). "
            f"{'It does' if len(dead) == 1 else 'They do'} not learn.",
            rate_advice(run),
        )
    ]


def ranges(some: Sequence[str], parts: Sequence[str]) -> str:
    """Parts by name, neighbours as "layers.0 to layers.4". `parts`: all of them, by depth."""
    out = []
    for _, group in groupby(
        enumerate(p for p in parts if p in some), lambda one: parts.index(one[1]) - one[0]
    ):
        names = [name for _, name in group]
        out.append(f"{names[0]} to {names[-1]}" if names[2:] else " and ".join(names))
    return ", ".join(out)


def exploding(run: Run) -> list[Finding] | str:
    """Gradients that are far longer than usual in many steps, or than [train] clip in most."""
    steps, clip = [one for one in run.steps if one.get("grad_norm") is not None], run.spec.train.clip
    norms = known(steps, "grad_norm")
    if len(norms) < FEWEST_STEPS:
        return f"{count(len(norms), 'step')}: too few"
    begin = max(FEWEST_STEPS // 2, len(norms) // 10)
    usual = median(norms[:begin])  # of the first: where little is left to learn, ten times a tiny one is fine
    limits = {FAR_CLIPPED * clip or math.inf: len(norms) / 2, EXPLODED * max(usual, clip): OFTEN * len(norms)}
    for limit, least in limits.items():
        wild = [one for one in steps if one["grad_norm"] > limit]
        if len(wild) >= max(3, least):
            break
    else:
        return []
    worst = max(wild, key=lambda one: one["grad_norm"])
    beside = f"[train] clip is {clip:g}" if clip else "they are not clipped ([train] clip = 0)"
    return [
        Finding(
            "exploding",
            f"Gradients explode: in {count(len(wild), 'step')} of {len(norms):,} they are longer than "
            f"{number(limit, 1)}, in step {worst['step']:,} {number(worst['grad_norm'], 1)}{most_of(worst)}. In the "
            f"first {begin} steps {number(usual, 1)} was usual, and {beside}.",
            rate_advice(run) + ("" if clip else " Clip gradients: clip = 1.0."),
        )
    ]


def most_of(step: dict[str, Any]) -> str:
    """In which part the gradient of a step is longest, where that is known."""
    norms = {part: norm for part, norm in (step.get("layer_norms") or {}).items() if norm is not None}
    return f", most of it in {max(norms, key=norms.__getitem__)}" if norms else ""


def known(events: Sequence[dict[str, Any]], key: str) -> list[float]:
    """The numbers that events have under a key; what was not finite is null there."""
    return [one[key] for one in events if one.get(key) is not None]


SIGNS = {
    "not_finite": Sign("a loss or gradient that is not finite", True, not_finite),
    "does_not_fall": Sign("a training loss that does not fall", True, does_not_fall),
    "one_answer": Sign("one answer for nearly all texts", True, one_answer),
    "test_below": Sign("a test score far below that of validation", True, test_below),
    "exploding": Sign("gradients that explode", False, exploding),
    "dead_layers": Sign("layers without gradient", False, dead_layers),
    "overfits": Sign("a validation loss that rises while the training loss falls", False, overfits),
    "never_predicted": Sign("a class that is never predicted", False, never_predicted),
    "blind_validation": Sign("a validation score that is undefined", False, blind_validation),
}
