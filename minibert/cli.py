"""The command line: parse, call, print. No logic, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .errors import ConfigError, MiniBertError
from .system import Stop, processes

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A BERT/RoBERTa encoder written by hand: fine-tune published weights on a table, and see how well it does.",
)
weights_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, fetch and verify published weights.",
    epilog="Example:  minibert weights list",
)
app.add_typer(weights_app, name="weights")
bench_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="How fast, how hungry and how wrong attention kernels are, and the whole encoder, beside others.",
    epilog="Example:  minibert bench attention --quick",
)
app.add_typer(bench_app, name="bench")

Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a key: train.epochs=3, study.seeds=5. May be repeated."),
]
NoTexts = Annotated[
    bool, typer.Option("--no-texts", help="Keep texts out of the report and predictions.csv; row ids stay.")
]
KernelFile = Annotated[
    Path | None, typer.Option(help="A Python file that registers an attention kernel of your own.")
]
Separator = Annotated[str, typer.Option(help="Between columns; by the file's name if absent.")]
Sheet = Annotated[str, typer.Option(help="Of an .xlsx file; the first if absent.")]
Encoding = Annotated[str, typer.Option(help="Of the file: utf-8, utf-16, cp1252, latin-1.")]


def verb(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn our errors into one message and their exit code; with --debug let them through."""

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        debug = options.get("debug", False)
        try:
            with Stop() as stop, stop.at_once():
                if processes()[1] > 1 and command.__name__ != "run":
                    raise ConfigError(
                        f"minibert {command.__name__} is the work of one process",
                        "Start it without torchrun.",
                    )
                code = command(*args, **options)
        except MiniBertError as problem:
            with speaking(problem) as mine:
                if debug and mine:
                    traceback.print_exc()
                if mine:
                    print(f"minibert: {problem}", file=sys.stderr)
            code = problem.exit_code
        except KeyboardInterrupt:
            if processes()[0] == 0:
                print("minibert: interrupted", file=sys.stderr)
            code = 75 if command.__name__ == "run" else 130  # a run that had not begun can be begun again
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        raise typer.Exit(code or 0)

    return wrapped


