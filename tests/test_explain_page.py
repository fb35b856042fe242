"""explain/'s page in a browser: its numbers are the encoder's, parts can be taken out, it asks for nothing.

The page's arithmetic is its own (draw.js, page.js), so it is held here against Encoder.trace and against the story.
Accessibility rules are axe-core's, fetched by npm for the test alone.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import threading
from functools import partial

import pytest
import torch

import minibert
from minibert import explain
from minibert.explain import live, story

from .test_report import chromium  # noqa: F401  fixture

pytestmark = pytest.mark.browser

AXE = "axe-core@4.14.1"
MARKUP = "<b>Rain</b> & flood <script>alert(1)</script> at the river bank"
TEXT = (
    "When the committee met again in September, it explained that rates would rise unless the banks flooded."
)
LAYER, HEAD, TOKEN, KEY, DIMENSION = 2, 8, 4, 6, 101  # K = 32: dimension 5 of a head


@pytest.fixture(scope="module")
def model(minilm):
    return minibert.load(minilm)


@pytest.fixture(scope="module")
def told(model):
    return story.tell(model, TEXT)


@pytest.fixture(scope="module")
def page(told, tmp_path_factory):
    path = tmp_path_factory.mktemp("explain") / "page.html"
    path.write_text(explain.page(told), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def marked(minilm, tmp_path_factory):
    """The page of a classifier, of a text and labels with markup in them."""
    classifier = minibert.load(minilm, head="classification", labels=["<i>a</i>", "b", "c"])
    path = tmp_path_factory.mktemp("marked") / "page.html"
    path.write_text(explain.explain(classifier, MARKUP), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """axe-core's source."""
    folder = tmp_path_factory.mktemp("axe")
    if not shutil.which("npm"):
        pytest.skip("npm, which fetches axe-core, is not installed")
    done = subprocess.run(
        ["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    packs = list(folder.glob("*.tgz"))
    if done.returncode or not packs:
        pytest.skip(f"npm did not fetch {AXE}: {done.stderr.strip()[-200:]}")
    with tarfile.open(packs[0]) as pack:
        return pack.extractfile("package/axe.min.js").read().decode("utf-8")


@pytest.fixture
def visit(chromium):  # noqa: F811
    """Opens a page, waits until all of it is drawn, and in the end finds that it said nothing and asked for nothing."""
    said, asked = [], []

    def opened(address, width=1280, scheme="light", **more):
        context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, **more)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        tab.wait_for_selector("html[data-ready]", state="attached")
        return tab

    yield opened
    assert said == []
    assert all(url.startswith(("file:", "data:", "http://127.0.0.1:")) for url in asked)
    opened_files = [url for url in asked if url.startswith("file:")]
    assert len(opened_files) == len(
        {url.split("#")[0] for url in opened_files}
    )  # the page itself, and no other


def hook(tab, name):
    return tab.locator(f'[data-test="{name}"]')


def value(found):
    return float(found.get_attribute("data-value"))


def choose(tab, **wanted):
    for name, number in wanted.items():
        hook(tab, name).select_option(str(number))


def test_the_numbers_on_the_page_are_the_encoders(visit, page, model):
    tab = visit(page.as_uri())
    hook(tab, f"token-{TOKEN}").click()
    choose(tab, layer=LAYER, head=HEAD, key=KEY, dimension=DIMENSION)
    batch = model.encode([TEXT])
    with torch.inference_mode():
        trace = model.trace(batch)
    N, K = len(batch.token_ids), model.config.head_width
    scores, probs = (trace[f"layers.{LAYER}.{name}"][0][HEAD, TOKEN] for name in ("scores", "probs"))  # (N,)
    context = trace[f"layers.{LAYER}.context"][TOKEN, HEAD, DIMENSION % K]
    assert value(hook(tab, "score")) == pytest.approx(float(scores[KEY]), abs=1e-3)
    assert value(hook(tab, "prob")) == pytest.approx(float(probs[KEY]), abs=1e-3)
    assert value(hook(tab, "context")) == pytest.approx(float(context), abs=1e-3)
    rows = [
        [value(cell) for cell in hook(tab, f"softmax-row-{j}").locator("[data-value]").all()]
        for j in range(N)
    ]
    for j, (score, less, power, share) in enumerate(rows):
        assert score == pytest.approx(float(scores[j]), abs=1e-3)
        assert less == pytest.approx(score - max(row[0] for row in rows), abs=1e-6)
        assert power == pytest.approx(torch.tensor(less).exp().item(), abs=1e-6)
        assert share == pytest.approx(float(probs[j]), abs=1e-3)


def test_what_is_shown_adds_up_as_it_stands(visit, page):
    """Every calculation of the page, line by line, from its rounded numbers: + and - to the last digit."""
    tab = visit(f"{page.as_uri()}#layer={LAYER}&head={HEAD}&token={TOKEN}&key={KEY}&dimension={DIMENSION}")
    read = """tables => tables.map(t => [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.innerText.trim())))"""
    ledgers = tab.eval_on_selector_all("table.ledger", read)
    assert len(ledgers) >= 7

    def number(text):
        return float(text.strip("()").replace("−", "-"))

    checked = 0
    for rows in ledgers:
        before = number(rows[0][-1])
        for row in rows[1:]:
            if len(row) == 2:  # the model's own number
                assert number(row[1]) == pytest.approx(before, abs=1e-3)
                continue
            sign, step, result = row[1], number(row[2]), number(row[3])
            if sign in "+−" and len(row[3].split(".")[1]) == len(row[2].strip("()").split(".")[1]):
                digits = len(row[3].split(".")[1])
                start = round(before, digits)
                assert (start + step if sign == "+" else start - step) == pytest.approx(
                    result, abs=0.6 * 10**-digits
                )
                checked += 1
            elif sign == "×":
                assert before * step == pytest.approx(result, abs=2e-3 * max(1, abs(before)))
            before = result
    assert checked >= 8
    read = """([id, place]) => [...document.querySelectorAll(`#${id} table tr:not(.own)`)]
        .map(r => r.querySelector(`:scope > td:nth-of-type(${place})`)?.innerText).filter(Boolean)"""
    for token in range(10):  # columns of shares, of products and of parts, each over its sum
        choose(tab, token=token, head=token)
        for table, place in (("softmax", 4), ("mixed", 3), ("parts", 1), ("units", 3)):
            *terms, total = tab.evaluate(read, [table, place])
            units = [round(number(text) * 10 ** len(total.split(".")[1])) for text in (*terms, total)]
            assert sum(units[:-1]) == units[-1], (table, token)


def test_a_head_taken_out_changes_the_outcome_as_the_model_says(visit, page, told, marked):
    tab = visit(page.as_uri())
    outcome = [value(row) for row in hook(tab, "outcome").locator("tr[data-value]").all()]
    assert outcome == pytest.approx(told["outcome"]["plain"])
    assert hook(tab, "after-0").count() == 0
    hook(tab, "off-1-3").click()
    after = [value(hook(tab, f"after-{n}")) for n in range(len(outcome))]
    assert after == pytest.approx(told["whatif"]["heads"][1][3]) and after != pytest.approx(outcome)
    assert value(hook(tab, "change")) == pytest.approx(told["whatif"]["change"]["heads"][1][3])
    hook(tab, "off-2").click()  # without a server one part at a time
    assert value(hook(tab, "after-0")) == pytest.approx(told["whatif"]["layers"][2][0])
    hook(tab, "off-positions").click()
    assert value(hook(tab, "after-0")) == pytest.approx(told["whatif"]["positions"][0])
    hook(tab, "off-none").click()
    assert hook(tab, "after-0").count() == 0
    tab = visit(marked.as_uri())
    assert abs(value(hook(tab, "attribution-check"))) < 1e-3


def test_the_grid_of_heads_goes_by_keys_and_the_address_keeps_what_is_followed(visit, page):
    tab = visit(page.as_uri())
    hook(tab, "head-0-0").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        tab.keyboard.press(key)
    assert tab.evaluate("document.activeElement.dataset.test") == "head-2-2"
    assert "Layer 2, head 2" in tab.inner_text("#hover")
    assert hook(tab, "head-2-2").get_attribute("aria-selected") == "false"
    tab.keyboard.press("Enter")
    assert hook(tab, "head-2-2").get_attribute("aria-selected") == "true"
    assert hook(tab, "layer").input_value() == "2" and hook(tab, "head").input_value() == "2"
    assert tab.locator('[data-test^="head-"][tabindex="0"]').count() == 1  # one stop of the Tab key
    hook(tab, "token-3").press("Enter")
    assert tab.evaluate("document.activeElement.dataset.test") == "token-3"
    hook(tab, "off-0-1").press(" ")
    again = visit(tab.url.replace("page.html", "page.html?again"))
    assert [hook(again, name).input_value() for name in ("token", "layer", "head")] == ["3", "2", "2"]
    assert (
        hook(again, "off-0-1").get_attribute("aria-selected") == "true"
        and hook(again, "after-0").count() == 1
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_rules_of_accessibility_and_nothing_wider_than_the_window(visit, marked, axe, width, scheme):
    tab = visit(f"{marked.as_uri()}#off=1.3&token=0", width, scheme)  # [CLS], whose chip is tinted
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.evaluate(axe)
    broken = tab.evaluate("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
    assert [(rule["id"], [node["target"] for node in rule["nodes"]][:3]) for rule in broken] == []
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper.strip("rgb()").split(","))) < 150) == (scheme == "dark")


