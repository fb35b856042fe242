"""A study's folder as `minibert study` leaves it, with invented scores, for the tests of its page.

In:  a folder, a kind, which parts there are to be.   Out: study.json, spec.toml, and the chosen run's facts, seeded.
"""

import math
from pathlib import Path

import numpy as np

from . import fake_run

METRICS = {
    "classification": ["macro_f1", "accuracy"],
    "regression": ["pearson", "spearman", "rmse", "mae", "r2"],
    "multilabel": ["micro_f1", "macro_f1", "exact"],
    "tokens": ["entity_f1", "entity_precision", "entity_recall", "accuracy", "macro_f1"],
}
METHODS = {  # name, title, role, what it reaches with all texts beside the network
    "tfidf-ridge": ("TF-IDF + ridge", "traditional", -0.06),
    "tfidf-svm": ("TF-IDF + linear SVM", "traditional", -0.08),
    "length": ("length and VADER", "traditional", -0.25),
    "frozen-linear": ("frozen embeddings + linear head, mean of the last layer's tokens", "frozen", -0.03),
    "zero-shot": ("zero-shot, from label names", "guess", -0.33),
    "majority": ("majority", "floor", -0.48),
}
SCRIPT = "<script>alert('of a study')</script> <b>bold</b> & \"quoted\""
SIZES = (100, 500, 1000, 1868)


def score(value, wide=0.05, n=623):
    """A value with its interval."""
    if value is None:
        return {"value": None, "low": None, "high": None, "n": n}
    return {"value": value, "low": value - wide, "high": value + 0.9 * wide, "n": n}


def on(metric, value):
    """What a contestant that reaches `value` on the metric that chooses reaches on another."""
    return {
        "rmse": 2.6 - 1.2 * value,
        "mae": 2.1 - value,
        "r2": value**2,
        "accuracy": min(0.99, value + 0.08),
    }.get(metric, value - 0.01)


def reached(final, size, whole):
    """A learning curve that ends in `final`."""
    return final - 0.09 * math.log(whole / size)


