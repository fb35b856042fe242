"""The methods paragraph of a paper, every number filled in, from what a run or a study left.

In:  a run folder or a study's folder.   Out: Markdown, plain prose with its references below.

`Told` is what modelcard.py and this file know of either kind of folder. A number that was not measured is left out,
never guessed.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import catalogue
from ..kinds import KINDS
from ..spec import TaskSpec, brief, default_metric
from . import tables, words
from .read import Run, read_run
from .study import Study, joined, labels, moment, named, p_said, read_study
from .words import count, number, percent, signed, span

REFERENCES = {
    "bert": "Devlin, J., Chang, M.-W., Lee, K., & Toutanova, K. (2019). BERT: Pre-training of deep bidirectional transformers "
    "for language understanding. Proceedings of NAACL-HLT 2019, 4171–4186.",
    "adamw": "Loshchilov, I., & Hutter, F. (2019). Decoupled weight decay regularization. ICLR 2019.",
    "bootstrap": "Efron, B., & Tibshirani, R. J. (1993). An introduction to the bootstrap. Chapman & Hall.",
    "noreen": "Noreen, E. W. (1989). Computer-intensive methods for testing hypotheses. Wiley.",
    "yeh": "Yeh, A. (2000). More accurate tests for the statistical significance of result differences. COLING 2000, 947–953.",
    "holm": "Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics, 6(2), 65–70.",
    "nadeau": "Nadeau, C., & Bengio, Y. (2003). Inference for the generalization error. Machine Learning, 52, 239–281.",
    "sklearn": "Pedregosa, F., et al. (2011). Scikit-learn: Machine learning in Python. Journal of Machine Learning Research, 12, 2825–2830.",
}
KEPT = {
    "head": "the first {n} tokens of a text were read",
    "tail": "the last {n} tokens of a text were read",
    "head+tail": "of longer texts both ends were read, {n} tokens together",
    "window": "texts were read whole, in windows of {n} tokens",
    "error": "no text was longer than {n} tokens",
}

BESIDE = {  # a role of a study's methods, and what it was compared as
    "traditional": "Traditional methods were tuned on the same validation texts with scikit-learn (Pedregosa et al., 2011)",
    "frozen": "As a middle rung, embeddings of the network as published were read by a linear model",
    "guess": "Without any labelled text there was",
    "floor": "As a floor, answers that read nothing were",
}


@dataclass(frozen=True)
class Told:
    """A run, or a study and the run whose model stays.

    run    the run; of a study the one that was chosen, or where that is gone the study's own spec
    """

    run: Run
    study: Study | None

    @property
    def spec(self) -> TaskSpec:
        """Of the run, so with the settings that were chosen."""
        return self.run.spec

    @property
    def kind(self) -> str:
        """A name of KINDS."""
        return self.run.kind

    @property
    def name(self) -> str:
        """Of the task."""
        return self.spec.task.name

    @functools.cached_property
    def lines(self) -> list[words.Line]:
        """Each metric: fine-tuned, traditional, their difference; of a study with all labelled texts."""
        if self.study is None:
            return words.lines(self.run)
        s = self.study
        ours, theirs = s.row(s.chosen("fine_tuned")), s.row(s.chosen("traditional"))
        last = next((one for one in s.t.get("comparisons") or [] if one["size"] == s.largest), {})
        scores, other, gaps = ours.get("scores") or {}, theirs.get("scores") or {}, last.get("scores") or {}
        return [
            words.Line(name, scores[name], other.get(name) or {}, gaps.get(name) or {}, None)
            for name in s.metrics
            if scores.get(name)
        ]

    @property
    def metric(self) -> str:
        """What chose."""
        return self.study.metric if self.study else words.chosen_by(self.run)

    @property
    def rival(self) -> str:
        """The traditional method's name; "" where there is none."""
        if self.study is None:
            return (self.run.metrics.get("baseline") or {}).get("name", "")
        chosen = self.study.chosen("traditional")
        return self.study.title(chosen) if chosen else ""

    @functools.cached_property
    def weights(self) -> catalogue.Asset | None:
        """The checkpoint, where the catalogue lists it: by its name, or where a folder was named by its bytes."""
        listed, held = catalogue.weights(), (self.run.environment.get("weights") or {}).get("sha256") or {}
        same = (
            one for one in listed.values() if any(f.sha256 and f.sha256 in held.values() for f in one.files)
        )
        return listed.get(self.spec.model.weights) or next(same, None)

    @functools.cached_property
    def data(self) -> list[catalogue.Asset]:
        """The data sets, where the catalogue lists them."""
        d = self.spec.data
        known = catalogue.data_sets()
        return [
            known[word]
            for word in (d.source, d.train, d.validation, d.test)
            if isinstance(word, str) and word in known
        ]

    @property
    def base(self) -> str:
        """The weights' name, without the folders that they may lie in."""
        return Path(self.spec.model.weights).name


