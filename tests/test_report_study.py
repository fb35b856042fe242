"""report/ of a study: what its page, its methods paragraph and its model card hold, in every state and of every kind."""

import json
import re

import pytest

from minibert import report
from minibert.errors import DataError
from minibert.report import plots, study

from . import fake_run
from .fake_study import SCRIPT, write_study
from .test_report import Page, change, chromium  # noqa: F401  fixture

LONG = "/a/folder/of/weights" * 5
STATES = {
    "numbers": {},
    "labels": {"kind": "classification", "labels": 20, "settings": 5},
    "sets": {"kind": "multilabel", "people": False, "transfer": False},
    "tags": {"kind": "tokens", "people": False, "methods": ("majority",)},
    "one size": {"sizes": (1868,), "settings": 3},
    "alone": {"methods": (), "transfer": False},
    "splits": {"splits": 5, "sizes": (500, 1868)},
    "near sizes": {"sizes": (100, 110, 120, 1000, 1100)},
    "no texts": {"texts": False},
    "worse": {"gap": -0.2},
    "open": {"gap": -0.06},
    "calm": {"honest": True, "kind": "classification"},
    "bare": {"kept": False, "more": 1000, "weights": "/somewhere/of/mine", "people": False},
    "many": {"settings": 30, "weights": LONG},
    "running": {"status": "running", "scored": False},
    "stopped": {"status": "stopped", "scored": False, "settings": 2},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every state's folder, its page written."""
    root = tmp_path_factory.mktemp("studies")
    out = {name: write_study(root / name.replace(" ", "-"), **given) for name, given in STATES.items()}
    for folder in out.values():
        report.write_study(folder)
    return out


@pytest.fixture(scope="module")
def pages(folders):
    return {name: Page(folder / "report.html") for name, folder in folders.items()}


@pytest.mark.parametrize("state", STATES)
def test_a_page_of_any_state_is_whole_and_asks_for_nothing(pages, state):
    page = pages[state]
    assert not page.all("script") and not page.all("img") and not re.search(r"url\(|https?://", page.source)
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    known = [given["id"] for _, given in page.elements if "id" in given]
    assert len(known) == len(set(known)) and set(known) == {given["href"][1:] for given in page.all("a")}
    drawn = [given for given in page.all("svg") if given.get("role") == "img"]
    assert drawn and all(given["aria-label"] for given in drawn)
    assert not re.search(r"\bnan\b|None(?! of)|\{\{|Undefined", page.text)
    assert not set(re.findall(r"<(b|i)>[^<]*alert|<script", page.source)), "texts of the data are text"


def test_the_lead_says_what_study_json_holds(folders, pages):
    t = json.loads((folders["numbers"] / "study.json").read_text(encoding="utf-8"))
    ours, theirs = t["table"][0]["scores"]["pearson"], t["table"][1]["scores"]["pearson"]
    gap = t["comparisons"][-1]["scores"]["pearson"]
    text = pages["numbers"].text
    assert (
        f"reached Pearson r {ours['value']:.3f} (95 % interval {ours['low']:.3f} to {ours['high']:.3f}) on 623 test texts"
        in text
    )
    assert (
        f"TF-IDF + ridge, the best of 3 traditional methods on validation, {theirs['value']:.3f} ({theirs['low']:.3f} to {theirs['high']:.3f})"
        in text
    )
    assert (
        f"The difference is +{gap['value']:.3f} (+{gap['low']:.3f} to +{gap['high']:.3f}), which excludes zero"
        in text
    )
    assert (
        "which includes zero: these texts do not tell which is better. Nor does it at any other number"
        in pages["open"].text
    )
    assert "the traditional method is better on texts like these" in pages["worse"].text
    assert "No traditional method was fitted" in pages["alone"].text


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("b", ""),
        ("bbb", "It is better at every number of labelled texts from 100 to 300."),
        ("ooo", "Nor does it at any other number of labelled texts from 100 on."),
        ("obb", "Fine-tuning is better from 200 labelled texts on; with 100 it is open which is."),
        ("wob", "Fine-tuning is better from 300 labelled texts on; with 100 the traditional method is; with 200 it is open which is."),
        ("bob", "Fine-tuning is better from 300 labelled texts on, and with 100; with 200 it is open which is."),
        ("bbo", "Fine-tuning is better with 100 and 200 labelled texts; with 300 it is open which is."),
        ("www", "With 100, 200 and 300 the traditional method is."),
    ],
)  # fmt: skip
def test_from_how_many_texts_on(found, said):
    words = {"b": "better", "o": "open", "w": "worse"}
    assert study.from_where([(100 * (i + 1), words[one]) for i, one in enumerate(found)]) == said