def write_study(
    folder,
    kind="regression",
    sizes=SIZES,
    methods=tuple(METHODS),
    settings=1,
    splits=1,
    status="completed",
    labels=8,
    texts=True,
    gap=0.0,
    people=True,
    transfer=True,
    honest=False,
    seed=0,
    scored=True,
    weights="all-MiniLM-L6-v2",
    kept=True,
    more=0,
):
    """A whole study; returns `folder`.

    gap     added to what the network reaches      honest  no check finds anything
    kept    whether a model stayed                 more    labelled texts that nobody learned from
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    metric, whole = METRICS[kind][0], sizes[-1]
    fine = [f"learning rate {rate}e-5" for rate in range(1, settings + 1)] if settings > 1 else ["fine-tuned"]
    finals = {name: 0.578 + gap - 0.015 * place for place, name in enumerate(fine)}
    finals |= {name: 0.578 + METHODS[name][2] for name in methods}
    titles = {
        name: f"fine-tuned, {name}" if settings > 1 else f"{Path(weights).name}, fine-tuned" for name in fine
    }
    titles |= {name: METHODS[name][0] for name in methods}
    roles = dict.fromkeys(fine, "fine_tuned") | {name: METHODS[name][1] for name in methods}

    def value(name, size, metric=metric):
        if roles[name] == "floor" and metric in ("pearson", "spearman"):
            return None
        level = roles[name] in ("guess", "floor")
        own = finals[name] if level else reached(finals[name], size, whole)
        return own if metric == METRICS[kind][0] else on(metric, own)

    def point(name, size):
        found = score(value(name, size), 0.05 + 2 / size)
        return {
            "size": size,
            **found,
            "runs": 3,
            "validation": (found["value"] or 0) + 0.02,
            "minutes": 0.4 + size / 500,
            "learned_from": round(0.83 * size),
        }

    traditional = [name for name in methods if roles[name] == "traditional"]
    best = {"fine_tuned": fine[0], "traditional": traditional[0] if traditional else None}
    early = {**best, "fine_tuned": fine[-1]}  # with few texts another setting was chosen
    chosen_at = {size: early if size == sizes[0] and len(sizes) > 1 else best for size in sizes}
    table = {
        "name": f"worry <b>& {kind}", "kind": kind, "status": status, "message": "" if status != "stopped" else "stopped with 2 of 12 runs done",
        "minibert": "0.1.0", "started": "2031-05-04T09:30:12+00:00", "done": 12 if scored else 2, "planned": 12, "sizes": list(sizes),
        "whole": whole + more, "seeds": 3, "splits": splits, "notes": ["A note of the data."], "problems": {},
        "so_far": {"metric": metric, "rows": [
            {"name": name, "size": size, "validation": value(name, size), "runs": 3 - (size > 100), "planned": 3, "whole": size <= 100,
             "title": titles[name], "role": roles[name]}
            for name in roles for size in sizes
        ]},
    }  # fmt: skip
    if scored:
        table |= results(
            rng,
            kind,
            sizes,
            fine,
            roles,
            titles,
            value,
            point,
            best,
            chosen_at,
            splits,
            labels,
            texts,
            honest,
        )
        table["human"] = PEOPLE[kind](metric) if people and kind in PEOPLE else None
        table["transfer"] = elsewhere(METRICS[kind], best, roles) if transfer else []
        write_best(folder / table["chosen"]["folder"], kind, weights, seed)
        if not kept:
            table["chosen"]["folder"] = None
    fake_run.write_json(folder / "study.json", table)
    (folder / "spec.toml").write_text(spec_of(kind, weights), encoding="utf-8")
    return folder


def results(
    rng, kind, sizes, fine, roles, titles, value, point, best, chosen_at, splits, labels, texts, honest
):
    """What study.json holds once the test part was read."""
    metric, whole = METRICS[kind][0], sizes[-1]

    def beside(one, other, size, metric):
        a, b = value(one, size, metric), value(other, size, metric)
        if a is None or b is None:
            return {"value": None, "low": None, "high": None, "p_bootstrap": None, "p_randomisation": None}
        wide = 0.045 + 2 / size
        if splits > 1:
            return {
                **score(a - b, wide),
                "p_bootstrap": None,
                "p_randomisation": None,
                "p_splits": 0.004,
                "p_holm": 0.012,
            }
        return {**score(a - b, wide), "p_bootstrap": 0.02, "p_randomisation": 0.0004, "p_holm": 0.012}

    comparisons = [
        {"size": size, "ours": made["fine_tuned"], "theirs": made["traditional"],
         "scores": {m: {"ours": value(made["fine_tuned"], size, m), "theirs": value(made["traditional"], size, m),
                        **beside(made["fine_tuned"], made["traditional"], size, m)} for m in METRICS[kind]}}
        for size, made in chosen_at.items() if made["traditional"]
    ]  # fmt: skip
    rows = [
        {"name": name, "title": titles[name], "role": roles[name], "validation": (value(name, whole) or 0) + 0.02,
         "scores": {m: score(value(name, whole, m)) for m in METRICS[kind]}, "minutes": 3.2, "seconds_per_1000": 1.9,
         "against": None if name == best["fine_tuned"] else beside(name, best["fine_tuned"], whole, metric)}
        for name in roles
    ]  # fmt: skip
    return {
        "metric": metric, "metrics": METRICS[kind],
        "chosen": {**best, "folder": f"runs/fine-tuned/n-{whole}/split-0-seed-1"},
        "choices": {"metric": metric, "sizes": [
            {"size": size, **made, "validation": {name: (value(name, size) or 0) + 0.02 for name in roles}} for size, made in chosen_at.items()
        ]},
        "curve": [{"name": name, "title": titles[name], "role": roles[name], "points": [point(name, size) for size in sizes]} for name in roles],
        "best": {who: [{"name": made[who], **point(made[who], size)} for size, made in chosen_at.items() if made[who]] for who in best},
        "comparisons": comparisons, "table": rows, "tests": len(comparisons) + len(rows) - 1,
        "repeated": [
            {"size": size, "metric": m, "differences": (0.05 + rng.normal(0, 0.02, splits)).tolist(), **score(0.05, 0.03), "p": 0.01}
            for size in sizes for m in METRICS[kind]
        ] if splits > 1 and best["traditional"] else None,
        "differ": differ(kind, texts) if best["traditional"] else None,
        "honesty": honesty(rng, kind, labels, honest), "verdicts": [] if honest else VERDICTS, "would_change": [] if honest else CHANGES,
        "seal": {"openings": 1, "at": "2031-05-04T11:02:44+00:00", "choices_sha256": "53aa51172d142c89" * 4, "answers": 96, "problems": []},
        "minutes": 55.2,
    }  # fmt: skip


def differ(kind, texts):
    """Where two part ways; the first text is hostile."""
    numbers = kind == "regression"
    counts = (
        {"ours": 350, "theirs": 272} if numbers else {"both": 300, "ours": 80, "theirs": 40, "neither": 203}
    )

    def some(first):
        said = [f"{SCRIPT} {fake_run.STORY} {fake_run.STORY}", "short", ""] if first else [fake_run.STORY]
        return [
            {"row": 17 + i, "text": text if texts else "", "truth": "6" if numbers else "earn <i>", "ours": "5.9", "theirs": "2.12"}
            for i, text in enumerate(said)
        ]  # fmt: skip

    return {"n": 623, "counts": counts, "ours": some(True), "theirs": some(False)}


def honesty(rng, kind, labels, honest):
    """What every check found, in the shapes of minibert/study/."""
    parts = ("train", "validation", "test")
    names = (
        fake_run.LABELS.get(labels, fake_run.LABELS[8])
        if kind != "regression"
        else [f"up to {i}" for i in range(1, 10)]
    )
    pairs = (
        []
        if honest
        else [
            {"place": 3, "row": 80, "other_row": 12, "similarity": 1.0},
            {"place": 4, "row": 91, "other_row": 7, "similarity": 0.83},
        ]
    )
    out = {
        "copies": [{"part": part, "of": of, "texts": 623, "exact": len(pairs) // 2, "near": len(pairs) // 2, "threshold": 0.8, "pairs": pairs}
                   for of, part in (("train", "validation"), ("train", "test"), ("validation", "test"))],
        "groups": {"column": "author <i>", "count": 0 if honest else 1, "rows": {"validation": 0, "test": 3}, "texts": dict.fromkeys(parts, 623),
                   "groups": [] if honest else [{"group": "<b>Ann</b>", "rows": {"train": 9, "test": 3}}]},
        "labels": {"labels": [{"label": name, "counts": dict.fromkeys(parts, 30), "shares": dict.fromkeys(parts, 0.1)} for name in names],
                   "distances": [{"part": "test", "of": "train", "distance": 0.04, "by_chance": 0.03, "p": 0.4}]},
        "chance": {"alike": 0.2, "most": 0.2, "constant": False, "n": 623, "metrics": {
            m: {"value": 0.57, "majority": None if m in ("pearson", "spearman") else 0.1, "chance": 0.0, "low": -0.08, "high": 0.08, "p": 0.001}
            for m in METRICS[kind]}},
        "subgroups": {"gender": {"metric": METRICS[kind][0], "score": score(0.57), "merged": {"groups": 3, "n": 22}, "groups": [
            {"value": name, "n": 300, "score": score(0.55 + 0.02 * i), "difference": score(-0.02), "p": 0.3} for i, name in enumerate(("<i>f</i>", "", None))]}},
        "cut": {part: {"texts": 0 if honest else 190, "share_of_texts": 0.31, "share_of_tokens": 0.27} for part in parts},
    }  # fmt: skip
    if kind == "regression":
        return out | {"calibration_line": {"slope": score(0.83, 0.1), "intercept": score(1.1, 0.4), "n": 623}}
    sure = np.linspace(0.3, 0.97, 10)
    bins = [
        {
            "from": s - 0.03,
            "to": s + 0.03,
            "n": 62,
            "confidence": s,
            "accuracy": max(0, s - 0.07),
            "low": max(0, s - 0.17),
            "high": min(1, s + 0.03),
        }
        for s in sure
    ]
    coverage = np.linspace(0.02, 1, 50)
    return out | {
        "calibration": {"binning": "equal mass", "bins": bins, "ece": score(0.07, 0.02), "by_chance": {"value": 0.02, "high": 0.03}, "surplus": 0.07},
        "selective": {"curve": [{"coverage": c, "accuracy": 0.98 - 0.3 * c**2, "least": 1 - c / 2} for c in coverage], "area": 0.88, "accuracy": 0.68, "n": 623},
        "suspects": {"sure": 0.9, "seeds": 3, "n": 623, "count": 0 if honest else 14, "texts": [] if honest else [
            {"place": i, "row": i + 2, "label": names[0], "said": names[1], "probability": 0.97} for i in range(14)]},
    }  # fmt: skip


def rated(metric):
    """How far people agree on numbers."""
    return {"one_against_rest": {metric: score(0.63, 0.02), "rmse": score(1.7, 0.1)}, "alpha": {"nominal": 0.2, "ordinal": 0.41, "interval": 0.44},
            "n": 1500, "ratings": 6000, "raters": 4, "reliability": 0.74, "note": "The raters were paid <b>by text</b>.",
            "leave_one_out": [{"rater": f"r{i}", "n": 1500, "pearson": 0.6} for i in range(4)]}  # fmt: skip


def named(metric):
    """... on labels."""
    return {"one_against_rest": {"accuracy": score(0.71, 0.02), metric: score(0.66, 0.03), "kappa": score(0.6, 0.03)}, "alpha": {"nominal": 0.55},
            "n": 1500, "ratings": 4500, "raters": None, "reliability": None, "note": "", "leave_one_out": []}  # fmt: skip


PEOPLE = {"regression": rated, "classification": named}


def elsewhere(metrics, best, roles):
    """Two further tables."""
    names = [name for name in roles if name in best.values() or roles[name] in ("frozen", "floor")]
    return [
        {"name": f"xlmt-{language}-test", "n": 870, "pieces_per_word": 1.9, "unknown": 0.001, "minutes_per_1000": 0.5,
         "scores": {name: {m: score(0.5 if roles[name] != "floor" else None) for m in metrics} for name in names}}
        for language in ("french", "german")
    ]  # fmt: skip


def write_best(folder, kind, weights, seed):
    """The chosen run, as far as the page reads it: it was not scored by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {part: fake_run.part({}, n) for part, n in (("validation", 311), ("test", 623))}
    fake_run.write_json(folder / "answers.json", {"parts": parts, "learned_from": 1557})
    fake_run.write_json(folder / "environment.json", fake_run.environment(seed))
    (folder / "spec.toml").write_text(spec_of(kind, weights), encoding="utf-8")


def spec_of(kind, weights):
    """The task."""
    return (
        f'[task]\nname = "worry <b>& {kind}"\nkind = "{kind}"\n\n[data]\nsource = "rwwd"\nsplit = [0.625, 0.125, 0.25]\ntext = "text_long"\n'
        f'label = "worry"\n\n[model]\nweights = "{weights}"\nmax_tokens = 256\n\n[train]\nepochs = 3\nlearning_rate = 5e-5\nbatch_size = 32\n'
    )


VERDICTS = [
    {
        "check": "groups",
        "severity": "warning",
        "sentence": "3 of 623 test texts share their author <i> with a part before.",
    },
    {
        "check": "near_duplicates",
        "severity": "info",
        "sentence": "1 of 623 test texts (0.2 %) stands in train, nearly word for word.",
    },
    {
        "check": "cut",
        "severity": "info",
        "sentence": "190 test texts (31 %) were not read whole: 27 % of all tokens were cut.",
    },
]
CHANGES = [
    "From 1,000 to 1,868 labelled texts Pearson r went from 0.522 to 0.578, by more than chance: more labelled texts would most likely help.",
    "31 % of the test texts were not read whole: more [model] max_tokens, or truncation = \"head+tail\", may change the score.",
]  # fmt: skip