def told(folder: Path | str) -> Told:
    """Read either kind of folder. DataError where it is neither."""
    folder = Path(folder)
    if not (folder / "study.json").is_file():
        return Told(read_run(folder), None)
    s = read_study(folder)
    return Told(s.witness, s)


def methods(folder: Path | str) -> str:
    """methods.md: what was done, in prose for the appendix of a paper."""
    known = told(folder)
    sections = (
        ("Data", data(known)), ("Model and training", model(known)), ("Comparison and selection", selection(known)),
        ("Evaluation", evaluation(known)), ("Results", results(known)), ("Software and hardware", software(known)),
    )  # fmt: skip
    body = "\n\n".join(f"**{head}.** {prose(text)}" for head, text in sections if text)
    listed = "\n".join(f"- {plain(one)}" for one in references(known, body))
    return f"# Methods: {plain(known.name)}\n\n{body}\n\n## References\n\n{listed}\n"


def prose(sentences: list[str]) -> str:
    """Sentences as one paragraph."""
    return " ".join(one for one in sentences if one)


def plain(text: str) -> str:
    """Words of the data or of a spec, so that Markdown shows them as they are, on one line."""
    return re.sub(r"([\\`*_<>\[\]#|])", r"\\\1", " ".join(text.split()))


# --- what each part says --------------------------------------------------------------------------


def data(k: Told) -> list[str]:
    """What was predicted from what, and how it was split."""
    d, parts = k.spec.data, words.parts(k.run)
    texts = f"the column “{plain(k.run.text)}”" + (f" and the column “{plain(d.pair)}”" if d.pair else "")
    labels = known_labels(k)
    what = KINDS[k.kind].about.format(labels) if labels or not KINDS[k.kind].labels else "a label"
    out = [f"From {texts} of {source(k)} we predicted “{plain(k.run.label)}”, {what}.", split(k)]
    if all(words.rows(k.run, part) for part in ("train", "validation", "test")):
        n = {part: f"{words.rows(k.run, part):,}" for part in ("train", "validation", "test")}
        out.append(
            f"{n['train']} texts served for training, {n['validation']} for validation and {n['test']} for testing."
        )
    elif k.study and k.lines:
        out.append(
            f"There were {k.study.largest:,} labelled texts for training and validation, and {tested(k)}."
        )
    if k.study and len(k.study.t.get("sizes") or []) > 1:
        sizes = k.study.t["sizes"]
        how = ", stratified by label," if KINDS[k.kind].stratified else ""
        out.append(
            f"For the learning curve {joined(sizes)} labelled texts, those of validation included, were drawn{how} from them."
        )
    elif k.study and k.study.largest < (k.study.t.get("whole") or 0):
        out.append(
            f"Of {k.study.t['whole']:,} labelled texts {k.study.largest:,}, those of validation included, were used."
        )
    elif k.spec.train.examples:
        out.append(f"Only {k.spec.train.examples:,} labelled texts, those of validation included, were used.")
    if d.group:
        out.append(f"No value of “{plain(d.group)}” stands in more than one part.")
    cut = (parts.get("test") or {}).get("truncated") or {}
    if cut.get("texts"):
        out.append(f"{percent(cut['share_of_texts'])} of the test texts were longer than the network reads.")
    return out


def source(k: Told) -> str:
    """The data by their citation, or by name."""
    d = k.spec.data
    cited = list(dict.fromkeys(in_text(one.citation) for one in k.data if one.citation))
    name = joined(list(dict.fromkeys(plain(Path(word).name) for word in (d.source, d.train, d.test) if word)))
    return f"the data set {name} ({plain('; '.join(cited))})" if cited else f"the table {name}"