def test_over_repeated_splits_the_interval_knows_that_they_share_texts(folders, pages):
    said = "That interval is over 5 splits, allowing for the texts that they share."
    assert said in pages["splits"].text and "Below zero fine-tuning is better." in pages["splits"].text
    assert "allowing for" not in pages["numbers"].text
    assert study.Study(None, {"splits": 5}).tested(5370) == "1,074 test texts in each of 5 splits"
    assert study.Study(None, {}).tested(1) == "1 test text" and "in each of 5 splits;" in pages["splits"].text
    assert "by a coin" not in pages["splits"].text and "by a coin" in pages["numbers"].text
    prose = (folders["splits"] / "methods.md").read_text(encoding="utf-8")
    assert "p = 0.004, corrected p = 0.012" in prose and "randomisation" not in prose
    assert "The p values, two-sided, of differences in Pearson r were corrected for all" in prose


def test_after_correction_a_difference_may_be_chance(folders, tmp_path):
    folder = write_study(tmp_path / "s")
    table = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    table["comparisons"][-1]["scores"]["pearson"]["p_holm"] = 0.08
    (folder / "study.json").write_text(json.dumps(table), encoding="utf-8")
    page = Page(report.write_study(folder))
    assert "Corrected for the 10 comparisons of this page it may be chance (p = 0.080)." in page.text


def test_until_the_labels_are_read_the_page_shows_validation(folders, pages):
    for state in ("running", "stopped"):
        text = pages[state].text
        assert "2 of 12 runs are done" in text and "the labels of the test part have not been read" in text
        assert "Pearson r on validation texts" in text and "A hollow mark" in text
        assert not (folders[state] / "methods.md").exists() and "Paired tests" not in text
    assert "The study’s status is “stopped”. Stopped with 2 of 12" in pages["stopped"].text
    assert "Mind:" not in pages["running"].text


def test_nothing_known_yet_is_said(tmp_path):
    folder = write_study(tmp_path / "s", scored=False, status="running")
    change(folder / "study.json", so_far={"metric": "pearson", "rows": []})
    assert "No score is known yet." in Page(report.write_study(folder)).text


def test_the_proof_of_the_seal(pages, tmp_path):
    text = pages["numbers"].text
    assert "and read once, on 4 May 2031, 11:02 UTC: after every model had been trained" in text
    assert (
        "each of the 96 files of answers. None of these has changed since." in text
        and "53aa51172d142c89" * 4 in text
    )
    folder = write_study(tmp_path / "s")
    broken = {
        "openings": 2,
        "at": None,
        "choices_sha256": "0",
        "answers": 96,
        "problems": ["2 files of answers changed"],
    }
    change(folder / "study.json", seal=broken)
    page = Page(report.write_study(folder))
    assert "Mind: 2 files of answers changed." in page.text and "None of these has changed" not in page.text
    assert "and read 2 times" in page.text


def test_checks_are_calm_where_all_is_well_and_said_where_not(pages):
    assert (
        "All is well" in pages["calm"].text
        and "texts of one part that stand in another" in pages["calm"].text
    )
    assert "No text is longer than 256 tokens." in pages["calm"].text
    loud = pages["labels"].text
    assert "All is well" not in loud and "3 of 623 test texts share their author <i>" in loud
    assert "“<b>Ann</b>” (9 in train, 3 in test)" in loud and "And 2 more." in loud
    assert "The expected calibration error is 0.070" in loud and "too sure of themselves, by 0.070" in loud
    assert "What would change the result" in loud and "What would change" not in pages["calm"].text
    assert "the predictions lie too close together" not in pages["numbers"].text
    assert "the predictions spread too far" in pages["numbers"].text


