"""Run folders as `minibert run` leaves them, made of invented texts and answers, for the report's tests.

In:  a folder, a kind, a number of classes.   Out: every file that the report reads, seeded.
"""

import csv
import json

import numpy as np

from minibert import metrics

TOPICS = (
    "acq alum bop carcass cocoa coffee copper cotton cpi cpu crude dlr earn fuel gas gnp gold grain heat "
    "housing income instal-debt interest ipi iron-steel jet jobs lead lei livestock lumber meal-feed "
    "money-fx money-supply nat-gas nickel orange pet-chem platinum potato reserves retail rubber ship "
    "strategic-metal sugar tea tin trade veg-oil wpi zinc"
)
LABELS = {
    2: ["no", "yes & <b>sure</b>"],
    8: ["acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"],
    20: [
        *("alt.atheism", "comp.graphics", "comp.os.ms-windows.misc", "comp.sys.ibm.pc.hardware"),
        *("comp.sys.mac.hardware", "comp.windows.x", "misc.forsale", "rec.autos", "rec.motorcycles"),
        *("rec.sport.baseball", "rec.sport.hockey", "sci.crypt", "sci.electronics", "sci.med", "sci.space"),
        *("soc.religion.christian", "talk.politics.guns", "talk.politics.mideast", "talk.politics.misc"),
        "talk.religion.misc",
    ],
    52: TOPICS.split(),
}
STORY = (
    "the company said its board approved a new offer of shares and the market rose by a quarter while prices "
    "of oil wheat and copper fell after the ministry reported weaker exports than last year bank officials in "
    "tokyo would not comment on rates but traders expect the dollar to hold against the yen this week reuter"
)
WORDS = STORY.split()
SCRIPT = "<script>alert('from the data')</script> & \"quoted\" <b>bold</b> text"


def texts(rng, n):
    """n invented texts of very different lengths; the second holds markup."""
    lengths = np.clip(rng.lognormal(4.2, 0.8, n).astype(int), 4, 900)
    out = [" ".join(rng.choice(WORDS, size)) for size in lengths]
    out[1] = f"{SCRIPT} {out[1]}"
    return out