def in_text(citation: str) -> str:
    """Reimers & Gurevych, 2019; Wang et al., 2020: what a paper says of a citation between brackets."""
    short = [re.sub(r" \((\d{4})\).*", r", \1", one.strip()) for one in citation.split(";")]
    return "; ".join(short)


def known_labels(k: Told) -> int:
    """How many labels there are; 0 where that was not written down."""
    if k.study is None:
        return len(k.run.metrics.get("labels") or ())
    return labels(k.study)


def split(k: Told) -> str:
    """How the parts came to be."""
    d, seed = k.spec.data, (k.study or k).run.spec.train.seeds["split"]
    if d.folds:
        return f"They were cross-validated in {d.folds} folds (seed {seed})."
    if d.split:
        shares = joined([f"{100 * one:g} %" for one in d.split])
        again = k.study.t.get("splits", 1) if k.study else 1
        how = f"{again} times anew (seeds {seed} and following)" if again > 1 else f"at random (seed {seed})"
        return f"The texts were split {how} into {shares} for training, validation and testing."
    if d.split_column:
        return (
            f"The column “{plain(d.split_column)}” says which texts are for training, validation and testing."
        )
    if isinstance(d.validation, float):
        return f"The test part is a table of its own; {100 * d.validation:g} % of the labelled texts were drawn for validation."
    return "Training, validation and test part are tables of their own."


def model(k: Told) -> list[str]:
    """The network and how it was fine-tuned."""
    m, t, asset = k.spec.model, k.spec.train, k.weights
    facts = [
        f"{asset.parameters} parameters" if asset and asset.parameters else "",
        plain(in_text(asset.citation)) if asset else "",
    ]
    sha = (k.run.environment.get("weights") or {}).get("sha256") or {}
    facts += [f"SHA-256 of {file} {found}" for file, found in list(sha.items())[:1]]
    known = "; ".join(filter(None, facts))
    family = f", an encoder of the {asset.family} family" if asset and asset.family else ""
    out = [f"We fine-tuned {plain(k.base)}{f' ({known})' if known else ''}{family} (Devlin et al., 2019)."]
    reads = "the first token’s vector" if m.pooling == "cls" else "the mean of all tokens’ vectors"
    heads = "each word’s vector" if KINDS[k.kind].words else reads
    out.append(f"A new head read {heads}; {KEPT[m.truncation].format(n=m.max_tokens)}.")
    learn = "all weights" if not (t.freeze_layers or t.lora_rank) else "the weights that were not frozen"
    learn = f"low-rank corrections of attention (rank {t.lora_rank}) and the head" if t.lora_rank else learn
    out.append(
        f"Training changed {learn} in {count(t.epochs, 'epoch')} with batches of {t.batch_size} texts by AdamW (Loshchilov & Hutter, 2019): "
        f"a learning rate that rose to {brief(t.learning_rate)} over the first {100 * t.warmup:g} % of the steps and then fell linearly to 0, "
        f"weight decay {t.weight_decay:g}, {f'gradients clipped at norm {t.clip:g}' if t.clip else 'gradients not clipped'}."
    )
    if t.freeze_layers:
        out.append(f"The embeddings and the lowest {count(t.freeze_layers, 'layer')} stayed as published.")
    if t.layer_decay != 1:
        out.append(f"The rate was multiplied by {t.layer_decay:g} for each layer downwards.")
    if t.class_weights != "none":
        out.append(
            "The loss weighted classes, by their frequency in training."
            if t.class_weights == "balanced"
            else "The loss weighted classes."
        )
    if t.patience:
        out.append(
            f"Training was to end early after {count(t.patience, 'epoch')} without a better validation score."
        )
    chosen = (
        t.metric
        or ("" if k.study is None else k.metric)
        or default_metric(k.kind, k.run.metrics.get("labels") or ())
    )
    what = "the lowest loss" if chosen == "loss" else f"the best {named(chosen)}"
    return [*out, f"The weights of the epoch with {what} on validation were kept."]


