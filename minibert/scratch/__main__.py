"""`python -m minibert.scratch [SEED]`: the main job, in NumPy alone.

Fine-tunes all of all-MiniLM-L6-v2 on the 270 labelled texts that `minibert run reuters8` learns from, 64 tokens of
each, for a fixed number of epochs: neither the 30 of validation nor the test texts choose anything. The baseline
reads whole texts, is tuned on the 30, and tested on the same. Exit code 1 if it is not beaten.
"""

import argparse
import math
import sys

import numpy as np

from .. import baseline, catalogue, metrics, spec
from ..data import load_splits
from ..errors import MiniBertError
from ..tokenize import Tokenizer
from .encoder import pack
from .model import Twin, load
from .train import train

EPOCHS, MAX_TOKENS = 10, 64


def answers(twin: Twin, ids: list[list[int]], at_once: int = 32) -> np.ndarray:
    """The class number of each text, (n,)."""
    packs = (pack(ids[start : start + at_once]) for start in range(0, len(ids), at_once))
    return np.concatenate([twin.forward(each)["logits"].argmax(-1) for each in packs])


def main(seed: int = 0) -> dict[str, float]:
    """Train, test, compare. Returns how much more accurate the twin is than the baseline, with the interval."""
    task = spec.load(catalogue.locate_task("reuters8"), {"train.seed": str(seed)})
    splits = load_splits(task, lambda source: catalogue.locate_data(source, task.folder))
    numbers = {label: i for i, label in enumerate(splits.labels)}
    parts = (splits.train, splits.validation, splits.test)
    folder = catalogue.locate_weights(task.model.weights)
    tokenizer, twin = Tokenizer.from_folder(folder), load(folder, "classification", len(numbers), seed)
    ids, held, unseen = (tokenizer.encode(part.texts, max_tokens=MAX_TOKENS).ids for part in parts)
    truth, watched, asked = (np.array([numbers.get(x, -1) for x in part.targets]) for part in parts)
    other = baseline.fit("tfidf", "classification", *parts[:2], metric="accuracy", seed=seed)
    print(f"{len(ids)} texts to learn from, {len(held)} to watch, {len(unseen)} to test on")
    print(f"{other.name}: validation accuracy {other.validation:.3f}", flush=True)
    losses, size, rate = [], task.train.batch_size, task.train.learning_rate
    batch = lambda places: (pack([ids[i] for i in places]), truth[places])  # noqa: E731
    for step, loss in enumerate(train(twin, batch, len(ids), EPOCHS, size, rate, seed), 1):
        losses.append(loss)
        if len(losses) == math.ceil(len(ids) / size):
            right = (answers(twin, held) == watched).mean()
            print(f"step {step}: loss {np.mean(losses):.3f}, validation accuracy {right:.3f}", flush=True)
            losses.clear()
    ours, theirs = answers(twin, unseen), np.array([numbers[x] for x in other.predict(splits.test.texts)])
    gap = metrics.difference("classification", asked, ours, theirs, num_classes=len(numbers))["accuracy"]
    print(f"test accuracy {(ours == asked).mean():.4f}, {other.name} {(theirs == asked).mean():.4f}")
    print(f"difference {gap['value']:+.4f}, 95 % interval {gap['low']:+.4f} to {gap['high']:+.4f}")
    return gap


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m minibert.scratch", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", default=0, help="of the draw, the new layer, the order")
    try:
        raise SystemExit(int(main(parser.parse_args().seed)["value"] <= 0))
    except MiniBertError as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(problem.exit_code) from None