def test_texts_stand_on_the_page_unless_they_must_not(pages):
    assert SCRIPT in pages["numbers"].text and fake_run.STORY[:40] in pages["numbers"].text
    assert SCRIPT not in pages["no texts"].text and fake_run.STORY[:40] not in pages["no texts"].text
    assert "The texts themselves are kept out of this page." in pages["no texts"].text
    assert "(empty)" in pages["numbers"].text and "kept out of" not in pages["numbers"].text
    assert "equally near: 1 (0.2 %)" in pages["numbers"].text


def test_a_long_grid_keeps_to_twelve_thin_curves(pages):
    assert len(re.findall('class="curve thin', pages["many"].source)) == study.MOST_CURVES
    assert "contestants more stand in the table below" in pages["many"].text


def test_people_and_other_tables(pages):
    text = pages["numbers"].text
    assert "rated by 4 people" in text and "0.440 (interval)" in text and "reliability of 0.740" in text
    assert "xlmt-french-test" in text and "paid <b>by text</b>" in text
    assert "rated by" not in pages["labels"].text and "0.550 (nominal)" in pages["labels"].text


def test_a_folder_that_is_no_study(tmp_path):
    with pytest.raises(DataError, match="holds no study.json"):
        report.write_study(tmp_path)


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted", [[], [5.0], [5.0, 5.0, 5.0], [0.0, 1.0, 300.0], [359.0, 360.0, 360.0], list(range(40))]
)
def test_labels_are_kept_apart_and_inside(wanted):
    found = plots.apart(wanted, 15, 360)
    assert all(-1e-9 <= one <= 360 + 1e-9 for one in found)
    room = min(15, 360 / max(len(wanted) - 1, 1))
    assert all(b - a >= room - 1e-6 for a, b in zip(sorted(found), sorted(found)[1:]))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert [found[i] for i in order] == sorted(found), "their order stays"


def test_a_label_with_room_stays_where_its_curve_ends():
    assert plots.apart([10.0, 100.0, 104.0], 15, 360) == pytest.approx([10.0, 94.5, 109.5])


def test_sizes_that_are_too_near_have_a_tick_and_no_number():
    _, shown = plots.texts_axis((100, 110, 120, 1000, 1100))
    assert shown == ["", "", "120", "", "1,100"]
    assert plots.texts_axis((500,))[1] == ["500"]


def test_the_height_of_the_curve_is_that_of_the_style(pages):
    assert f".plot.learning {{ height: {plots.HEIGHT}px;" in pages["numbers"].source


# --- prose ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [name for name, given in STATES.items() if given.get("scored", True)])
def test_methods_and_card_of_any_state(folders, state):
    prose, card = (
        (folders[state] / name).read_text(encoding="utf-8") for name in ("methods.md", "model_card.md")
    )
    for text in (prose.split("## References")[0], card.split("---", 2)[2]):
        assert not re.search(r"\bnan\b|None|\bNaN\b|  +\S|\.\.|–", text.replace("top_k=None", "")), re.search(
            r"None|\.\.|–", text
        )
        assert not re.search(r"(?<!\\)<(?! )", text), "markup is escaped"
    assert LONG not in prose and LONG not in card, "no folder of this machine"


def test_the_methods_paragraph_has_every_number(folders):
    text = (folders["numbers"] / "methods.md").read_text(encoding="utf-8")
    for said in (
        "1,557 texts served for training, 311 for validation and 623 for testing",
        "split at random (seed 0) into 62.5 %, 12.5 % and 25 % for training, validation and testing",
        "100, 500, 1,000 and 1,868 labelled texts",
        "22.7M parameters", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "the first 256 tokens of a text were read", "3 epochs with batches of 32 texts", "rose to 5e-5 over the first 10 % of the steps",
        "weight decay 0.01, gradients clipped at norm 1", "the best Pearson r on validation were kept",
        "repeated with 3 seeds", "TF-IDF + ridge", "read once, on 4 May 2031, 11:02 UTC",
        "bootstrap intervals over seeds and test texts (Efron & Tibshirani, 1993)", "(Noreen, 1989; Yeh, 2000)", "corrected for all 10 comparisons",
        "reached Pearson r 0.578 (0.528 to 0.623)", "The difference was +0.060", "p < 0.001, corrected p = 0.012",
        "torch 2.13.0+cpu", "Example CPU 2.4 GHz, 2 threads", "The whole study took 55.2 minutes",
        "(Kleinberg, van der Vegt & Mozes, 2020)", "- Kleinberg, van der Vegt & Mozes (2020), Measuring", "- Holm, S. (1979)", "- minibert 0.1.0",
    ):  # fmt: skip
        assert said in text, said
    assert "Nadeau" not in text
    assert "- Nadeau, C., & Bengio, Y. (2003)" in (folders["splits"] / "methods.md").read_text(
        encoding="utf-8"
    )