def selection(k: Told) -> list[str]:
    """Who was compared, and how the choice was made."""
    if k.study is None:
        return baseline(k)
    s = k.study
    fine = [one["title"] for one in s.t.get("curve") or [] if one["role"] == "fine_tuned"]
    out = []
    if len(fine) > 1:
        out.append(f"{len(fine)} settings of fine-tuning were compared: {listed(fine)}.")
    for role, what in BESIDE.items():
        found = [one["title"] for one in s.t.get("curve") or [] if one["role"] == role]
        out += [f"{what}: {listed(found)}."] if found else []
    seeds, splits = s.t.get("seeds", 1), s.t.get("splits", 1)
    if seeds * splits > 1:
        out.append(f"Each was repeated with {count(seeds, 'seed')}{f' on {splits} splits' if splits > 1 else ''}; a seed moves the draw of the labelled "
                   "texts, the new head, the order of the texts and dropout.")  # fmt: skip
    out += choice(s, len(fine))
    seal = s.t.get("seal") or {}
    if seal:
        often = "once" if seal["openings"] == 1 else f"{seal['openings']} times"
        out.append(f"The labels of the test part were taken away before anything learned, and read {often}, on {moment(seal['at'])}, after these choices (SHA-256 {seal['choices_sha256']}) and "
                   f"{count(seal['answers'], 'file')} of answers had been written down.")  # fmt: skip
        out += [f"However, {plain(problem)}." for problem in seal["problems"]]
    return out


def choice(s: Study, settings: int) -> list[str]:
    """What validation chose, and who that was with the most labelled texts."""
    methods = sum(role == "traditional" for role in s.roles.values())
    among = ["the setting"] * (settings > 1) + ["the traditional method"] * (methods > 1)
    if not among:
        return []
    where = "At each number of labelled texts" if len(s.t.get("sizes") or []) > 1 else "Of these"
    made = joined([plain(s.title(s.chosen(who))) for who in ("fine_tuned", "traditional") if s.chosen(who)])
    return [
        f"{where} {joined(among)} with the best mean {named(s.metric)} on the validation texts {'were' if len(among) > 1 else 'was'} chosen: "
        f"with {s.most} texts {made}."
    ]


def listed(titles: list[str]) -> str:
    """Names, which may hold commas, one after the other."""
    return "; ".join(plain(one) for one in titles)


def baseline(k: Told) -> list[str]:
    """A run's baseline."""
    if not k.rival:
        return []
    settings = (k.run.metrics["baseline"]).get("settings") or {}
    chosen = {
        key: f"{value:g}" if isinstance(value, (int, float)) else str(value)
        for key, value in (settings.get("chosen") or {}).items()
    }
    facts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in chosen.items())
    tuned = (
        f", tuned on the validation texts by {named(settings['tuned_on'])} among {count(len(settings['tried']), 'candidate')}"
        if settings.get("tried")
        else ""
    )
    return [f"As a traditional baseline, {plain(k.rival)} was fitted to the same training texts with scikit-learn (Pedregosa et al., 2011){tuned}"
            f"{f' (chosen: {plain(facts)})' if facts else ''}."]  # fmt: skip


def evaluation(k: Told) -> list[str]:
    """Metrics, intervals, tests."""
    if not k.lines:
        return []
    names = joined([f"{named(one.name)} ({one.about.split(';')[0]})" for one in k.lines])
    s, out = k.study, [f"We report {names}."]
    drawn, again = drawn_again(k), bool(s and s.t.get("repeated"))
    out.append(f"Intervals are 95 % percentile bootstrap intervals over {drawn} (Efron & Tibshirani, 1993)"
               f"{', paired for differences' if k.rival and not again else ''}.")  # fmt: skip
    if again:
        out.append(
            "Those of differences, and their p values, are over the splits and allow for the texts that these share (Nadeau & Bengio, 2003)."
        )
    n = (s.t.get("tests") or 0) if s else 0
    corrected = f"corrected for all {n:,} comparisons by Holm’s method (Holm, 1979)" if n > 1 else ""
    if n and not again:
        out.append(f"Differences in {named(s.metric)} were tested by paired bootstrap and by approximate randomisation (Noreen, 1989; Yeh, 2000), "
                   f"two-sided{f', the latter {corrected}' if corrected else ''}.")  # fmt: skip
    elif corrected:
        out.append(f"The p values, two-sided, of differences in {named(s.metric)} were {corrected}.")
    return out


