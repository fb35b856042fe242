"""The report of a run: one HTML file that opens anywhere, without a network or a script.

In:  a run folder.   Out: report.html in it.

read.py reads the folder, forms.py and words.py say it, tables.py and figures.py lay it out, page.html.j2 and
style.css make it a page; of several runs it is several.py, spread.py and several.html.j2; of a
study study.py, checks.py, plots.py and study.html.j2, and written.py and modelcard.py write its appendix. Every text
from the data is escaped, and the page forbids itself scripts and requests, so that nothing in a data set can act
when the report is opened.
"""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from ..kinds import KINDS, OF_ENTITIES
from ..metrics import HIGHER_IS_BETTER
from ..spec import default_metric
from ..system import write_text
from . import figures, several, study, tables, words
from .forms import form_of
from .modelcard import card
from .read import Run, answers, read_run
from .written import methods

SHARES = ("accuracy", "macro_f1", "micro_f1", "exact", *OF_ENTITIES)
LIMITS = dict.fromkeys(SHARES, (0, 1)) | dict.fromkeys(("pearson", "spearman", "r2"), (None, 1))


def write(folder: Path | str) -> Path:
    """Write report.html into a run folder from the files there; returns its path.

    DataError where `folder` is no run folder or a file in it is damaged; files that an unfinished
    run lacks are said on the page.
    """
    folder = Path(folder)
    return render(folder, "page.html.j2", context(read_run(folder)))


def write_several(folder: Path | str) -> Path:
    """The same for a folder of several runs, from its summary.json."""
    folder = Path(folder)
    return render(folder, "several.html.j2", several.context(folder, LIMITS))


def write_study(folder: Path | str) -> Path:
    """The same for a study, from its study.json; once it is scored, methods.md and model_card.md beside it."""
    folder = Path(folder)
    seen = study.context(folder, LIMITS)
    if seen["s"].scored:
        write_text(folder / "methods.md", methods(folder))
        told = card(folder)
        write_text(folder / "model_card.md", told)
        if seen["s"].best and (seen["s"].best.folder / "model").is_dir():
            write_text(seen["s"].best.folder / "model" / "README.md", told)
    return render(folder, "study.html.j2", seen)


def write_appendix(folder: Path | str) -> None:
    """What a paper or a hub asks of a run that was scored: methods.md, and the model's card beside it, as README.md."""
    folder = Path(folder)
    write_text(folder / "methods.md", methods(folder))
    write_text(folder / "model" / "README.md", card(folder))


def render(folder: Path, template: str, seen: dict) -> Path:
    """Fill a template and write it as report.html."""
    write_text(folder / "report.html", pages().get_template(template).render(seen))
    return folder / "report.html"


@functools.cache
def pages() -> jinja2.Environment:
    """The templates: each is compiled once, however many runs are reported."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def cautions(folder: Path | str) -> tuple[str, ...]:
    """What a reader of the scores should know first, in plain sentences; the page says it too."""
    run = read_run(Path(folder))
    warned = sum(one["severity"] != "info" for one in run.data.get("findings") or [])
    told = f"The data check has {words.count(warned, 'warning')}: see the report." if warned else ""
    signs = (f"{one['sentence']} {one['advice']}" for one in words.grave(run))
    return (*words.cautions(run), *signs, *([told] if told else []))


def context(run: Run) -> dict:
    """What the template sees."""
    found, chosen = answers(run), words.chosen_by(run)
    own = default_metric(run.kind, run.metrics.get("labels") or ())
    drawn = own if chosen == "loss" else chosen  # the loss has a picture of its own
    return {
        "run": run,
        "kind": KINDS[run.kind],
        "form": form_of(run),
        "name": run.spec.task.name,
        "place": words.place(run.folder),
        "lines": words.lines(run),
        "metric": drawn,
        "baseline": run.metrics.get("baseline") or {},
        "found": found,
        "mistakes": [tables.shown(run, one) for one in found.mistakes],
        "words": words,
        "tables": tables,
        "figures": figures,
        "curves": curves(run, drawn),
        "best": words.best_epoch(run),
        "higher": HIGHER_IS_BETTER,
    }


def curves(run: Run, metric: str) -> dict:
    """The two pictures of training, where there is something to draw."""
    best, limits = words.best_epoch(run), LIMITS.get(metric, (0, None))
    steps = [(one["step"], one["loss"]) for one in run.steps if one.get("loss") is not None]
    losses = [(one["step"], one["loss"]) for one in run.evaluations if one.get("loss") is not None]
    every = -(-len(run.evaluations) // 10) or 1
    ends = [(one["step"], f"{one['epoch']:g}") for one in run.evaluations][every - 1 :: every]
    kept = next((one["step"] for one in run.evaluations if one["epoch"] == best), None)
    scores = [(one["epoch"], one[metric]) for one in run.evaluations if one.get(metric) is not None]
    return {
        "loss": figures.loss_curve(steps, losses, ends, kept) if steps or losses else "",
        "metric": figures.metric_curve(words.METRIC[metric][0], scores, best, limits) if scores else "",
    }