def test_where_no_model_stays_the_runs_still_say_what_was_used(folders, pages):
    prose, card = (
        (folders["bare"] / name).read_text(encoding="utf-8") for name in ("methods.md", "model_card.md")
    )
    assert (
        "Of 2,868 labelled texts" not in prose and "With 1,868 labelled texts, fine-tuning reached" in prose
    )
    assert (
        "1,557 texts served for training" in prose
        and "torch 2.13.0+cpu" in prose
        and "/somewhere" not in prose + card
    )
    assert 'license: "apache-2.0"' in card and "22.7M parameters" in prose, "known by the weights' bytes"
    assert "Use the model" not in pages["bare"].text
    assert "minibert estimate" in pages["labels"].text and "estimate" not in pages["tags"].text, (
        "tags have no shares"
    )
    assert re.search(r"minibert estimate .* --label-separator ,", pages["sets"].text)
    assert (
        "Example CPU 2.4 GHz" in pages["bare"].text
        and "With all 1,868 labelled texts" in pages["numbers"].text
    )


def test_the_card_has_a_header_that_a_hub_reads(folders):
    text = (folders["labels"] / "model_card.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    lines = header.splitlines()
    assert (
        'license: "apache-2.0"' in lines and 'base_model: "sentence-transformers/all-MiniLM-L6-v2"' in lines
    )
    assert (
        "- f1" in lines
        and "- accuracy" in lines
        and "    - type: f1" in lines
        and "      value: 0.578" in lines
    )
    for head in (
        "Intended use",
        "Training data",
        "Evaluation",
        "Calibration",
        "Subgroups",
        "Limits",
        "How to load it",
    ):
        assert f"## {head}\n" in body, head
    assert (
        "| Macro F1 | 0.578 (0.528 to 0.623) | 0.518 (0.468 to 0.563) | +0.060 (+0.01" in body
        and "Expected calibration error 0.070" in body
    )
    assert "AutoModelForSequenceClassification" in body and "max_length=256" in body


def test_an_ordinary_run_has_both_too(tmp_path):
    folder = fake_run.write_run(tmp_path / "run", n=200)
    prose, card = report.methods(folder), report.card(folder)
    assert (
        "300 labelled texts, those of validation included, were used" in prose
        and "TF-IDF + linear SVM" in prose
    )
    assert (
        "among 2 candidates (chosen: model linear SVM, C 3, macro f1 0.83)" in prose
        and "(Pedregosa et al., 2011)" in prose
    )
    assert "| Accuracy |" in card and "## Calibration" not in card
    scores = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert f"accuracy {scores['accuracy']['value']:.3f}" in prose


# --- in a browser ---------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(folders, chromium, width, scheme):  # noqa: F811
    """No request, no console line, no sideways scrolling, no label of a picture outside the page or over another."""
    tab = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    tab.on("request", lambda request: asked.append(request.url))
    for name in ("numbers", "labels", "splits", "one size", "near sizes", "many", "running"):
        tab.goto((folders[name] / "report.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
        boxes = tab.evaluate(
            "[...document.querySelectorAll('svg[role=img]')].map(s => [...s.querySelectorAll('text')].filter(t => t.textContent)"
            ".map(t => {const b = t.getBoundingClientRect(); return [b.left, b.right, b.top + 1, b.bottom - 1, t.textContent]}))"
        )
        for picture in boxes:
            assert picture and all(left >= 0 and right <= width for left, right, *_ in picture), (
                name,
                picture,
            )
            for i, (left, right, top, bottom, word) in enumerate(picture):
                for other in picture[:i]:
                    apart = right <= other[0] or left >= other[1] or bottom <= other[2] or top >= other[3]
                    assert apart, (name, word, other[4])
        asked_for = (
            "[...document.querySelectorAll('.forest > div')].map(d => d.getBoundingClientRect().right)"
        )
        assert all(right <= width for right in tab.evaluate(asked_for))
    assert said == [] and all(url.startswith(("file:", "data:")) for url in asked)