def drawn_again(k: Told) -> str:
    """What an interval is over."""
    t = k.study.t if k.study else {}
    parts = ["splits"] * (t.get("splits", 1) > 1) + ["seeds"] * (t.get("seeds", 1) > 1)
    return joined([*parts, "test texts"])


def tested(k: Told) -> str:
    """How many texts were tested."""
    n = k.lines[0].ours["n"]
    return k.study.tested(n) if k.study else count(n, "test text")


def results(k: Told) -> list[str]:
    """What came out, each score with its interval."""
    out = []
    if not k.lines:
        return ["There are no test scores."]
    with_ = f"With {k.study.most} labelled texts, fine-tuning" if k.study else "Fine-tuning"
    out.append(f"{with_} reached {joined([scored(one, one.ours) for one in k.lines])} on {tested(k)}.")
    if k.rival:
        out.append(
            f"{plain(k.rival)} reached {joined([scored(one, one.theirs) for one in k.lines if one.theirs])}."
        )
        gaps = [one for one in k.lines if one.gain.get("value") is not None]
        if gaps:
            out.append(f"The difference was {joined([difference(one) for one in gaps])}.")
    comparisons = (k.study.t.get("comparisons") or [])[:-1] if k.study else []
    told_ = [
        f"{signed(found['value'])} ({span(found['low'], found['high'], signed)}) with {one['size']:,}"
        for one in comparisons
        if (found := one["scores"][k.metric])["value"] is not None
    ]
    if told_:
        out.append(f"With fewer labelled texts the difference in {named(k.metric)} was {joined(told_)}.")
    return out


def scored(line: words.Line, score: dict[str, Any]) -> str:
    """Pearson r 0.578 (0.520 to 0.629)."""
    if score.get("value") is None:
        return f"an undefined {named(line.name)}"
    return f"{named(line.name)} {number(score.get('value'))} ({span(score.get('low'), score.get('high'))})"


def difference(line: words.Line) -> str:
    """+0.061 (+0.021 to +0.102; p = 0.004, corrected 0.012) in Pearson r."""
    gap = line.gain
    tested = gap.get("p_splits", gap.get("p_randomisation"))
    p = f"; {p_said(tested)}" if tested is not None else ""
    p += f", corrected {p_said(gap['p_holm'])}" if gap.get("p_holm") is not None else ""
    return (
        f"{signed(gap['value'])} ({span(gap.get('low'), gap.get('high'), signed)}{p}) in {named(line.name)}"
    )


def software(k: Told) -> list[str]:
    """Versions, machine, minutes."""
    known, out = k.run.environment, []
    version = (k.study.t if k.study else known).get("minibert")
    made = [f"minibert {version}"] if version else ["minibert"]
    made += [f"Python {known['python']}"] if known.get("python") else []
    made += [f"{name} {one}" for name, one in (known.get("versions") or {}).items()]
    out.append(f"All was computed with {joined(made)}.")
    where = known.get("device_name") or known.get("cpu")
    if where:
        cores = f", {count(known['threads'], 'thread')}" if known.get("threads") else ""
        out.append(f"Training ran on {plain(str(where))}{cores}, in {known.get('dtype') or 'float32'}.")
    if known.get("minutes"):
        one = (
            "The run"
            if k.study is None
            else "The run whose model was kept"
            if k.study.best
            else f"A run on {k.study.most} texts"
        )
        out.append(f"{one} took {tables.duration(known['minutes'])}.")
    if k.study and k.study.t.get("minutes"):
        out.append(f"The whole study took {tables.duration(k.study.t['minutes'])}.")
    return out


def references(k: Told, body: str) -> list[str]:
    """What the prose cites, in order of the alphabet."""
    out = {one.citation for one in k.data if one.citation} | (
        {k.weights.citation} if k.weights and k.weights.citation else set()
    )
    for text in REFERENCES.values():
        first, year = text.split(",")[0], re.search(r"\((\d{4})\)", text)[1]
        out |= {text} if re.search(rf"{first}[^()]*,? \(?{year}", body) else set()
    version = (k.study.t if k.study else k.run.environment).get("minibert")
    out.add(
        f"minibert{f' {version}' if version else ''} [computer software]: a BERT and RoBERTa encoder written by hand, for fine-tuning."
    )
    return sorted(out, key=str.lower)
