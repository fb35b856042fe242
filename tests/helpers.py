"""Toy models, checkpoints and tokenizers on disk, and the table of tolerances.

The toy's sizes differ pairwise wherever a mix-up could hide: lengths 5, 11, 2; D=24, H=4 (K=6),
F=37, V=101, P=53, L=3, C=7. Published names are spelled out here again, apart from minibert/names.py,
so that a slip there is seen.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, BertWordPieceTokenizer, ByteLevelBPETokenizer, processors
from torch import Tensor

from minibert import config
from minibert.batch import PackedBatch, pack
from minibert.encoder import Encoder

LENGTHS = (5, 11, 2)
CLASSES = 7


class Tolerance(NamedTuple):
    """The largest absolute difference that passes, and why it is not smaller."""

    value: float
    why: str


TOLERANCES = {
    "hidden float32": Tolerance(2e-5, "another order of sums of up to thousands of products, in every block"),
    "hidden float64": Tolerance(1e-12, "the same, nine digits further down"),
    "rebuilt context": Tolerance(1e-5, "one product of probabilities and values, float32"),
    "rows of probabilities": Tolerance(
        1e-6, "a softmax of a few dozen float32 numbers sums to 1 within rounding"
    ),
    "logits float32": Tolerance(2e-5, "as hidden states, and one layer more"),
    "embedding": Tolerance(1e-5, "a mean of hidden states, of length 1"),
    "loss": Tolerance(1e-5, "a sum of a few dozen float32 terms"),
}


def close(a: Tensor, b: Tensor, name: str) -> None:
    """Assert that two tensors agree within the named tolerance; shapes must be equal."""
    assert a.shape == b.shape, (a.shape, b.shape)
    worst = float((a.detach().double() - b.detach().double()).abs().max()) if a.numel() else 0.0
    limit = TOLERANCES[name]
    assert worst <= limit.value, f"{worst:.2e} over {limit.value:g} ({name}: {limit.why})"


# --- configs and encoders -------------------------------------------------------------------------

BERT = {
    "model_type": "bert",
    "vocab_size": 101,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 53,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "pad_token_id": 0,
    "initializer_range": 0.02,
}
ROBERTA = {**BERT, "model_type": "roberta", "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
NARROW = {"embedding_size": 13}
RAW = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": {**ROBERTA, "model_type": "xlm-roberta"},
    "camembert": {**ROBERTA, "model_type": "camembert"},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": 101,
        "dim": 24,
        "n_layers": 3,
        "n_heads": 4,
        "hidden_dim": 37,
        "max_position_embeddings": 53,
        "activation": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "pad_token_id": 0,
        "initializer_range": 0.02,
    },
    "electra": {**BERT, **NARROW, "model_type": "electra"},
    "mpnet": {k: v for k, v in BERT.items() if k != "type_vocab_size"}
    | {"model_type": "mpnet", "relative_attention_num_buckets": 32, "pad_token_id": 1},
    "albert": {
        **BERT,
        **NARROW,
        "model_type": "albert",
        "num_hidden_groups": 2,
        "classifier_dropout_prob": 0.1,
    },
    "modernbert": {
        "model_type": "modernbert",
        "vocab_size": 101,
        "hidden_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "max_position_embeddings": 53,
        "norm_eps": 1e-5,
        "hidden_activation": "gelu",
        "embedding_dropout": 0.1,
        "attention_dropout": 0.1,
        "mlp_dropout": 0.1,
        "pad_token_id": 0,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "local_attention": 6,
        "initializer_range": 0.02,
    },
}
FAMILIES = ("bert", "roberta")  # whose published names and tokenizers are spelled out below
EVERY = tuple(RAW)


def toy_config(family: str = "bert", **changes: object) -> config.EncoderConfig:
    """A toy's config; changes go by their names in config.json."""
    return config.parse({**RAW[family], **changes})