def speaking(problem: MiniBertError) -> contextlib.AbstractContextManager[bool]:
    """Whether this process is to say it: of several one does."""
    if processes()[1] == 1:
        return contextlib.nullcontext(True)
    from . import several

    return several.speaking(problem)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(f"minibert {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that every verb has."""


@app.command(
    epilog="Examples:  minibert run reuters8   |   minibert run worry.toml --out runs/w1 --set train.epochs=5"
    "   |   minibert run runs/w1 --resume   |   minibert run reuters8 --seeds 5"
    "   |   minibert run reuters8 --sweep learning_rate=5e-5,1e-4 --seeds 3"
)
@verb
def run(
    spec: Annotated[
        str,
        typer.Argument(
            help="A spec file (.toml), or the name of a shipped task; with --resume also a run's folder."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME if absent.")] = None,
    set: Changes = None,
    seeds: Annotated[
        int | None, typer.Option(help="Run with seeds 0, 1, ... so many; mean and spread of every score.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            help="Try values of a key: learning_rate=1e-5,2e-5. Repeated, a grid. Validation chooses.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in this folder.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with an interrupted run from its newest checkpoint, as if nothing had been.",
        ),
    ] = False,
    no_texts: NoTexts = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Only measure how many tokens at once go fastest, and propose it.")
    ] = False,
    explain_speed: Annotated[
        bool, typer.Option("--explain-speed", help="Only measure where a step's time goes.")
    ] = False,
    kernel_file: KernelFile = None,
    debug: Debug = False,
) -> int:
    """Fine-tune, test, compare with a baseline, and write the report.

    Of several runs, the exit code is 1 if any of them failed; the others stand."""
    from . import catalogue
    from . import spec as specs

    changes = overrides(set, no_texts)
    if kernel_file:
        from . import kernels

        changes.setdefault("model.kernel", kernels.register_file(kernel_file)[0])
    if tune or explain_speed:
        refuse_together(
            "--tune and --explain-speed only measure",
            {"--seeds": seeds is not None, "--sweep": sweep, "--out": out, "--resume": resume,
             "--overwrite": overwrite},
        )  # fmt: skip
    if seeds is not None or sweep or (resume and (Path(spec) / "summary.json").is_file()):
        return run_several(spec, changes, seeds, sweep or [], out, overwrite, resume)
    again = Path(spec) if resume and (Path(spec) / "spec.toml").is_file() else None
    task = specs.load(again / "spec.toml" if again else catalogue.locate_task(spec), changes)
    from .progress import say
    from .run import headline
    from .run import run as run_task

    if tune or explain_speed:
        from .speed import measured

        say(measured(task, tune, explain_speed), sys.stdout)
        return 0

    folder = out or again or Path("runs") / task.task.name
    outcome = run_task(task, folder, overwrite=overwrite, resume=resume)
    if outcome.status == "completed":
        say(headline(outcome), sys.stdout)
    return outcome.exit_code


def refuse_together(what: str, others: dict[str, Any]) -> None:
    """ConfigError for options that have no meaning beside one that is given."""
    from .errors import ConfigError

    given = [name for name, value in others.items() if value]
    if given:
        raise ConfigError(f"{what}: leave {', '.join(given)} out")


def run_several(
    spec: str,
    changes: dict[str, str],
    seeds: int | None,
    sweep: list[str],
    out: Path | None,
    overwrite: bool,
    resume: bool,
) -> int:
    """`run` with --seeds or --sweep."""
    from . import sweep as several
    from .progress import say

    plan, folder = several.planned(spec, changes, seeds, sweep, resume)
    outcome = several.sweep(plan, out or folder, overwrite=overwrite, resume=resume)
    if outcome.status == "completed":
        say(several.headline(outcome), sys.stdout)
    return outcome.exit_code


def overrides(pairs: list[str] | None, no_texts: bool = False) -> dict[str, str]:
    """--set key=value, as a dict; and what --no-texts stands for."""
    wrong = [p for p in pairs or [] if "=" not in p]
    if wrong:
        raise ConfigError(f"--set {wrong[0]}: write it as table.key=value, for example train.epochs=3")
    return dict(p.split("=", 1) for p in pairs or []) | ({"data.keep_texts": "false"} if no_texts else {})


@app.command(
    epilog="Examples:  minibert study worry_study   |   minibert study task.toml --set study.seeds=5"
    "   |   minibert study runs/worry_study-study --resume"
)
@verb
def study(
    spec: Annotated[
        str,
        typer.Argument(
            help="A spec (.toml), or a shipped task's or study's name; with --resume also a study's folder."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the study; runs/NAME-study if absent.")] = None,
    set: Changes = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier study in this folder.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with an interrupted study, or with more seeds, splits or numbers of texts.",
        ),
    ] = False,
    no_texts: NoTexts = False,
    debug: Debug = False,
) -> int:
    """Learning curve, settings and traditional methods side by side: one report that can be published.

    Everything is chosen on validation texts; the test part's labels are read once, at the end."""
    from . import catalogue
    from . import spec as specs
    from .progress import say
    from .study import headline
    from .study import study as run_study

    again = Path(spec) if resume and (Path(spec) / "study.json").is_file() else None
    changes = overrides(set, no_texts)
    task = specs.load(again / "spec.toml" if again else catalogue.locate_task(spec), changes)
    folder = out or again or Path("runs") / f"{task.task.name}-study"
    outcome = run_study(task, folder, overwrite=overwrite, resume=resume)
    if outcome.status == "completed":
        say(headline(outcome), sys.stdout)
    return outcome.exit_code


@app.command(
    epilog="Examples:  minibert check reuters8   |   minibert check data.csv --text text --label topic"
)
@verb
def check(
    source: Annotated[str, typer.Argument(help="A spec, a shipped task's name, or a table.")],
    text: Annotated[str, typer.Option(help="Column of the text, for a table.")] = "",
    label: Annotated[str, typer.Option(help="Column of the label, for a table.")] = "",
    separator: Separator = "",
    encoding: Encoding = "utf-8",
    sheet: Sheet = "",
    weights: Annotated[str, typer.Option(help="Whose tokens are counted, for a table.")] = "all-MiniLM-L6-v2",
    debug: Debug = False,
) -> int:
    """Look at the data before any training: empty texts, duplicates, labels, lengths, encoding."""
    from . import catalogue
    from .data import check as checks
    from .progress import say
    from .tokenize import open_with_limit

    def opener(name: str):
        return lambda: open_with_limit(catalogue.locate_weights(name, texts_only=True))

    is_task = source in catalogue.tasks() or not (Path(source).suffix or Path(source).exists())
    if Path(source).suffix == ".toml" or is_task:
        from . import spec as specs

        known = {*catalogue.weights(), *catalogue.data_sets()}
        task = specs.load(catalogue.locate_task(source)).absolute(known)
        found = checks.check_spec(
            task, lambda word: catalogue.locate_data(word, task.folder), opener(task.model.weights)
        )
    else:
        options = {"separator": separator, "encoding": encoding, "sheet": sheet, "opener": opener(weights)}
        found = checks.check_table(source, text or None, label or None, **options)
    say(found.text(), sys.stdout)
    return 2 if found.errors else 0


@app.command(epilog="Example:  minibert init data.csv --out task.toml")
@verb
def init(
    table: Annotated[Path, typer.Argument(help="A CSV, TSV, JSONL, CoNLL, Parquet or .xlsx file.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the spec to this file instead of printing it.")
    ] = None,
    separator: Separator = "",
    encoding: Annotated[
        str, typer.Option(help="Of the file; recognised and written into the spec if absent.")
    ] = "",
    sheet: Sheet = "",
    debug: Debug = False,
) -> None:
    """Propose a commented spec for a table, to be edited rather than written."""
    from .data.propose import propose
    from .system import write_text

    folder = out.parent if out else None
    text = propose(table, separator=separator, encoding=encoding, sheet=sheet, folder=folder)
    if out is None:
        sys.stdout.reconfigure(encoding="utf-8")  # a spec is UTF-8, whatever a console or a pipe prefers
        print(text, end="")
        return
    if out.exists():
        raise ConfigError(f"{out} exists and is left as it is", "Name another file with --out.")
    write_text(out, text)
    print(f"{out} written; read it, edit it, then: minibert run {out}", file=sys.stderr)


@app.command(epilog="Example:  minibert predict runs/reuters8 --input new.csv --output answers.csv")
@verb
def predict(
    source: Annotated[str, typer.Argument(help="A run folder, or a fine-tuned model.")],
    input: Annotated[Path, typer.Option(help="The table to predict.")],
    output: Annotated[Path, typer.Option(help="Where the answers go: .csv or .tsv.")],
    column: Annotated[str, typer.Option(help="Column of the text; the run's own if absent.")] = "",
    pair: Annotated[str, typer.Option(help="Column of the second text; the run's own if absent.")] = "",
    separator: Annotated[
        str, typer.Option(help="Between columns; the run's own, or by the file's name, if absent.")
    ] = "",
    encoding: Annotated[str, typer.Option(help="Of the file; the run's own if absent.")] = "",
    sheet: Annotated[str, typer.Option(help="Of an .xlsx file; the run's own if absent.")] = "",
    excel_safe: Annotated[
        bool, typer.Option("--excel-safe", help="Defuse cells that a spreadsheet would run.")
    ] = False,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Predict the rows of a table: its columns and order stay, label and probabilities are added."""
    from .predict import predict_file

    rows = predict_file(
        source,
        input,
        output,
        column=column,
        pair=pair,
        separator=separator,
        encoding=encoding,
        sheet=sheet,
        excel_safe=excel_safe,
        overwrite=overwrite,
    )
    print(f"{output}: {rows:,} rows", file=sys.stderr)


@app.command(
    epilog="Examples:  minibert estimate answers.csv --coded coded.csv --label topic   |   minibert estimate "
    "answers.csv --coded coded.csv --label topic --share economy --by party   |   minibert estimate answers.csv "
    "--coded coded.csv --label topic --share economy --on year,party --out estimates.json"
)
@verb
def estimate(
    predictions: Annotated[Path, typer.Argument(help="The table that minibert predict wrote.")],
    label: Annotated[str, typer.Option(help="Column of the codes, by a person.")],
    coded: Annotated[
        Path | None,
        typer.Option(
            help="The table of codes; absent, they are a column of the predictions, empty where none."
        ),
    ] = None,
    id: Annotated[
        str, typer.Option(help="Column that tells which text is which, in both tables.")
    ] = "row_id",
    share: Annotated[str, typer.Option(help="The class whose share is asked; each of them if absent.")] = "",
    mean: Annotated[bool, typer.Option("--mean", help="The mean of a predicted number instead.")] = False,
    by: Annotated[str, typer.Option(help="Column: an estimate for each of its groups.")] = "",
    on: Annotated[str, typer.Option(help="Regress the prediction on these columns: year,party.")] = "",
    outcome: Annotated[
        str, typer.Option(help="Regress this column on the prediction, and on those of --on.")
    ] = "",
    model: Annotated[
        str, typer.Option(help="Of the regression: logit (the default of a class) or ols.")
    ] = "",
    probability_of_sampling: Annotated[
        str, typer.Option(help="Column: how likely a text was to be coded; all alike if absent.")
    ] = "",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Take the class's predicted probability, not yes or no.")
    ] = False,
    label_separator: Annotated[str, typer.Option(help="Between several labels of a text.")] = "",
    unseen: Annotated[
        str, typer.Option(help="A code that is never predicted is an error, or simply wrong.")
    ] = "error",
    corpus_only: Annotated[
        bool, typer.Option("--corpus-only", help="Intervals for these very texts, not for their source.")
    ] = False,
    separator: Separator = "",
    encoding: Encoding = "utf-8",
    sheet: Sheet = "",
    out: Annotated[Path | None, typer.Option(help="Also write all of it to this file, as JSON.")] = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Shares, means and regressions over predicted texts, corrected by a hand-coded random sample of them.

    The coded texts must not have trained the classifier. Separator, encoding and sheet are the coded table's."""
    from .estimate import Question, estimate_file, words
    from .progress import say
    from .system import write_text

    if out and out.exists() and not overwrite:
        raise ConfigError(f"{out} exists and is left as it is", "Name another file, or add --overwrite.")
    question = Question(
        label=label, coded=coded, id=id, share=share, mean=mean, by=by, outcome=outcome, model=model,
        on=tuple(x.strip() for x in on.split(",") if x.strip()), chance=probability_of_sampling,
        probabilities=probabilities, label_separator=label_separator, unseen=unseen,
        corpus_only=corpus_only, separator=separator, encoding=encoding, sheet=sheet,
    )  # fmt: skip
    document = estimate_file(predictions, question)
    if out:
        write_text(out, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    say("\n".join([table_text(words.rows(document)), "", *words.notes(document)]), sys.stdout)


@app.command(
    epilog="Example:  minibert embed all-MiniLM-L6-v2 --input data.csv --column text --output vectors.npy"
)
@verb
def embed(
    model: Annotated[str, typer.Argument(help="A catalogue name, a folder, or a hub id.")],
    input: Annotated[Path, typer.Option(help="The table whose texts are embedded.")],
    output: Annotated[Path, typer.Option(help="An .npy file: a float32 row for each row of the table.")],
    column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    pooling: Annotated[
        str, typer.Option(help="mean, cls, max ..., where no file beside the weights says it.")
    ] = "",
    separator: Separator = "",
    encoding: Encoding = "utf-8",
    sheet: Sheet = "",
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Turn each text into one vector."""
    from .predict import embed_file

    form = {"separator": separator, "encoding": encoding, "sheet": sheet, "overwrite": overwrite}
    rows, width = embed_file(model, input, output, column=column, pooling=pooling or None, **form)
    print(f"{output}: {rows:,} x {width} float32", file=sys.stderr)


@app.command(epilog="Example:  minibert verify all-MiniLM-L6-v2")
@verb
def verify(
    model: Annotated[str, typer.Argument(help="A catalogue name, a folder, or a hub id.")],
    kernel: Annotated[
        str, typer.Option(help="The attention kernel to verify; that of --kernel-file if absent.")
    ] = "auto",
    kernel_file: KernelFile = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    debug: Debug = False,
) -> int:
    """Hold our forward and backward pass against the reference: embeddings, each block, head."""
    if kernel_file:
        from . import kernels

        kernel = kernels.register_file(kernel_file)[0] if kernel == "auto" else kernel
    from .progress import say
    from .verify import verify as climb

    ladder = climb(model, kernel, device)
    say(str(ladder), sys.stdout)
    return 0 if ladder.holds else 1


@app.command(
    epilog='Examples:  minibert explain all-MiniLM-L6-v2 "The bank of the river." --out page.html   |   '
    'minibert explain runs/reuters8/model "oil prices rose" --live'
)
@verb
def explain(
    model: Annotated[str, typer.Argument(help="A catalogue name, a folder, a run, or a hub id.")],
    text: Annotated[str, typer.Argument(help="A text; with [MASK] where the model guesses hidden words.")],
    pair: Annotated[str | None, typer.Option(help="A second text, read together with the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="The page; explain.html if absent.")] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Serve the page on this machine, and run the model for what it asks."),
    ] = False,
    port: Annotated[int, typer.Option(help="Of --live; any that is free if absent.", min=0, max=65535)] = 0,
    max_tokens: Annotated[int, typer.Option(help="What is longer is cut, and the page says so.")] = 64,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """A page on which every number can be followed, from text to answer: one file that needs no network."""
    from . import explain as pages
    from .loading import load
    from .progress import say

    if live and out:
        raise ConfigError("--live serves the page, --out writes it: take one of them")
    if port and not live:
        raise ConfigError("--port is of --live, which serves the page: leave it out, or add --live")
    if live:
        from .explain.live import serve

        serve(
            load(model), text, pair, max_tokens=max_tokens, port=port, say=lambda line: say(line, sys.stdout)
        )
        return
    out = out or Path("explain.html")
    pages.check_place(out, overwrite)
    pages.write(load(model), text, out, pair, max_tokens=max_tokens, overwrite=overwrite)
    say(f"page: {out} ({out.stat().st_size / 1e6:.1f} MB)", sys.stdout)


@app.command(epilog='Example:  minibert fill bert-base-uncased "The capital of France is [MASK]."')
@verb
def fill(
    model: Annotated[str, typer.Argument(help="A catalogue name, a folder, or a hub id.")],
    text: Annotated[str, typer.Argument(help="A text with [MASK] where a word is hidden.")],
    top: Annotated[int, typer.Option(help="How many words for each mask.", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Guess hidden words with the checkpoint's masked-language head."""
    import dataclasses

    from .ask import fill as guess
    from .ask import filler
    from .progress import say

    words = guess(filler(model), text, top)
    if as_json:
        print(json.dumps([dataclasses.asdict(word) for word in words], indent=2, ensure_ascii=False))
        return
    several = any(word.mask for word in words)
    rows = [
        ({"mask": word.mask + 1} if several else {})
        | {"word": word.token, "probability": f"{word.probability:.3f}"}
        for word in words
    ]
    say(table_text(rows), sys.stdout)


@app.command(
    epilog="Examples:  minibert pretrain bert-base-uncased texts.txt --out mine   |   "
    "minibert pretrain all-MiniLM-L6-v2 texts.txt --out head --freeze"
)
@verb
def pretrain(
    model: Annotated[str, typer.Argument(help="A catalogue name, a folder, or a hub id.")],
    text: Annotated[Path, typer.Argument(help="UTF-8; one sentence a line, blank lines between documents.")],
    out: Annotated[Path, typer.Option(help="Folder of the new model.")],
    next_sentence: Annotated[
        bool, typer.Option("--next-sentence", help="Also learn whether two pieces follow one another.")
    ] = False,
    whole_words: Annotated[bool, typer.Option("--whole-words", help="Hide words, not sub-tokens.")] = False,
    share: Annotated[float, typer.Option(help="Of tokens that are hidden.")] = 0.15,
    freeze: Annotated[bool, typer.Option("--freeze", help="Only the head learns.")] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the texts.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="At its peak.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 32,
    max_tokens: Annotated[int, typer.Option(help="Tokens of an example.")] = 128,
    validation: Annotated[float, typer.Option(help="Share of documents held out.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the order, of what is hidden, of a new head.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, auto.")] = "auto",
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> int:
    """Go on with masked-language modelling on texts of your own; perplexity before and after."""
    from .pretrain import Settings, words_of
    from .pretrain import pretrain as learn
    from .progress import say

    settings = Settings(
        next_sentence, whole_words, share, freeze, epochs, learning_rate, batch_size, max_tokens,
        validation=validation, seed=seed,
    )  # fmt: skip
    table = learn(model, text, out, settings, place=device, overwrite=overwrite)
    for word in ("before", "after"):
        say(f"{word}: {words_of(table[word])}", sys.stdout)
    say(f"model: {out}", sys.stdout)
    return 0 if table["status"] == "completed" else 75


@weights_app.command("list", epilog="Example:  minibert weights list --json")
@verb
def weights_list(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    debug: Debug = False,
) -> None:
    """What the catalogue holds, and what of it is on this machine."""
    import dataclasses

    from . import catalogue
    from .progress import say

    rows = [dataclasses.asdict(row) for row in catalogue.describe()]
    if as_json:
        print(json.dumps(rows, indent=2, default=str))
        return
    for row in rows:
        row["bytes"] = f"{row['bytes'] / 1e6:,.0f} MB" if row["bytes"] else "not known"
    say(table_text(rows), sys.stdout)


@weights_app.command("fetch", epilog="Example:  minibert weights fetch all-MiniLM-L6-v2")
@verb
def weights_fetch(
    name: Annotated[str, typer.Argument(help="A catalogue name or a hub id.")],
    debug: Debug = False,
) -> None:
    """Fetch and verify published weights; print the folder."""
    from . import catalogue

    print(catalogue.locate_weights(name))


@weights_app.command("verify", epilog="Example:  minibert weights verify all-MiniLM-L6-v2")
@verb
def weights_verify(
    name: Annotated[str, typer.Argument(help="A catalogue name.")],
    debug: Debug = False,
) -> int:
    """Hash the files that are on this machine, and compare with the catalogue."""
    from . import catalogue
    from .errors import WeightsError, nearest
    from .progress import say

    known = catalogue.weights()
    if name not in known:
        raise WeightsError(f"{name!r} is not in weights/catalogue.toml{nearest(name, known)}")
    rows = [{"file": file, "state": state} for file, state in catalogue.verify(known[name])]
    say(table_text(rows), sys.stdout)
    return 0 if all(row["state"].startswith("verified") or "optional" in row["state"] for row in rows) else 1


@bench_app.command(
    "attention",
    epilog="Examples:  minibert bench attention --quick   |   minibert bench attention --kernels native,sdpa "
    "--lengths zipf:512,csv:data.csv:text --dropout 0.1 --direction both   |   "
    "minibert bench attention --kernel-file mine.py --out runs/bench --compare old/attention.json",
)
@verb
def bench_attention(
    kernels: Annotated[str, typer.Option(help="Names with commas between; all that are registered.")] = "",
    shapes: Annotated[str, typer.Option(help="Heads x width of each.")] = "12x32,12x64,16x64",
    lengths: Annotated[
        str,
        typer.Option(
            help="fixed:N, uniform:N, normal:N, zipf:N, one:N (a long one among short), csv:FILE:COLUMN."
        ),
    ] = "fixed:128,uniform:512,zipf:512,one:1024",
    weights: Annotated[str, typer.Option(help="Whose tokens a column is counted in.")] = "all-MiniLM-L6-v2",
    tokens: Annotated[int, typer.Option(help="Of a case; 4,096 on a CPU, 16,384 on a card.", min=0)] = 0,
    dtypes: Annotated[str, typer.Option(help="float32, bfloat16, float16, float64.")] = "float32",
    dropout: Annotated[str, typer.Option(help="Shares of looks dropped: 0,0.1")] = "0",
    direction: Annotated[str, typer.Option(help="forward, backward, both.")] = "forward,backward,both",
    baseline: Annotated[str, typer.Option(help="The kernel that speed-ups are over.")] = "sdpa",
    rounds: Annotated[int, typer.Option(help="In which all take turns.", min=6)] = 40,
    seconds: Annotated[float, typer.Option(help="Of rounds for each case; six rounds at least.")] = 10.0,
    threads: Annotated[int, typer.Option(help="Of the processor; torch's own choice if absent.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, auto.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Of lengths and order.")] = 0,
    flush: Annotated[bool, typer.Option("--flush", help="Empty the caches before every call.")] = False,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Don't measure memory.")] = False,
    busy: Annotated[bool, typer.Option("--busy", help="Measure on a card that is busy, too.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="One small case, half a minute.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page, PNGs, JSON and CSV.")] = None,
    compare: Annotated[Path | None, typer.Option(help="An earlier attention.json: what got slower.")] = None,
    kernel_file: KernelFile = None,
    debug: Debug = False,
) -> int:
    """Time attention kernels against each other, and say how wrong each is."""
    from .bench import attention, page, table
    from .bench import compare as comparing
    from .progress import say

    old = comparing.read(compare) if compare else None
    settings = attention.Settings(
        attention.words(kernels), attention.shapes(shapes), attention.words(lengths), attention.words(dtypes),
        attention.shares(dropout), attention.words(direction), baseline, device, threads, rounds, seconds,
        tokens=tokens, weights=weights, flush=flush, memory=not no_memory, busy=busy, seed=seed, file=kernel_file,
    )  # fmt: skip
    document = attention.run(settings.quick() if quick else settings, say)
    if out:
        table.write(document, out)
        say(f"the page: {page.write(document, table.lines(document), out)}")
    say("\n".join([table_text(table.lines(document)), "", *table.footnotes(document)]), sys.stdout)
    if old:
        lines, notes = comparing.compared(document, old)
        say("\n".join(["", f"beside {compare}:", table_text(lines), *notes]), sys.stdout)
    done, of = document["measured"]
    return 0 if done == of else 130


@bench_app.command(
    "encoder",
    epilog="Examples:  minibert bench encoder --quick   |   minibert bench encoder --peers benchmarks/peers "
    "--out runs/bench   |   minibert bench encoder --texts csv:data.csv:text --model bert-base-uncased",
)
@verb
def bench_encoder(
    model: Annotated[str, typer.Option(help="A catalogue name, a folder, or a hub id.")] = "all-MiniLM-L6-v2",
    texts: Annotated[
        str, typer.Option(help="A task, whose test texts are read, or csv:FILE:COLUMN.")
    ] = "reuters8",
    examples: Annotated[int, typer.Option(help="So many of the texts.", min=1)] = 512,
    max_tokens: Annotated[int, typer.Option(help="Of a text; the rest is cut off.", min=3)] = 256,
    rounds: Annotated[int, typer.Option(help="In which all take turns; six give intervals.", min=1)] = 7,
    threads: Annotated[int, typer.Option(help="Of the processor; torch's own choice if absent.", min=0)] = 0,
    peers: Annotated[
        Path | None, typer.Option(help="Folder of other encoders to race: benchmarks/peers of a checkout.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the texts and the order of turns.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="32 short texts, two rounds, no peers.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page, PNG, JSON and CSV.")] = None,
    debug: Debug = False,
) -> None:
    """Read texts on the processor, from the naive padded encoder to the fastest, and beside other libraries."""
    from .bench import encoder, page, table, waterfall
    from .progress import say

    settings = encoder.Settings(model, texts, examples, max_tokens, rounds, threads, peers, seed)
    document = encoder.run(settings.quick() if quick else settings, say)
    if out:
        table.write(document, out)
        say(f"the page: {page.write(document, waterfall.lines(document), out)}")
    say("\n".join([table_text(waterfall.lines(document)), "", *waterfall.footnotes(document)]), sys.stdout)


@bench_app.command("calibrate", epilog="Example:  minibert bench calibrate --out runs/bench")
@verb
def bench_calibrate(
    kernel: Annotated[str, typer.Option(help="That is timed against itself.")] = "sdpa",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, auto.")] = "cpu",
    comparisons: Annotated[int, typer.Option(help="Of the kernel with itself.", min=1)] = 1000,
    seconds: Annotated[float, typer.Option(help="For the comparisons at most.")] = 1200.0,
    threads: Annotated[int, typer.Option(help="Of the processor; torch's own choice if absent.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for calibrate.json.")] = None,
    debug: Debug = False,
) -> int:
    """Whether the bench's clock and intervals can be trusted on this machine; some minutes."""
    from .bench import calibrate, table
    from .progress import say

    document = calibrate.run(kernel, device, comparisons, seconds, threads, say)
    if out:
        table.write(document, out)
    lines = calibrate.lines(document)
    say("\n".join(lines), sys.stdout)
    return 0 if all(line.startswith("holds") for line in lines) else 1


def table_text(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned columns with a header."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [names] + [[str(row[n]) for n in names] for row in rows]
    wide = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, wide)).rstrip() for line in cells)
