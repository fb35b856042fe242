"""Estimators with scikit-learn's conventions: what `minibert run` fine-tunes, as fit, predict and predict_proba.

In:  a list, array or Series of texts (or of pairs of texts), and as many labels or numbers.
Out: TextClassifier, TextRegressor: cross_val_score, GridSearchCV, Pipeline and clone take them.

A setting is a key of the spec with its name and default. `fit` makes a TaskSpec of them and walks the project's
own loop in memory: no run folder, no test part, no file. What fit learned ends in "_", as scikit-learn has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from . import __version__, data, device, spec, system
from .data.mask import mask
from .errors import ConfigError, DataError
from .fit import fit
from .folder import Nowhere
from .model import Model
from .outset import new_model
from .predict import open_run
from .progress import hushed
from .reading import encode_all
from .resume import Checkpoints
from .spec import TaskSpec

# The parameters that are keys of a spec, by their table.
KEYS = {
    "data": ("validation", "mask"),
    "model": (
        *("weights", "max_tokens", "truncation", "stride", "max_windows", "pooling", "dropout"),
        *("attention_dropout", "kernel"),
    ),
    "train": (
        *("epochs", "learning_rate", "batch_size", "warmup", "weight_decay", "clip", "layer_decay"),
        *("freeze_layers", "lora_rank", "lora_alpha", "patience", "metric", "class_weights"),
        *("tokens_per_microbatch", "device", "dtype"),
    ),
}


class TextEstimator(BaseEstimator):
    """What both estimators share.

    Parameters are keys of a spec (see spec.py), and besides:
    validation     the share of the texts given to fit that chooses the epoch
    random_state   [train] seed; None draws another one for each fit
    verbose        say on stderr what `minibert run` says
    Learned: model_, a minibert Model; best_epoch_; validation_, its scores; notes_, what was done with the texts.
    """

    kind = ""  # as [task] kind

    def __init__(
        self,
        weights: str = "all-MiniLM-L6-v2",
        *,
        max_tokens: int = 128,
        truncation: str = "head",
        stride: int = 32,
        max_windows: int = 16,
        pooling: str = "cls",
        dropout: float | None = None,
        attention_dropout: float | None = None,
        kernel: str = "auto",
        epochs: int = 3,
        learning_rate: float = 2e-5,
        batch_size: int = 32,
        warmup: float = 0.1,
        weight_decay: float = 0.01,
        clip: float = 1.0,
        layer_decay: float = 1.0,
        freeze_layers: int = 0,
        lora_rank: int = 0,
        lora_alpha: float = 16.0,
        patience: int = 0,
        metric: str = "",
        class_weights: str | dict[str, float] = "none",
        tokens_per_microbatch: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        validation: float = 0.1,
        mask: Sequence[str] = (),
        random_state: Any = 0,
        verbose: bool = False,
    ):
        self.weights = weights
        self.max_tokens = max_tokens
        self.truncation = truncation
        self.stride = stride
        self.max_windows = max_windows
        self.pooling = pooling
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.kernel = kernel
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.clip = clip
        self.layer_decay = layer_decay
        self.freeze_layers = freeze_layers
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.patience = patience
        self.metric = metric
        self.class_weights = class_weights
        self.tokens_per_microbatch = tokens_per_microbatch
        self.device = device
        self.dtype = dtype
        self.validation = validation
        self.mask = mask
        self.random_state = random_state
        self.verbose = verbose

    def task(self, paired: bool) -> TaskSpec:
        """The settings as a TaskSpec; ConfigError with all that is wrong with them."""
        if isinstance(self.validation, str):
            raise ConfigError(f"validation = {self.validation!r} must be a share of the texts given to fit")
        tables: dict[str, dict[str, Any]] = {
            table: {name: plain(value) for name in names if (value := getattr(self, name)) is not None}
            for table, names in KEYS.items()
        }
        tables["task"] = {"name": type(self).__name__, "kind": self.kind}
        tables["data"] |= {"train": "X", "test": "none", "text": "text", "label": "label", "empty": "keep"}
        tables["data"] |= {"pair": "pair"} if paired else {}
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31 - 1)
        tables["train"] |= {"seed": int(seed), "checkpoint_minutes": 0}
        return spec.parse(tables, where=type(self).__name__)

    def learn(self, X: Any, cells: list[str]) -> None:
        """Fine-tune on texts and the cells of their labels."""
        texts, pairs = texts_of(X)
        if len(texts) != len(cells):
            raise DataError(f"X has {len(texts):,} texts and y {len(cells):,} answers")
        columns = {"text": texts, **({"pair": pairs} if pairs else {}), "label": cells}
        task = self.task(bool(pairs))
        with hushed(not self.verbose), device.float32_as("float32"), device.memory_named():
            splits = data.without_test(task, data.from_frame(pd.DataFrame(columns, dtype=object), "X"))
            model = new_model(task, splits, task.train.device)
            encoded = encode_all(task, model, splits)
            keeper = Checkpoints(Path(), task, "", __version__)  # of which none is ever due
            fitted = fit(task, splits, model, encoded, Nowhere(), system.Stop(), keeper)
        self.model_, self.notes_ = fitted.model, splits.notes
        self.best_epoch_, self.validation_ = fitted.best_epoch, fitted.validation

    def answers(self, X: Any) -> np.ndarray:
        """Probabilities (n, C) in the model's order of labels, or values (n,)."""
        check_is_fitted(self)
        texts, pairs = (
            None if some is None else [mask(one, self.mask) for one in some] for some in texts_of(X)
        )
        with hushed(not self.verbose):
            return self.model_.answer_table(self.model_.read(texts, pairs))

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write the model in the Hugging Face layout; `from_run`, `minibert.load` and others read it."""
        check_is_fitted(self)
        return self.model_.save(folder, overwrite=overwrite)

    @classmethod
    def from_run(cls, folder: Path | str) -> TextEstimator:
        """A fitted estimator of a run folder, with the run's settings, or of a fine-tuned model."""
        model, task = open_run(str(folder))
        kind = model.head.kind if model.head is not None else "none"
        if kind != cls.kind:
            raise ConfigError(f"{folder} has a head of kind {kind}; {cls.__name__} is for {cls.kind}")
        own = cls(str(folder), pooling=model.pooling, **model.reading)
        if task:
            found = {name: getattr(getattr(task, table), name) for table in KEYS for name in KEYS[table]}
            if isinstance(task.data.validation, str):
                del found["validation"]  # a table, and not a share
            own.set_params(**found, random_state=task.train.seed)
        own.take(model)
        return own

    def take(self, model: Model) -> None:
        """Be fitted with a model that is there."""
        self.model_ = model

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array = True, True, False
        return tags


