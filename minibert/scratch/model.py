"""Twin: a config, parameters by name and a kind of head; and published weights into it.

In:  a folder with config.json and model.safetensors.   Out: Twin, in float32 or float64.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from .. import config as configs
from ..errors import ConfigError, WeightsError
from ..families import reads
from ..names import ALIASES, NAMES, Row
from . import encoder
from .encoder import Pack, Trace
from .heads import HEADS
from .layers import Array, Parameters

BERT = NAMES["bert"]
TIED = "cls.predictions.decoder.weight"  # the word table itself, read backwards


@dataclass
class Twin:
    """An encoder with a head: a key of HEADS, or "" for none."""

    config: configs.EncoderConfig
    head: str
    params: Parameters

    def forward(self, pack: Pack) -> Trace:
        """Every intermediate result by name, with "logits" where there is a head."""
        trace = encoder.forward(self.params, self.config, pack)
        hidden = encoder.before(trace, self.config.num_layers)  # (N, D)
        if self.head:
            HEADS[self.head][0](self.params, self.config.norm_eps, pack, trace, hidden)
        return trace

    def gradients(self, pack: Pack, targets: Array) -> tuple[float, int, dict[str, Array]]:
        """The loss's sum, its count, and the sum's derivative by every parameter."""
        self.params.grads, trace = defaultdict(float), self.forward(pack)
        hidden = encoder.before(trace, self.config.num_layers)  # (N, D)
        _, head_backward, loss = HEADS[self.head]
        total, count, dlogits = loss(trace["logits"], targets)
        dhidden = head_backward(self.params, self.config.norm_eps, pack, trace, hidden, dlogits)  # (N, D)
        encoder.backward(self.params, self.config, pack, trace, dhidden)
        return total, count, self.params.grads


def load(folder: Path, head: str = "", outputs: int = 0, seed: int = 0, dtype: type = np.float32) -> Twin:
    """Read of a checkpoint what the twin needs; with `outputs` the head's last layer is new, drawn with `seed`.

    ConfigError for what the twin does not compute; WeightsError for what is no safetensors file, or lists every
    tensor that is missing or misshapen.
    """
    config, path = configs.read(Path(folder, "config.json")), Path(folder, "model.safetensors")
    raw, known = config.raw, config.family == "bert" and config.activation == "gelu" and head in ("", *HEADS)
    known &= config.tied and raw.get("minibert", {}).get("pooling", "cls") == "cls"  # what else a head may be
    known &= "multi" not in str(raw.get("problem_type"))
    if not known or (outputs and head in ("", "mlm")):
        wish = f"{config.family} with {config.activation} and head {head!r}"
        raise ConfigError(f"the twin has no {wish}", f"It has bert with gelu, head {', '.join(HEADS)} or ''.")
    each = [(row, i) for i in range(config.num_layers) for row in BERT.layer]
    rows = BERT.encoder + [Row(row.ours.format(i), row.theirs.format(i), row.shape) for row, i in each]
    own = BERT.heads[reads(head)] if head else []
    rows += [row for row in own if row.theirs != TIED and not (outputs and row.ours.startswith("out."))]
    arrays, sizes, faults = {}, dict(config.sizes), []
    try:
        with safe_open(path, framework="numpy") as file:
            stored = {plain(name): name for name in file.keys()}  # noqa: SIM118
            for row in rows:
                name, letters = row.theirs.removeprefix("@"), row.shape.split()
                found = file.get_tensor(stored[name]) if name in stored else np.zeros(())
                wanted = tuple(sizes.setdefault(x, n) for x, n in zip(letters, found.shape))
                if found.shape != wanted or len(letters) != found.ndim or not np.isfinite(found).all():
                    faults.append(f"{name}: {found.shape or 'missing'}, not {row.shape}, or not finite")
                arrays[row.ours] = found.astype(dtype)
    except (SafetensorError, OSError, TypeError) as problem:  # TypeError: bfloat16 is no type of NumPy's
        raise WeightsError(f"{path} can't be read: {problem}", "The twin reads one whole file.") from None
    if faults:
        raise WeightsError(f"{path}:\n  " + "\n  ".join(faults), "outputs=... makes a new last layer.")
    if outputs:
        drawn = np.random.default_rng(seed).normal(0, config.init_std, (outputs, config.hidden_width))
        arrays |= {"out.weight": drawn.astype(dtype), "out.bias": np.zeros(outputs, dtype)}
    return Twin(config, head, Parameters(arrays))


def plain(name: str) -> str:
    """A name without "bert.", with LayerNorm's words of today."""
    for old, new in ALIASES.items():
        name = name.replace(old, new)
    return name.removeprefix(BERT.prefix)
