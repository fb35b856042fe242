"""report/: what the page holds, what it says of what is missing, and how it behaves in a browser."""

import csv
import html.parser
import json
import re
from pathlib import Path

import pytest

from minibert import metrics, report
from minibert.errors import DataError
from minibert.report import figures, read, tables, words

from . import fake_run

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(html.parser.HTMLParser):
    """The page's elements, its text, and that every tag is closed."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.stack, self.elements, self.words = [], [], []
        self.feed(self.source)
        self.close()
        assert self.stack == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.stack.append(name)

    def handle_endtag(self, name):
        assert self.stack.pop() == name

    def handle_data(self, data):
        if "style" not in self.stack:
            self.words.append(data)

    def all(self, name, **wanted):
        return [a for n, a in self.elements if n == name and all(a.get(k) == v for k, v in wanted.items())]


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.fixture
def run(tmp_path):
    return fake_run.write_run(tmp_path / "runs" / "fake", n=400)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Page(report.write(fake_run.write_run(tmp_path_factory.mktemp("eight"), n=500)))


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    return Page(report.write(fake_run.write_run(tmp_path_factory.mktemp("numbers"), "regression", n=300)))


def test_the_summary_says_what_metrics_json_holds(run):
    scores = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    text = Page(report.write(run)).text
    ours, theirs = scores["test"]["accuracy"], scores["baseline"]["test"]["accuracy"]
    gain = scores["difference"]["accuracy"]
    assert (
        f"reached accuracy {ours['value']:.3f} (95 % interval {ours['low']:.3f} to {ours['high']:.3f})"
        in text
    )
    assert "on 400 test texts. TF-IDF + linear SVM, trained on the same texts, reached" in text
    assert f"reached {theirs['value']:.3f} ({theirs['low']:.3f} to {theirs['high']:.3f})" in text
    assert (
        f"The difference is +{gain['value']:.3f} (+{gain['low']:.3f} to +{gain['high']:.3f}), which excl"
        in text
    )


@pytest.mark.parametrize("kind", ["page", "regression"])
def test_the_page_is_one_file_that_asks_for_nothing(kind, request):
    page = request.getfixturevalue(kind)
    assert not page.all("script") and not page.all("img") and "@import" not in page.source
    for _, attributes in page.elements:
        assert not {"src", "srcset", "onload", "onclick"} & set(attributes)
        assert attributes.get("href", "#").startswith(("#", "data:"))
    assert not re.search(r"url\(|https?://", page.source)
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")


@pytest.mark.parametrize("kind", ["page", "regression"])
def test_headings_descend_in_order_and_links_lead_somewhere(kind, request):
    page = request.getfixturevalue(kind)
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    known = [a["id"] for _, a in page.elements if "id" in a]
    assert len(known) == len(set(known))
    links = [a["href"][1:] for a in page.all("a")]
    assert links and set(links) <= set(known) and set(known) == set(links)
    named = [a for a in page.all("svg") if a.get("role") == "img"]
    assert named and all(a["aria-label"] for a in named)
    assert len(page.all("title")) == 1 + len(named)  # the page's and one for each picture


def test_it_shows_every_part_of_a_run(page):
    for said in (
        *("266 ", "Labels by part (8)", "82 (31 %)", "27 %", "The network reads the first 128 tokens"),
        *("The baseline reads every text whole", "300 of 5,485 training texts were drawn"),
        *(
            "Epoch 8 had the best Macro F1 on validation",
            "It is the last epoch",
            "the choice of epoch is a noisy one",
        ),
        *(
            "14 texts stand in train and in test: rows 12, 80.",
            "learning_rate",
            "0.0001",
            "tokens_per_microbatch",
        ),
        *("Example CPU 2.4 GHz", "53aa51172d142c89", "ran 3.4 minutes", "4 May 2031", "Seed of dropout"),
        *("new: head.dense.weight", "chosen was linear SVM, C 3", "It does not cover another seed"),
        *("minibert predict eight0 --input new.csv --output out.csv", "The commonest confusions"),
    ):
        assert said in page.text, said
    assert len(page.all("article")) == 2 and len(page.all("li", **{"class": "warning"})) == 2
    assert len(page.all("tr")) > 60


def test_texts_and_labels_of_the_data_are_escaped(tmp_path):
    page = Page(report.write(fake_run.write_run(tmp_path / "two", classes=2, n=150)))
    assert not page.all("script") and not page.all("i", **{"class": None})
    assert fake_run.SCRIPT in page.text and "<i>grain</i> has only 2" in page.text
    assert "yes & <b>sure</b>" in page.text and "<b>sure" not in page.source


def test_the_surest_mistakes_are_shown_in_order_beside_the_baseline(run):
    with open(run / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Category"] != row["label"]]
    with open(run / "baseline.csv", encoding="utf-8", newline="") as file:
        other = {row["row_id"]: row["label"] for row in csv.DictReader(file)}
    rows.sort(key=lambda row: -float(row[f"probability_{row['label']}"]))
    found = read.answers(read.read_run(run))
    assert found.wrong == len(rows) > 12 and rows[0]["row_id"] == "1"
    assert [one.row for one in found.mistakes] == [row["row_id"] for row in rows[:12]]
    assert [one.baseline for one in found.mistakes] == [other[row["row_id"]] for row in rows[:12]]
    assert [one.text for one in found.mistakes] == [row["Text"] for row in rows[:12]]
    assert [one.truncated for one in found.mistakes] == [row["truncated"] == "true" for row in rows[:12]]
    page = Page(report.write(run))
    assert f"{len(rows)} test texts got a wrong label" in page.text
    assert len(page.all("dl")) == 12 + 2


def test_the_largest_errors_of_a_regression(tmp_path, regression):
    run = read.read_run(fake_run.write_run(tmp_path / "numbers", "regression", n=80))
    found = read.answers(run)
    sizes = sorted((abs(said - true) for true, said in found.points), reverse=True)
    assert [one.weight for one in found.mistakes] == sizes[:12] and len(found.points) == 80
    assert found.mistakes[0].row == "1" and fake_run.SCRIPT in found.mistakes[0].text
    assert f"nine in ten at most {sorted(sizes)[71]:.2f}" in words.errors(found.points)
    for said in ("reached Pearson r 0.", "Predicted and true values", "Half of the errors", "adds the value"):
        assert said in regression.text
    assert len(regression.all("article")) == 5 and "Confusions" not in regression.text


def rewrite(path, edit):
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    fake_run.write_csv(path, {name: [row[name] for row in edit(rows)] for name in edit(rows)[0]})


def test_the_inputs_own_label_column_is_not_taken_for_the_answer(run):
    rewrite(
        run / "predictions.csv",
        lambda rows: [
            {"row_id": r["row_id"], "label": r["Category"], "Text": r["Text"], "predicted_label": r["label"]}
            | {k: v for k, v in r.items() if k.startswith("prob")}
            for r in rows
        ],
    )
    before = read.answers(read.read_run(run)).why_none
    assert before == "predictions.csv has no column Category"
    change(run / "data.json", label_column="label")
    found = read.answers(read.read_run(run))
    assert found.wrong > 12 and all(one.truth != one.predicted for one in found.mistakes)
    assert found.mistakes[0].weight == 0.99


def test_both_texts_of_a_pair_are_shown(run):
    rewrite(run / "predictions.csv", lambda rows: [{"other": f"second {i}"} | r for i, r in enumerate(rows)])
    spec = (run / "spec.toml").read_text(encoding="utf-8")
    (run / "spec.toml").write_text(
        spec.replace('label = "Cat', 'pair = "other"\nlabel = "Cat'), encoding="utf-8"
    )
    assert read.answers(read.read_run(run)).mistakes[0].text.endswith("\n\nsecond 1")
    assert "a column Text and a column other and run" in Page(report.write(run)).text


def test_a_long_text_is_cut_at_a_word_and_unfolds_whole(run):
    one = read.Answer("7", "word " * 4000, "a", "b", 0.5, False)
    shown = tables.shown(read.read_run(run), one)
    assert shown.teaser.endswith("word") and len(shown.teaser) <= tables.TEASER
    assert shown.text.startswith(shown.teaser) and len(shown.text) + shown.omitted == len(one.text.strip())
    short = tables.shown(read.read_run(run), read.Answer("7", "one line", "a", "b", -1.0, False))
    assert short.teaser == short.text == "one line" and ("Network", "b") in short.facts


def test_without_a_baseline_the_page_says_so(tmp_path):
    page = Page(report.write(fake_run.write_run(tmp_path / "alone", n=200, baseline=False)))
    assert "No baseline was run, so there is nothing to compare this with." in page.text
    assert "not run" in page.text and "paired" not in page.text and "M0-6L6" not in page.source


def test_a_missing_difference_is_said(run):
    change(run / "metrics.json", difference={})
    text = Page(report.write(run)).text
    assert "No interval of the difference could be computed." in text and "cludes zero" not in text


@pytest.mark.parametrize(
    "name, gain, said",
    [
        ("accuracy", (0.02, 0.01, 0.03), "better"),
        ("accuracy", (-0.02, -0.03, -0.01), "worse"),
        ("accuracy", (0.02, -0.01, 0.05), "open"),
        ("accuracy", (0.02, 0.0, 0.05), "open"),
        ("rmse", (-0.2, -0.3, -0.1), "better"),
        ("rmse", (0.2, 0.1, 0.3), "worse"),
        ("r2", (None, None, None), ""),
    ],
)
def test_the_verdict_follows_the_interval_and_the_metrics_direction(name, gain, said):
    assert words.Line(name, {}, {}, dict(zip(("value", "low", "high"), gain)), None).verdict == said


def test_an_undefined_score_is_said_with_its_reason(tmp_path):
    run = fake_run.write_run(tmp_path / "constant", "regression", n=60)
    scores = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    nothing = {"value": None, "low": None, "high": None, "n": 60, "note": "the predictions are all the same"}
    scores["baseline"]["test"]["pearson"] = nothing
    change(run / "metrics.json", baseline=scores["baseline"])
    assert "has no Pearson r: the predictions are all the same." in Page(report.write(run)).text
    change(run / "metrics.json", test=scores["test"] | {"pearson": nothing})
    text = Page(report.write(run)).text
    assert "undefined" in text and "Pearson r, network: the predictions are all the same." in text


def test_a_run_that_was_stopped_is_written_up_with_what_it_left(run):
    for name in ("metrics.json", "predictions.csv", "baseline.csv", "environment.json", "data.json"):
        (run / name).unlink()
    change(run / "status.json", status="stopped", message="SIGTERM came in epoch 3.")
    page = Page(report.write(run))
    assert "status is “stopped”, not “completed”. SIGTERM came in epoch 3." in page.text
    assert "There are no test scores: SIGTERM came in epoch 3." in page.text
    assert "holds no confusion matrix" in page.text and "holds no predictions.csv" in page.text
    assert "Loss in training and on validation" in page.text


def test_a_bare_spec_is_enough_for_a_page(run):
    for file in run.iterdir():
        if file.name != "spec.toml":
            file.unlink()
    text = Page(report.write(run)).text
    assert "holds no history of training" in text and "holds no findings" in text


def test_the_report_of_a_run_that_is_about_to_complete_has_no_caution(run):
    change(run / "status.json", status="running")
    assert words.cautions(read.read_run(run)) == []


def test_what_proves_little_is_said_first(tmp_path):
    run = fake_run.write_run(tmp_path / "small", classes=2, n=40)
    scores = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    scores["test"]["accuracy"]["note"] = metrics.ONE_LABEL
    change(run / "metrics.json", test=scores["test"])
    first, second = words.cautions(read.read_run(run))
    assert "same true label, so" in first and second == "Only 40 texts were tested: mind the intervals."


FOUND = {"title": "one answer for nearly all texts", "grave": True, "sign": "one_answer",
         "sentence": "It answers <b>no</b>.", "advice": "Another seed.", "details": ["30 of 40 have it."]}  # fmt: skip


def test_signs_of_trouble_stand_on_the_page_and_on_the_terminal(run):
    clear = ["gradients that explode", FOUND["title"]]
    unseen = {"layers without gradient": "no norms", "a fourth": "no scores", "a fifth": "no norms"}
    mild = {**FOUND, "title": "gradients that explode", "grave": False, "sentence": "They do.", "details": []}
    table = {"findings": [FOUND, mild], "looked_for": [*clear, "a third"], "not_looked_for": unseen}
    (run / "diagnosis.json").write_text(json.dumps(table), encoding="utf-8")
    page = Page(report.write(run))
    assert "Mind: the run shows one answer for nearly all texts: what was seen" in page.text
    for said in ("One answer for nearly all texts It answers <b>no</b>. 30 of 40 have it. Try: Another seed.",
                 "Gradients that explode They do. Try:", "Also looked for, and not found: a third.",
                 "Could not be looked for: layers without gradient, a fifth (no norms); a fourth (no scores).", "What to look at"):  # fmt: skip
        assert said in page.text, said
    assert len(page.all("li", **{"class": "grave"})) == 1
    assert "It answers <b>no</b>. Another seed." in report.cautions(run), (
        "the mild ones stand on the page only"
    )
    assert not any("They do" in said for said in report.cautions(run))
    (run / "diagnosis.json").write_text(json.dumps(table | {"findings": []}), encoding="utf-8")
    page = Page(report.write(run))
    assert (
        "None of the 3 signs that were looked for was found: gradients that explode; one answer" in page.text
    )
    assert "the run shows" not in page.text
    ends = {**FOUND, "sign": "not_finite", "sentence": "Step 3: loss nan."}
    (run / "diagnosis.json").write_text(json.dumps(table | {"findings": [ends]}), encoding="utf-8")
    change(run / "status.json", status="diverged", message="step 3: loss nan\nLower it.")
    page = Page(report.write(run))
    assert "“diverged”, not “completed”. A loss or gradient was not finite." in page.text
    assert page.text.count("tep 3: loss nan") == 1, "in full where it is explained, and only there"
    (run / "diagnosis.json").unlink()
    assert "not “completed”. Step 3: loss nan. Lower it." in Page(report.write(run)).text
    assert "The run folder holds no diagnosis." in Page(report.write(run)).text


def test_an_epoch_chosen_by_loss_is_ringed_on_the_loss(run):
    spec = (run / "spec.toml").read_text(encoding="utf-8")
    (run / "spec.toml").write_text(spec.replace("seed =", 'metric = "loss"\nseed ='), encoding="utf-8")
    page = Page(report.write(run))
    assert "had the lowest loss on validation" in page.text and "Macro F1 on validation" in page.text
    assert len(page.all("circle", **{"class": "ring"})) == 2


def test_of_a_cross_validation_the_first_fold_is_drawn_and_said(run):
    history, spec = run / "history.jsonl", run / "spec.toml"
    events = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()[:-1]]
    folded = [json.dumps(event | {"fold": fold}) for fold in (1, 2, 3) for event in events]
    history.write_text("\n".join(folded), encoding="utf-8")
    whole = re.sub(
        r"train = .*\ntest = .*\n", 'source = "all"\nfolds = 3\n', spec.read_text(encoding="utf-8")
    )
    spec.write_text(whole, encoding="utf-8")
    assert len(read.read_run(run).evaluations) == 8
    text = Page(report.write(run)).text
    assert "Cross-validated in 3 folds, all-MiniLM-L6-v2 reached accuracy" in text
    assert "This is the first of 3 folds" in text and "all test texts are scored together" in text


def test_what_the_tokenizer_met_is_said(run):
    parts = json.loads((run / "data.json").read_text(encoding="utf-8"))["parts"]
    parts["test"] |= {"unknown_share": 0.02, "special_names_in_text": 2, "pairs_with_one_side_gone": 1}
    change(run / "data.json", parts=parts)
    said = " ".join(words.truncation(read.read_run(run)))
    assert "In test, 2.0 % of the tokens are unknown" in said and "2 texts hold the name" in said
    assert "1 pair lost nearly all of one side" in said and "In train" not in said


def test_the_folder_is_named_from_where_the_run_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words.place(tmp_path / "runs" / "reuters8") == "runs/reuters8"
    assert words.typed(words.place(Path("runs/two words"))) == '"runs/two words"'
    assert eval(words.literal('odd "run"\\1')) == 'odd "run"\\1'
    assert words.place(tmp_path.parent / "elsewhere") == "elsewhere"


def test_what_a_card_did_is_said_where_it_was_noted(run):
    """Memory, the share of its peak, and steps that float16 left out; nothing of it for a run without."""
    assert not words.card(read.read_run(run)) and "float16" not in " ".join(
        words.training(read.read_run(run))
    )
    path = run / "history.jsonl"
    lines = [json.loads(x) for x in path.read_text(encoding="utf-8").splitlines()[:-1]]
    steps = [x for x in lines if x["event"] == "step"]
    for n, step in enumerate(steps):
        step |= {
            "peak_memory": 10**9 * (n + 1),
            "model_flops_share": n / 400,
            "loss_scale": 2048,
            "skipped": n in (0, 4),
        }
    steps[0]["grad_norm"] = None
    path.write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    change(run / "environment.json", dtype="float16")
    page = Page(report.write(run))
    assert f"2 steps of {len(steps)} changed no weight, because gradients overflowed float16" in page.text
    assert "the loss scale ended at 2,048" in page.text
    assert f"The card’s tensors took at most {len(steps)} GB." in page.text
    assert "came to 17 % of the card’s published peak in float16" in page.text


def test_test_labels_that_training_lacks_are_counted_beside_the_matrix(run):
    matrix = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["confusion"]
    matrix[0][0] -= 3
    change(run / "metrics.json", confusion=matrix)
    assert tables.confusion(read.read_run(run)).unknown == 3
    assert "3 test texts with a label that training does not have" in Page(report.write(run)).text


def test_a_torn_last_line_is_passed_over_and_any_other_is_an_error(run):
    history = run / "history.jsonl"
    whole = read.read_run(run)
    assert len(whole.steps) == 136 and len(whole.evaluations) == 8  # the fake's last line is torn
    history.write_text('{"event": "ste\n' + history.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(DataError, match=r"history.jsonl line 1 is not JSON"):
        report.write(run)


def test_what_is_no_run_folder_or_damaged_is_an_error_with_the_file(run, tmp_path):
    with pytest.raises(DataError, match="holds no spec.toml"):
        report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()
    for content in ("{", "[1]"):
        (run / "metrics.json").write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match="metrics.json"):
            report.write(run)


@pytest.mark.parametrize("classes, form", [(8, "small flat"), (20, "medium upright"), (52, "large upright")])
def test_the_matrix_is_complete_at_every_size(tmp_path, classes, form):
    folder = fake_run.write_run(tmp_path / "many", classes=classes, n=600)
    run = read.read_run(folder)
    matrix = tables.confusion(run)
    assert matrix.form == form and matrix.unknown == 0
    totals = [total for _, total, _ in matrix.rows]
    assert totals == sorted(totals, reverse=True) and sum(totals) == 600
    source = Page(report.write(folder)).source
    body = source[source.index('<table class="matrix') :].split("</table>")[0]
    shown = [int(n) for n in re.findall(r">(\d+)</td>", body)]
    assert sum(shown) == 600 and body.count("<th ") == 2 * classes
    assert sum(n for _, _, n, _ in matrix.frequent) <= 600 - sum(map(max, run.metrics["confusion"]))


@pytest.mark.parametrize(
    "value, said",
    [(0.94812, "0.948"), (-0.0001, "0.000"), (-3.2, "−3.200"), (12.3456, "12.35"), (1234.5, "1,234")]
    + [(9.9999, "10.00"), (float("nan"), "–"), (None, "–")],
)
def test_numbers(value, said):
    assert words.number(value) == said


def test_signs_and_shares():
    assert [words.signed(x) for x in (0.0321, -0.0321, None)] == ["+0.032", "−0.032", "–"]
    shares = {0: "0.0 %", 0.0004: "under 0.1 %", 0.31: "31 %", 0.9999: "over 99.9 %", 1: "100 %", None: "–"}
    assert {x: words.percent(x) for x in shares} == shares
    assert [words.count(n, "text") for n in (1, 2189)] == ["1 text", "2,189 texts"]


@pytest.mark.parametrize(
    "low, high", [(0, 1), (0.931, 0.957), (-4, 3.2), (1e-7, 3e-7), (1e5, 9e6), (2, 2), (0, 0)]
)
def test_axes_hold_their_values_with_a_few_round_ticks(low, high):
    axis = figures.axis([low, high])
    assert axis.low <= low <= high <= axis.high and axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 9 and all(axis.low <= t <= axis.high for t in axis.ticks)
    assert len(set(figures.tick_labels(axis.ticks))) == len(axis.ticks)


def test_pictures_escape_what_they_are_told():
    assert figures.tag("text", "<b>", x='1" y="2') == '<text x="1&#34; y=&#34;2">&lt;b&gt;</text>'
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    assert "<i>" not in figures.intervals("Accuracy", score, score, "<i>baseline</i>")


def test_curves_keep_their_mean_when_thinned_and_leave_out_what_is_not_finite():
    thin = figures.thinned([(i, float(i % 7)) for i in range(10_000)])
    assert len(thin) <= figures.MOST_POINTS
    assert sum(v for _, v in thin) / len(thin) == pytest.approx(3.0, abs=0.01)
    drawn = figures.loss_curve([(1, float("nan")), (2, 1.0), (3, 0.5)], [(3, float("inf"))], [(3, "1")], 3)
    assert "nan" not in drawn and "inf" not in drawn


def luminance(colour):
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def palettes():
    style = (Path(report.__file__).parent / "style.css").read_text(encoding="utf-8")
    for block in re.findall(r":root \{(.*?)\}", style, re.S)[:2]:
        named = dict(re.findall(r"--([\w-]+):\s*([^;]+);", block))
        yield {
            k: tuple(bytes.fromhex(v[1:])) for k, v in named.items() if re.fullmatch("#[0-9a-f]{6}", v)
        } | {
            k: tuple(float(x) for x in v.split(",")) for k, v in named.items() if re.fullmatch(r"[\d., ]+", v)
        }


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(palette):
    for text in ("ink", "soft", "ours", "theirs", "alarm"):
        for ground in ("paper", "card", "wash"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for colour, share in (("ours-rgb", 0.5), ("theirs-rgb", 0.1 + palette["miss"][0])):  # the fullest cells
        cell = [share * c + (1 - share) * p for c, p in zip(palette[colour], palette["paper"])]
        assert contrast(palette["ink"], cell) >= 4.5, colour


@pytest.fixture
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `browser`")
    found = "/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else None
    with api.sync_playwright() as p:
        yield p.chromium.launch(executable_path=found, args=["--no-sandbox"])


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(tmp_path, chromium, width, scheme):
    """No request, no console line, no sideways scrolling, markup shown as text, pictures drawn."""
    pages = [report.write(fake_run.write_run(tmp_path / "numbers", "regression", n=300))]
    pages += [report.write(fake_run.write_run(tmp_path / f"c{c}", classes=c, n=600)) for c in (8, 20, 52)]
    unbroken = "/folder/of/weights" * 4
    pages += [report.write(fake_run.write_run(tmp_path / "path", n=600, weights=unbroken))]
    tab = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    tab.on("request", lambda request: asked.append(request.url))
    for page in pages:
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, page
        assert fake_run.SCRIPT in tab.inner_text("#mistakes")
        sizes = "[...document.querySelectorAll('svg[role=img]')].map(s => s.getBoundingClientRect())"
        drawn = tab.evaluate(f"{sizes}.map(b => [b.left, b.right, b.height])")
        assert drawn and all(left >= 0 and right <= width and height > 40 for left, right, height in drawn)
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 150) == (scheme == "dark")
    assert said == [] and all(url.startswith(("file:", "data:")) for url in asked)


# Words with tags, several labels a text


def kinds_run(folder, kind, label, rows, metrics_table, head="row_id,text,label_,label,words"):
    folder.mkdir(parents=True)
    keys = 'label_separator = "|"\n' if kind == "multilabel" else ""
    (folder / "spec.toml").write_text(
        f'[task]\nname = "t"\nkind = "{kind}"\n[data]\ntrain = "a"\ntest = "b"\ntext = "text"\nlabel = "{label}"\n{keys}'
        '[model]\nweights = "w"\n',
        encoding="utf-8",
    )
    (folder / "metrics.json").write_text(json.dumps(metrics_table), encoding="utf-8")
    with open(folder / "predictions.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return folder


@pytest.mark.browser
def test_every_score_by_label_is_seen_on_a_phone(tmp_path, chromium):
    scores = dict.fromkeys(("precision", "recall", "f1", "low", "high"), 0.123)
    table = {"labels": ["disappointment"], "classes": [{"label": "disappointment", "n": 1787, **scores}]}
    row = ["0", "a text", "disappointment", "", "0.1"]
    head = "row_id,text,label_,label,probability_disappointment"
    page = report.write(kinds_run(tmp_path / "r", "multilabel", "label_", [row], table, head))
    tab = chromium.new_page(viewport={"width": 390, "height": 800})
    tab.goto(page.as_uri())
    assert "0.123 to 0.123" in re.sub(r"\s+", " ", tab.inner_text("#classes td:nth-of-type(4)"))
    assert tab.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('#classes .scroll'))")


def test_marked_words_are_right_where_the_other_has_them_too():
    words_, truth, said = (
        ["Anna", "Lee", "in", "Rome", "now"],
        ("B-p", "I-p", "O", "B-l", "O"),
        ("B-p", "I-p", "O", "O", "B-l"),
    )
    assert tables.pieces_of_entities(words_, truth, said) == [
        ("Anna Lee", "p", True), ("in", "", True), ("Rome", "l", False), ("now", "", True),
    ]  # fmt: skip
    assert tables.pieces_of_tags(["a", "b", "c", "d"], ("X", "X", "Y", "X"), ("X", "X", "X", "X")) == [
        ("a b", "", True), ("c", "Y", False), ("d", "", True),
    ]  # fmt: skip


def test_sentences_with_the_most_wrong_entities_come_first_and_markup_is_escaped(tmp_path):
    rows = [
        ["0", "fine x", "O B-l", "O B-l", "2"],
        ["1", "<script>alert(1)</script> in Rome", "B-p O B-l", "B-<b> O O", "3"],
        ["2", "one Rome", "O B-l", "O O", "2"],
    ]
    folder = kinds_run(tmp_path / "r", "tokens", "label_", rows, {"labels": ["B-l", "B-p", "O"]})
    found = read.answers(read.read_run(folder))
    assert found.wrong == 2 and [(one.row, one.weight) for one in found.mistakes] == [("1", 3.0), ("2", 1.0)]
    page = Page(report.write(folder))
    assert (
        "<script>" not in page.source
        and "<b>" not in page.source.split("<main>")[1].split('id="mistakes"')[1].split("</section>")[0]
    )
    assert (
        "2 test texts got a wrong entity" in page.text and len(page.all("span", **{"class": "missed"})) == 4
    )


def test_wrong_tags_are_counted_by_word(tmp_path):
    rows = [["0", "a b c", "X Y X", "X X Y", "3"], ["1", "a", "X", "X", "1"]]
    folder = kinds_run(tmp_path / "r", "tokens", "label_", rows, {"labels": ["X", "Y"]})
    found = read.answers(read.read_run(folder))
    assert [(one.row, one.weight) for one in found.mistakes] == [("0", 2.0)]
    assert "got a wrong tag" in Page(report.write(folder)).text


def test_texts_with_a_label_too_many_or_too_few(tmp_path):
    head = "row_id,text,label_,label,probability_a,probability_b"
    rows = [
        ["0", "same in another order", "b | a", "a|b", "0.9", "0.9"],
        ["1", "one missed, hardly", "a|b", "a", "0.9", "0.45"],
        ["2", "one too many, surely", "", "b", "0.1", "0.97"],
    ]
    folder = kinds_run(tmp_path / "r", "multilabel", "label_", rows, {"labels": ["a", "b"]}, head)
    (folder / "baseline.csv").write_text("row_id,label\n1,a|b\n2,a\n", encoding="utf-8")
    found = read.answers(read.read_run(folder))
    assert [(one.row, round(one.weight, 2), one.truth, one.predicted) for one in found.mistakes] == [
        ("2", 0.97, (), ("b",)), ("1", 0.55, ("a", "b"), ("a",)),
    ]  # fmt: skip
    shown = [tables.shown(read.read_run(folder), one).facts for one in found.mistakes]
    assert shown[0] == [("True", "none"), ("Network", "b"), ("Baseline", "a")]
    assert "2 test texts got a label too many or too few" in Page(report.write(folder)).text


def test_a_report_of_words_says_what_a_stopped_run_lacks(tmp_path):
    folder = kinds_run(tmp_path / "r", "tokens", "label_", [], {})
    text = (folder / "spec.toml").read_text(encoding="utf-8")
    (folder / "spec.toml").write_text(text + '[train]\nmetric = "entity_f1"\n', encoding="utf-8")
    assert "There are no test scores" in Page(report.write(folder)).text


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_report_without_texts_shows_answers_and_rows(tmp_path, kind):
    folder = fake_run.write_run(tmp_path / "run", kind, n=200)
    spec, text = (folder / "spec.toml"), "Text" if kind == "classification" else "text_long"
    spec.write_text(spec.read_text("utf-8").replace("[data]", "[data]\nkeep_texts = false"), "utf-8")
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row[text]
    with open(folder / "predictions.csv", "w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, rows[0])
        out.writeheader()
        out.writerows(rows)
    page = report.write(folder).read_text("utf-8")
    found = read.answers(read.read_run(folder))
    assert len(found.mistakes) > 5 and not any(one.text for one in found.mistakes)
    assert "No text stands here" in page and "(empty)" not in page and found.mistakes[0].row in page