def write_run(
    folder, kind="classification", classes=8, n=2189, baseline=True, seed=0, weights="all-MiniLM-L6-v2"
):
    """A whole run folder; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    make = classified if kind == "classification" else regressed
    parts = make(folder, rng, classes, n, baseline)
    name = {8: "reuters8", 20: "newsgroups20", 52: "reuters52"}.get(classes, "task")
    name = name if kind == "classification" else "worry"
    epochs, best = write_history(folder, rng, kind)
    metric = "macro_f1" if kind == "classification" else "pearson"
    write_json(folder / "status.json", {"status": "completed", "best_epoch": best, "epochs": epochs,
                                        "metric": metric, "message": ""})  # fmt: skip
    write_json(folder / "environment.json", environment(seed))
    text, label = ("Text", "Category") if kind == "classification" else ("text_long", "worry")
    write_json(folder / "data.json", {"parts": parts, "text_column": text, "label_column": label,
                                      "notes": NOTES, "findings": FINDINGS})  # fmt: skip
    (folder / "spec.toml").write_text(
        f'[task]\nname = "{name}"\nkind = "{kind}"\n\n[data]\ntrain = "{name}-train"\ntest = "{name}-test"\n'
        f'validation = 0.1\ntext = "{text}"\nlabel = "{label}"\n\n[model]\nweights = "{weights}"\n'
        f"max_tokens = 128\n\n[train]\nepochs = {epochs}\nlearning_rate = 1e-4\nbatch_size = 16\nseed = {seed}\n"
        'examples = 300\n\n[baseline]\nkind = "tfidf"\n',
        encoding="utf-8",
    )
    return folder


def classified(folder, rng, classes, n, baseline):
    labels = LABELS[classes]
    weight = 1 / np.arange(1, classes + 1) ** (1.1 if classes != 20 else 0.05)
    share = rng.permutation(weight) / weight.sum()
    truth = rng.choice(classes, n, p=share)
    truth[:classes] = np.arange(classes)
    ours, theirs = (answers(rng, truth, share, sharp) for sharp in (4.0, 3.0))
    ours[1] = 0.01 / (classes - 1)
    ours[1, (truth[1] + 1) % classes] = 0.99  # the text that holds markup is the surest mistake
    said, other = ours.argmax(1), theirs.argmax(1)
    columns = {"Category": [labels[i] for i in truth], "label": [labels[i] for i in said]}
    columns |= {f"probability_{label}": [f"{p:.6f}" for p in ours[:, i]] for i, label in enumerate(labels)}
    write_predictions(folder, rng, n, "Text", columns)
    if baseline:
        write_csv(folder / "baseline.csv", {"row_id": range(n), "label": [labels[i] for i in other]})
    write_scores(folder, "classification", truth, said, other if baseline else None, classes,
                 {"classes": metrics.per_class(truth, said, labels), "labels": labels,
                  "confusion": metrics.confusion(truth, said, classes).tolist()})  # fmt: skip

    def counted(size):
        counts = np.maximum(1, (share * size).astype(int))
        return {label: int(c) for label, c in zip(labels, counts)}

    test = dict(zip(labels, np.bincount(truth, minlength=classes).tolist()))
    return {"train": part(counted(270)), "validation": part(counted(30)), "test": part(test)}


def answers(rng, truth, share, sharp):
    """Invented probabilities (n, C): mostly right, with neighbouring classes mistaken for each other."""
    n, classes = len(truth), len(share)
    logits = rng.normal(size=(n, classes)) + 0.8 * np.log(share * classes)
    logits[np.arange(n), truth] += sharp
    logits[np.arange(n), (truth + 1) % classes] += 0.45 * sharp * (rng.random(n) < 0.25)
    exps = np.exp(1.3 * (logits - logits.max(1, keepdims=True)))
    return exps / exps.sum(1, keepdims=True)


def regressed(folder, rng, classes, n, baseline):
    truth = np.clip(np.round(rng.normal(6.5, 1.8, n)), 1, 9)
    ours = 6.4 + 0.42 * (truth - 6.5) + rng.normal(0, 0.85, n)
    ours[1] = truth[1] + 6.25  # the text that holds markup is the largest error
    theirs = 6.4 + 0.25 * (truth - 6.5) + rng.normal(0, 0.75, n)
    columns = {"worry": [f"{x:g}" for x in truth], "value": [f"{x:.6f}" for x in ours]}
    write_predictions(folder, rng, n, "text_long", columns)
    if baseline:
        write_csv(folder / "baseline.csv", {"row_id": range(n), "value": [f"{x:.6f}" for x in theirs]})
    write_scores(folder, "regression", truth, ours, theirs if baseline else None, None, {})
    return {"train": part({}, 1550), "validation": part({}, 310), "test": part({}, n)}


def part(labels, rows=None):
    rows = rows or sum(labels.values())
    return {
        "rows": rows,
        "labels": labels,
        "tokens": {"min": 6, "median": 93, "p95": 412, "max": 1_114},
        "unknown_share": 0.0,
        "special_names_in_text": 0,
        "pairs_with_one_side_gone": 0,
        "truncated": {"texts": round(0.31 * rows), "share_of_texts": 0.31, "share_of_tokens": 0.274},
    }


def write_scores(folder, kind, truth, ours, theirs, num_classes, more):
    def scored(predicted):
        scores = metrics.score(kind, truth, predicted, num_classes=num_classes, resamples=300)
        return {name: one.as_dict() for name, one in scores.items()}

    out = {"test": scored(ours), "baseline": None, "difference": {}, **more}
    out["validation"] = {name: one["value"] for name, one in out["test"].items()}
    if theirs is not None:
        model = "linear SVM" if kind == "classification" else "ridge"
        tried = [{"model": model, "C": c, "macro_f1": 0.8 + c / 100} for c in (1.0, 3.0)]
        settings = {"kind": "tfidf", "tuned_on": "macro_f1", "chosen": tried[1], "tried": tried}
        out["baseline"] = {"name": f"TF-IDF + {model}", "settings": settings, "validation": 0.83,
                           "test": scored(theirs)}  # fmt: skip
        out["difference"] = metrics.difference(
            kind, truth, ours, theirs, num_classes=num_classes, resamples=300
        )
    write_json(folder / "metrics.json", out)


def write_history(folder, rng, kind, epochs=8, per_epoch=17):
    lines, best, score = [], 0, {}
    names = ("accuracy", "macro_f1") if kind == "classification" else ("pearson", "rmse")
    for step in range(1, epochs * per_epoch + 1):
        epoch = (step - 1) // per_epoch + 1
        rate = 1e-4 * min(step / 14, (epochs * per_epoch - step) / (epochs * per_epoch - 14))
        lines.append({"event": "step", "step": step, "epoch": epoch, "learning_rate": rate,
                      "loss": 2.0 * np.exp(-step / 30) + 0.06 + 0.12 * rng.random(),
                      "grad_norm": 3 + rng.random(), "texts_per_second": 60 + 9 * rng.random(),
                      "tokens_per_second": 5200 + 700 * rng.random()})  # fmt: skip
        if step % per_epoch == 0:
            now = {name: 0.95 - 0.6 * np.exp(-epoch / 2) - 0.02 * (epoch == 7) for name in names}
            chosen = "macro_f1" if kind == "classification" else "pearson"
            better = bool(now[chosen] > score.get(chosen, 0))
            best, score = (epoch, now) if better else (best, score)
            loss = 0.2 + 1.2 * np.exp(-epoch / 2) + 0.012 * epoch
            lines.append(
                {"event": "evaluation", "step": step, "epoch": epoch, "loss": loss, "best": better, **now}
            )
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "history.jsonl").write_text(whole + '{"event": "step", "st', encoding="utf-8")  # torn
    return epochs, best


def write_predictions(folder, rng, n, text, columns):
    written = texts(rng, n)
    sizes = [len(t.split()) + 2 for t in written]
    cut = {"tokens": [min(s, 128) for s in sizes], "truncated": [str(s > 128).lower() for s in sizes]}
    write_csv(folder / "predictions.csv", {"row_id": range(n), text: written} | columns | cut)


def write_csv(path, columns):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def environment(seed):
    return {
        "minibert": "0.1.0",
        "python": "3.12.4",
        "platform": "Linux-6.8 x86_64",
        "machine": "x86_64",
        "cpu": "Example CPU 2.4 GHz",
        "cores": 2,
        "threads": 2,
        "cpu_capability": "AVX512",
        "device": "cpu",
        "device_name": "",
        "dtype": "float32",
        "kernel": "sdpa",
        "versions": {
            "torch": "2.13.0+cpu",
            "numpy": "2.4.6",
            "scikit-learn": "1.9.1",
            "tokenizers": "0.23.3",
        },
        "seeds": {"head": seed, "order": seed + 1, "dropout": seed + 2},
        "started": "2031-05-04T09:30:12+00:00",
        "minutes": 3.42,
        "weights": {
            "name": "all-MiniLM-L6-v2",
            "source": "cache/all-MiniLM-L6-v2",
            "sha256": {
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
            },
            "report": "101 of 101 encoder tensors read\nnew: head.dense.weight, head.dense.bias",
        },
    }


NOTES = [
    "300 of 5,485 training texts were drawn, stratified by label, with seed 0.",
    "10 % of them (30) became the validation part; they are not trained on.",
]
FINDINGS = [
    {
        "topic": "duplicates",
        "severity": "warning",
        "sentence": "14 texts stand in train and in test: rows 12, 80.",
    },
    {"topic": "lengths", "severity": "info", "sentence": "31 % of the texts are longer than 128 tokens."},
    {"topic": "labels", "severity": "warning", "sentence": "<i>grain</i> has only 2 training texts."},
]
