"""BERT's own text: embeddings, self-attention, feed-forward, block, encoder, from bottom to top.

In:  PackedBatch with token_ids, positions, segments (N,).
Out: hidden (N, D), one vector for each token.

The encoder runs on the N real tokens of a batch. Everything here works on each token alone, but
for one call in SelfAttention, where a kernel lets the tokens of one text look at one another.
BERT and RoBERTa are the same classes: what differs stands in EncoderConfig.
Letters as in batch.py. Read next: heads.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import kernels
from .batch import Layout, PackedBatch
from .config import EncoderConfig
from .errors import DataError
from .trace import Trace, record


class Embeddings(nn.Module):
    """What a token is, where it stands, and which of two texts it belongs to: summed, normalised.

    In:  batch, PackedBatch with N tokens
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_width)
        self.position = nn.Embedding(config.num_positions, config.hidden_width)
        self.segment = nn.Embedding(config.num_segments, config.hidden_width)
        self.norm = nn.LayerNorm(config.hidden_width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.position_offset = config.position_offset  # RoBERTa's positions start at pad + 1

    def forward(self, batch: PackedBatch) -> Tensor:
        """(N,) x 3 -> (N, D)."""
        summed = (
            self.word(batch.token_ids)
            + self.position(batch.positions + self.position_offset)
            + self.segment(batch.segments)
        )  # (N, D)
        return self.dropout(self.norm(summed))


class SelfAttention(nn.Module):
    """Each token asks (query), each answers (key), and the answers weigh what is passed on (value).

    In:  hidden (N, D)
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig, layer: int):
        super().__init__()
        D = config.hidden_width
        self.num_heads, self.head_width = config.num_heads, config.head_width
        self.query = nn.Linear(D, D)
        self.key = nn.Linear(D, D)
        self.value = nn.Linear(D, D)
        self.out = nn.Linear(D, D)
        self.probs_dropout = config.attention_dropout
        self.layer = layer
        self.kernel = "auto"

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (N, D). The only place where tokens meet."""
        q, k, v = (project(hidden).unflatten(-1, (self.num_heads, self.head_width))
                   for project in (self.query, self.key, self.value))  # each (N, H, K)  # fmt: skip
        # Functional kernels don't know train from eval: this line is the only one that tells them.
        dropout = kernels.Dropout(self.probs_dropout, (*layout.key, self.layer)) if self.drops else None
        context = kernels.attend(
            self.kernel, q, k, v, layout, scale=self.head_width**-0.5, dropout=dropout
        )  # (N, H, K)
        return self.out(context.flatten(1))  # (N, D)

    @property
    def drops(self) -> bool:
        """Whether attention probabilities are dropped: in training only."""
        return self.training and self.probs_dropout > 0


class FeedForward(nn.Module):
    """Two linear layers with a bend between them, on each token alone.

    In:  hidden (N, D)
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_width, config.ffn_width)
        self.down = nn.Linear(config.ffn_width, config.hidden_width)
        # "gelu" is x * Phi(x) by erf, as the published PyTorch weights expect; the tanh form
        # differs in the fourth digit.
        self.activation = {"gelu": F.gelu, "relu": F.relu}[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return self.down(self.activation(self.up(hidden)))  # (N, F) -> (N, D)


class Block(nn.Module):
    """Self-attention, then feed-forward; each added to what came in, then normalised.

    In:  hidden (N, D)
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig, layer: int):
        super().__init__()
        self.attn = SelfAttention(config, layer)
        self.attn_norm = nn.LayerNorm(config.hidden_width, eps=config.norm_eps)
        self.ffn = FeedForward(config)
        self.ffn_norm = nn.LayerNorm(config.hidden_width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (N, D)."""
        hidden = self.attn_norm(hidden + self.dropout(self.attn(hidden, layout)))
        return self.ffn_norm(hidden + self.dropout(self.ffn(hidden)))  # post-norm, as published


class Encoder(nn.Module):
    """Embeddings and L blocks.

    In:  batch, PackedBatch with N tokens
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig, kernel: str = "auto"):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_layers))
        self.use_kernel(kernel)

    def forward(self, batch: PackedBatch) -> Tensor:
        """(N,) tokens -> hidden (N, D)."""
        check_fits(batch, self.config)
        hidden = self.embeddings(batch)
        for block in self.layers:
            hidden = block(hidden, batch.layout)
        return hidden

    def trace(self, batch: PackedBatch) -> Trace:
        """A plain call, and every intermediate result of it by name (see trace.py)."""
        return record(self, batch)

    def use_kernel(self, name: str) -> None:
        """Compute attention with this kernel from now on; "auto" chooses at each call."""
        if name != "auto" and name not in kernels.KERNELS:
            kernels.choose(name)  # raises, and lists what there is
        for block in self.layers:
            block.attn.kernel = name


def check_fits(batch: PackedBatch, config: EncoderConfig) -> None:
    """Refuse what the tables don't hold. On a GPU a bad index kills the process; here it has a name."""
    token, segment = batch.largest
    longest = max(batch.layout.lengths[: batch.layout.num_texts], default=0)
    if longest > config.max_tokens:
        text = batch.layout.lengths.index(longest)
        raise DataError(
            f"text {text} of the batch has {longest} tokens, the model holds {config.max_tokens}",
            "Truncate it, or read it in windows.",
        )
    if token >= config.vocab_size:
        raise DataError(f"token id {token} is not below the vocabulary's size, {config.vocab_size}")
    if segment >= config.num_segments:
        raise DataError(
            f"segment {segment} is not below the number of segment types, {config.num_segments}",
            "RoBERTa tells two texts apart by separators only: pass no segments.",
        )


def initialise(module: nn.Module, std: float, seed: int) -> None:
    """New weights as BERT's: normal(0, std) for matrices, 0 for biases, 1 for LayerNorm's scale."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.Linear, nn.Embedding)):
                fresh = torch.empty(part.weight.shape, dtype=torch.float32)
                part.weight.copy_(fresh.normal_(0.0, std, generator=generator))
            if isinstance(part, nn.Linear):
                part.bias.zero_()
            if isinstance(part, nn.LayerNorm):
                part.weight.fill_(1.0)
                part.bias.zero_()