def fill(module: torch.nn.Module, seed: int = 0) -> None:
    """Random weights large enough that every part matters: nothing is near 0 or near 1 by design."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.3)
            if "norm.weight" in name:
                p.add_(1)


def toy_encoder(
    family: str = "bert", kernel: str = "auto", dtype: torch.dtype = torch.float32, **changes: object
) -> Encoder:
    """A toy encoder with random weights, in eval mode."""
    encoder = Encoder(toy_config(family, **changes), kernel).to(dtype)
    fill(encoder)
    return encoder.eval()


def toy_ids(lengths: Sequence[int] = LENGTHS, vocab_size: int = 101, seed: int = 0) -> list[list[int]]:
    """Random token ids, one list a text."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, vocab_size, (n,), generator=generator).tolist() for n in lengths]


def toy_batch(lengths: Sequence[int] = LENGTHS, segments: bool = False, **options: object) -> PackedBatch:
    """A pack of random texts; with `segments` the second half of each is a second text."""
    marks = [[int(i >= n // 2) for i in range(n)] for n in lengths] if segments else None
    return pack(toy_ids(lengths), marks, **options)


# --- checkpoints in the published layout ----------------------------------------------------------

PUBLISHED = {
    "embeddings.word_embeddings.weight": "V D",
    "embeddings.position_embeddings.weight": "P D",
    "embeddings.token_type_embeddings.weight": "S D",
    "embeddings.LayerNorm.weight": "D",
    "embeddings.LayerNorm.bias": "D",
}
PUBLISHED_LAYER = {
    "attention.self.query": "D D",
    "attention.self.key": "D D",
    "attention.self.value": "D D",
    "attention.output.dense": "D D",
    "intermediate.dense": "F D",
    "output.dense": "D F",
}
PUBLISHED_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
PUBLISHED_HEADS = {
    "bert": {"classifier.weight": "C D", "classifier.bias": "C"},
    "roberta": {
        "classifier.dense.weight": "D D",
        "classifier.dense.bias": "D",
        "classifier.out_proj.weight": "C D",
        "classifier.out_proj.bias": "C",
    },
}
MLM = {
    "bert": {
        "cls.predictions.bias": "V",
        "cls.predictions.transform.dense.weight": "D D",
        "cls.predictions.decoder.weight": "V D",
        "cls.predictions.decoder.bias": "V",
    },
    "roberta": {"lm_head.bias": "V", "lm_head.dense.weight": "D D", "lm_head.decoder.weight": "V D"},
}


def published(
    family: str = "bert",
    *,
    head: int = 0,
    pooler: bool = True,
    mlm: bool = False,
    prefix: bool = True,
    seed: int = 0,
    **changes: object,
) -> dict[str, Tensor]:
    """A checkpoint's tensors under published names; `head`: classes of a classification head, 0 for none."""
    raw = {**RAW[family], **changes}
    letters = {"V": "vocab_size", "D": "hidden_size", "F": "intermediate_size", "S": "type_vocab_size"}
    size = {k: raw[v] for k, v in letters.items()} | {"P": raw["max_position_embeddings"], "C": head}
    base = dict(PUBLISHED)
    for i in range(raw["num_hidden_layers"]):
        for name, shape in PUBLISHED_LAYER.items():
            base[f"encoder.layer.{i}.{name}.weight"] = shape
            base[f"encoder.layer.{i}.{name}.bias"] = shape.split()[0]
        for name in PUBLISHED_NORMS:
            base |= {f"encoder.layer.{i}.{name}.weight": "D", f"encoder.layer.{i}.{name}.bias": "D"}
    if pooler and family == "bert":
        base |= {"pooler.dense.weight": "D D", "pooler.dense.bias": "D"}
    front = f"{family}." if prefix else ""
    shapes = {front + name: shape for name, shape in base.items()}
    shapes |= PUBLISHED_HEADS[family] if head else {}
    shapes |= MLM[family] if mlm else {}
    generator = torch.Generator().manual_seed(seed)
    out = {n: torch.randn([size[x] for x in s.split()], generator=generator) * 0.3 for n, s in shapes.items()}
    for name in out:
        if name.endswith("LayerNorm.weight"):
            out[name] += 1
    if mlm:  # tied, as every published file has them
        decoder = "cls.predictions" if family == "bert" else "lm_head"
        out[f"{decoder}.decoder.weight"] = out[f"{front}embeddings.word_embeddings.weight"].clone()
        if family == "bert":
            out["cls.predictions.decoder.bias"] = out["cls.predictions.bias"].clone()
    return out


ARCHITECTURE = {"bert": "Bert", "roberta": "Roberta"}


def write_checkpoint(
    folder: Path,
    family: str = "bert",
    *,
    head: int = 0,
    tensors: dict[str, Tensor] | None = None,
    shards: int = 0,
    config_keys: dict[str, object] | None = None,
    **options: object,
) -> Path:
    """A checkpoint folder: config.json and model.safetensors, or `shards` files and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    if tensors is None:
        tensors = published(family, head=head, **options)
    sizes = {k: v for k, v in options.items() if k in RAW[family]}
    kind = "ForSequenceClassification" if head else "Model"
    raw = {**RAW[family], **sizes, "architectures": [ARCHITECTURE[family] + kind]}
    if head:
        names = {str(i): f"LABEL_{i}" for i in range(head)}
        raw |= {"id2label": names, "label2id": {v: int(k) for k, v in names.items()}}
    (folder / "config.json").write_text(
        json.dumps({**raw, **(config_keys or {})}, indent=1), encoding="utf-8"
    )
    tensors = {n: t.contiguous() for n, t in tensors.items()}
    if not shards:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {n: tensors[n] for n in sorted(tensors)[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


# --- tokenizers -----------------------------------------------------------------------------------

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "dog",
    "ran",
    "fast",
    "un",
    "##able",
    "##s",
    "##ing",
    "##ed",
    "not",
    "is",
    "it",
    ".",
    ",",
    "!",
    "?",
    "'",
    "-",
    "[",
    "]",
    "1",
    "2",
    "3",
]
VOCAB = list(
    dict.fromkeys(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz"]
        + [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"]
    )
)
MERGES = [
    "t h",
    "th e",
    "Ġ the",
    "c a",
    "ca t",
    "Ġ cat",
    "Ġ s",
    "a t",
    "Ġs at",
    "o n",
    "Ġ on",
    "Ġ a",
    "n g",
    "i ng",
    "e d",
    "Ġ d",
    "o g",
    "Ġd og",
]
BPE_SIZE = 5 + 256 + len(MERGES)


def write_wordpiece(folder: Path, *, form: str = "vocab.txt", lower: bool = True) -> Path:
    """BERT's kind of tokenizer: as vocab.txt with tokenizer_config.json, or as tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"do_lower_case": lower, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if form == "vocab.txt":
        (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    else:
        vocab = {word: i for i, word in enumerate(VOCAB)}
        BertWordPieceTokenizer(vocab, lowercase=lower).save(str(folder / "tokenizer.json"))
    return folder


def write_bytepairs(folder: Path, *, form: str = "vocab.json") -> Path:
    """RoBERTa's kind of tokenizer: as vocab.json and merges.txt, or as tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(ByteLevelBPETokenizer()._tokenizer.pre_tokenizer.alphabet())
    merged = [m.replace(" ", "") for m in MERGES]
    vocab = {word: i for i, word in enumerate([*specials, *letters, *merged])}
    assert len(vocab) == BPE_SIZE
    if form == "vocab.json":
        (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
        return folder
    found = ByteLevelBPETokenizer(vocab, [tuple(m.split(" ")) for m in MERGES])
    found.add_special_tokens([AddedToken(s, lstrip=s == "<mask>") for s in specials])
    found.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    found.save(str(folder / "tokenizer.json"))
    return folder


def write_model(folder: Path, family: str = "bert", **options: object) -> Path:
    """A checkpoint with its tokenizer."""
    if family == "bert":
        write_wordpiece(folder)
        return write_checkpoint(folder, "bert", **options)
    write_bytepairs(folder)
    return write_checkpoint(folder, "roberta", vocab_size=BPE_SIZE, **options)


# --- time -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail what takes longer, also where it waits for ever for a pipe."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise AssertionError(f"not done after {seconds} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
