"""minibert: a BERT/RoBERTa encoder written by hand. Public names, in the order data flows.

Importing this imports nothing heavy: each name is looked up in its file when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from .errors import (
    ConfigError,
    DataError,
    EnvironmentProblem,
    MiniBertError,
    OutOfMemory,
    TokenizerError,
    TrainingError,
    WeightsError,
)

__version__ = "0.1.0"

# name -> file
NAMES = {
    "EncoderConfig": "config",
    "Tokenizer": "tokenize",
    "pack": "batch",
    "unpack": "batch",
    "PackedBatch": "batch",
    "Layout": "batch",
    "kernels": "",
    "Encoder": "encoder",
    "Trace": "trace",
    "Model": "model",
    "load": "loading",
    "fill": "ask",
    "choose": "ask",
    "answer": "ask",
    "explain": "",
    "TaskSpec": "spec",
    "finetune": "notebook",
    "TextClassifier": "estimator",
    "TextRegressor": "estimator",
    "course": "",
}

__all__ = [
    *NAMES,
    "ConfigError",
    "DataError",
    "EnvironmentProblem",
    "MiniBertError",
    "OutOfMemory",
    "TokenizerError",
    "TrainingError",
    "WeightsError",
]


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"minibert has no {name!r}")
    if not NAMES[name]:
        return importlib.import_module(f".{name}", __name__)
    return getattr(importlib.import_module(f".{NAMES[name]}", __name__), name)
