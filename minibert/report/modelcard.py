"""The model card: what a model is for, what it learned from, what it reaches, where it ends.

In:  a run folder or a study's folder.   Out: Markdown with the YAML header that model hubs read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..kinds import KINDS
from ..spec import brief
from . import words
from .study import named, title
from .words import count, number, percent, signed, span
from .written import KEPT, Told, drawn_again, plain, tested, told

# kind -> the hub's word for the task, and the class of transformers that reads the model
TASKS = {
    "classification": ("text-classification", "AutoModelForSequenceClassification"),
    "multilabel": ("text-classification", "AutoModelForSequenceClassification"),
    "regression": ("text-classification", "AutoModelForSequenceClassification"),
    "tokens": ("token-classification", "AutoModelForTokenClassification"),
}
METRICS = {
    "accuracy": "accuracy", "macro_f1": "f1", "micro_f1": "f1", "exact": "exact_match", "pearson": "pearsonr",
    "spearman": "spearmanr", "rmse": "rmse", "mae": "mae", "r2": "r_squared", "entity_f1": "f1",
    "entity_precision": "precision", "entity_recall": "recall",
}  # fmt: skip


def card(folder: Path | str) -> str:
    """model_card.md."""
    k = told(folder)
    sections = (
        ("Intended use", intended(k)), ("Training data", training(k)), ("Evaluation", evaluation(k)),
        ("Calibration", calibration(k)), ("Subgroups", subgroups(k)), ("Limits", limits(k)), ("How to load it", loading(k)),
    )  # fmt: skip
    body = "\n\n".join(f"## {head}\n\n{text}" for head, text in sections if text)
    return f"{header(k)}\n# {plain(k.name)}\n\n{plain(k.base)}, fine-tuned to predict “{plain(k.run.label)}” from “{plain(k.run.text)}”.\n\n{body}\n"


def header(k: Told) -> str:
    """The YAML between two lines of dashes. A JSON string is a YAML string, so nothing in a name can break out of it."""
    asset = k.weights
    licence = (
        asset.licence.lower().replace(" ", "-")
        if asset and re.fullmatch(r"[\w. +-]+", asset.licence)
        else "unknown"
    )
    task, _ = TASKS[k.kind]
    tags = [
        "minibert",
        task,
        *([k.kind] if k.kind != "tokens" else []),
        *([asset.family.lower()] if asset and asset.family else []),
    ]
    out = [
        "---",
        f"license: {quoted(licence)}",
        f"base_model: {quoted((asset.hub if asset else '') or k.base)}",
        f"pipeline_tag: {task}",
        "tags:",
    ]
    out += [f"- {quoted(tag)}" for tag in dict.fromkeys(tags)]
    scores = [one for one in k.lines if one.ours.get("value") is not None]
    if scores:
        out += ["metrics:", *(f"- {name}" for name in dict.fromkeys(METRICS[one.name] for one in scores))]
        out += ["model-index:", f"- name: {quoted(k.name)}", "  results:", "  - task:", f"      type: {task}", "    dataset:",
                f"      name: {quoted(data_name(k))}", f"      type: {quoted(data_name(k))}", "      split: test", "    metrics:"]  # fmt: skip
        for one in scores:
            out += [
                f"    - type: {METRICS[one.name]}",
                f"      name: {quoted(one.title)}",
                f"      value: {one.ours['value']:.6g}",
            ]
    return "\n".join([*out, "---", ""])


def quoted(text: str) -> str:
    """A string for YAML."""
    return json.dumps(text, ensure_ascii=False)


def data_name(k: Told) -> str:
    """The table that was tested on, or that the parts were split from."""
    return Path(k.spec.data.test or k.spec.data.source).name


def intended(k: Told) -> str:
    """For which texts, and for which not."""
    what = KINDS[k.kind].about.format("the") if not KINDS[k.kind].labels else "a label"
    return (
        f"It gives {what} for new texts of the kind it learned from: the same language, source and time. To estimate shares, means or "
        "regressions over a corpus, correct its answers with a sample coded by hand (`minibert estimate`). It is not meant to decide about "
        "single people."
    )


def training(k: Told) -> str:
    """What it learned from."""
    out = []
    for asset in dict.fromkeys(k.data):
        cited = f" {plain(asset.citation)}." if asset.citation else ""
        out.append(
            f"- {plain(asset.name)}: {plain(asset.about)}.{cited} Licence of the data: {plain(asset.licence) or 'not known'}."
        )
    n = {part: words.rows(k.run, part) for part in ("train", "validation", "test")}
    if all(n.values()):
        out.append(
            f"- {n['train']:,} texts to learn from, {n['validation']:,} to choose the epoch and the setting, {n['test']:,} to test."
        )
    t = k.spec.train
    out.append(f"- {count(t.epochs, 'epoch')}, learning rate {brief(t.learning_rate)}, batches of {t.batch_size}, seed {t.seed}; methods.md has the rest."
               if k.study else f"- {count(t.epochs, 'epoch')}, learning rate {brief(t.learning_rate)}, batches of {t.batch_size}, seed {t.seed}.")  # fmt: skip
    return "\n".join(out)


def evaluation(k: Told) -> str:
    """Scores with intervals, beside the traditional method's."""
    if not k.lines:
        return "It was not tested."
    heads = ["Score", "This model", *([plain(k.rival), "Difference"] if k.rival else [])]
    if k.study and k.study.repetitions > 1:
        heads[1] = f"Fine-tuning, mean of {k.study.repetitions} runs"
    rows = [heads, ["---"] * len(heads)]
    for one in k.lines:
        cells = [one.title, cell(one.ours)]
        cells += [cell(one.theirs), cell(one.gain, signed)] if k.rival else []
        rows.append(cells)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    tail = f"On {tested(k)}, with 95 % bootstrap intervals over {drawn_again(k)}."
    reach = ((k.study.t.get("human") or {}).get("one_against_rest") or {}).get(k.metric) if k.study else None
    if reach and reach.get("value") is not None:
        tail += f" One person reaches {named(k.metric)} {number(reach['value'])} against the others."
    return f"{table}\n\n{tail}"