def test_markup_is_text(visit, marked):
    tab = visit(marked.as_uri())
    assert MARKUP in tab.inner_text("h1") and "<i>a</i>" in hook(tab, "outcome").inner_text()
    assert tab.locator("h1 b, h1 script, #outcome i:not(.more):not(.less)").count() == 0
    assert tab.locator("script").count() == 2


def test_with_the_model_behind_it_parts_are_taken_out_together(visit, model):
    text = "The river bank was flooded."
    page = partial(explain.explain, model, text, None, live=True)
    with live.server(model, text, None, page, max_tokens=64) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = visit(f"http://127.0.0.1:{server.server_address[1]}/")
        hook(tab, "off-1-3").click()
        hook(tab, "off-2").click()
        tab.wait_for_selector("#changed h3:has-text('layer 2')")
        asked = live.Asked(model, text, None, 64)
        both = asked.change({"heads": [[1, 3]], "layers": [2]})
        assert value(hook(tab, "after-0")) == pytest.approx(both["values"][0], abs=1e-5)
        tab.select_option("#swap-place", "2")
        tab.fill("#swap-word", "savings")
        tab.click("#swap button")
        tab.wait_for_selector("#changed h3:has-text('savings')")
        other = asked.change({"heads": [[1, 3]], "layers": [2], "tokens": {"2": "savings"}})
        assert value(hook(tab, "after-0")) == pytest.approx(other["values"][0], abs=1e-5)
        server.shutdown()