class TextClassifier(ClassifierMixin, TextEstimator):
    """One label a text. Learned besides: classes_ (C,), sorted, of the type that y has."""

    kind = "classification"

    def fit(self, X: Any, y: Any) -> TextClassifier:
        """Fine-tune on n texts, or pairs of texts, and their labels (n,)."""
        labels = column_or_1d(y)
        check_classification_targets(labels)
        classes = np.unique(labels)
        names = [str(one) for one in classes]
        if len(set(names)) < len(names):
            raise DataError(f"some labels are the same when written down: {', '.join(names)}")
        self.learn(X, [str(label) for label in labels])
        self.classes_ = classes
        return self

    def take(self, model: Model) -> None:
        """Be fitted with a model that is there, whose labels are strings."""
        super().take(model)
        self.classes_ = np.unique(np.array(model.labels))

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, C) probability of each label, in the order of classes_."""
        found = self.answers(X)
        return found[:, [self.model_.labels.index(str(one)) for one in self.classes_]]

    def predict(self, X: Any) -> np.ndarray:
        """(n,) the most probable labels."""
        places = self.predict_proba(X).argmax(1)
        return self.classes_[places]


class TextRegressor(RegressorMixin, TextEstimator):
    """A number for each text."""

    kind = "regression"

    def fit(self, X: Any, y: Any) -> TextRegressor:
        """Fine-tune on n texts, or pairs of texts, and their values (n,)."""
        self.learn(X, [repr(float(value)) for value in column_or_1d(y)])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(n,) float64, in the units of y."""
        return self.answers(X)


def texts_of(X: Any) -> tuple[list[str], list[str] | None]:
    """(n texts, n second texts or None) of a list, array, Series or DataFrame of one or two columns."""
    found = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(found, (str, bytes)) or not hasattr(found, "__len__"):
        raise DataError("X must hold texts: a list, an array or a Series of strings, not one alone")
    rows = [tuple(one) if isinstance(one, (list, tuple, np.ndarray)) else (one,) for one in found]
    sizes = {len(row) for row in rows}
    if sizes not in ({1}, {2}):
        what = f"rows of {' and '.join(map(str, sorted(sizes)))} entries" if rows else "none"
        raise DataError(f"X must hold texts, or pairs of texts: it has {what}")
    for i, row in enumerate(rows):
        if wrong := [one for one in row if not isinstance(one, str)]:
            raise DataError(f"X, row {i}: {wrong[0]!r} is a {type(wrong[0]).__name__}, not a string")
    columns = [[str(one) for one in column] for column in zip(*rows)]
    return columns[0], columns[1] if len(columns) > 1 else None


def plain(value: Any) -> Any:
    """A setting as a spec holds it: no number of NumPy's, no path."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value