def cell(score: dict[str, Any], form: Any = number) -> str:
    """A value with its interval."""
    if score.get("value") is None:
        return "undefined"
    return f"{form(score['value'])} ({span(score.get('low'), score.get('high'), form)})"


def honesty(k: Told) -> dict[str, Any]:
    """What the checks of a study found; {} of a single run."""
    return (k.study.t.get("honesty") or {}) if k.study else {}


def calibration(k: Told) -> str:
    """What its probabilities are worth."""
    found, line = honesty(k).get("calibration") or {}, honesty(k).get("calibration_line") or {}
    error, slope = found.get("ece") or {}, line.get("slope") or {}
    if error.get("value") is not None:
        lean = "too sure" if found["surplus"] > 0 else "not sure enough"
        return (f"Expected calibration error {number(error['value'])} ({span(error['low'], error['high'])}); by chance alone at most "
                f"{number(found['by_chance']['high'])}. On average its answers are {lean} by {number(abs(found['surplus']))}.")  # fmt: skip
    if slope.get("value") is not None:
        return f"Where predictions differ by 1, true values differ by {number(slope['value'], 2)} ({span(slope['low'], slope['high'])})."
    return ""


def subgroups(k: Told) -> str:
    """Scores by group."""
    out = []
    for column, found in (honesty(k).get("subgroups") or {}).items():
        out.append(f"| {plain(column)} | Texts | {title(found['metric'])} |\n| --- | --- | --- |")
        for one in found["groups"]:
            name = (
                plain(one["value"])
                if one["value"]
                else "(smaller groups)"
                if one["value"] is None
                else "(empty)"
            )
            out[-1] += f"\n| {name} | {one['n']:,} | {cell(one['score'])} |"
    return "\n\n".join(out)


def limits(k: Told) -> str:
    """What it can't do, as far as that is known."""
    m = k.spec.model
    out = [f"{KEPT[m.truncation].format(n=m.max_tokens).capitalize()}."]
    cut = (words.parts(k.run).get("test") or {}).get("truncated") or {}
    if cut.get("texts"):
        out[0] += (
            f" {percent(cut['share_of_texts'])} of the test texts were longer; {percent(cut['share_of_tokens'])} of all their tokens were not read."
        )
    said = k.study.t.get("verdicts") or [] if k.study else k.run.data.get("findings") or []
    grave = [plain(one["sentence"]) for one in said if one["severity"] != "info"]
    if k.study:
        out += grave
    elif grave:  # which may quote texts, and a card goes where the model goes
        out.append(f"The check of the data has {count(len(grave), 'warning')}: see the run's report.")
    if k.study:
        out += [plain(sentence) for sentence in k.study.t.get("would_change") or []]
    out.append("What it reaches on texts of another source, time or language was not tested."
               if not (k.study and k.study.t.get("transfer")) else "Scores on other tables stand in the study’s report.")  # fmt: skip
    return "\n".join(f"- {one}" for one in out)


def loading(k: Told) -> str:
    """In minibert and elsewhere."""
    task, name = TASKS[k.kind]
    here = '```python\nimport minibert\n\nmodel = minibert.load("model")\nmodel.predict(["a new text"])\n```'
    if k.spec.model.pooling != "cls" and not KINDS[k.kind].words:
        return f"{here}\n\nIts head reads the mean of the tokens, which other libraries don’t: they would answer otherwise."
    cut = f"truncation=True, max_length={k.spec.model.max_tokens}"
    more = (
        ', function_to_apply="none"'
        if k.kind == "regression"
        else ", top_k=None"
        if k.kind == "multilabel"
        else ""
    )
    there = f'```python\nfrom transformers import pipeline\n\nanswer = pipeline("{task}", model="model"{more})\nanswer("a new text", {cut})\n```'
    if KINDS[k.kind].words:
        there = there.replace(f", {cut}", "")
    return (
        f"{here}\n\nIt is in the Hugging Face layout, so other libraries read it too (`{name}`):\n\n{there}"
    )
