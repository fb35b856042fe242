"""BERT's own text: embeddings, self-attention, feed-forward, block, encoder, from bottom to top.

In:  PackedBatch with token_ids, positions, segments (N,).
Out: hidden (N, D), one vector for each token.

The encoder runs on the N real tokens of a batch. Everything here works on each token alone, but
for one call in SelfAttention, where a kernel lets the tokens of one text look at one another.
All families are these classes: what differs stands in EncoderConfig, and the parts that only
others have in variants.py; for BERT itself each of their lines does nothing.
Letters as in batch.py. Read next: heads.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import kernels
from .batch import Layout, PackedBatch
from .config import EncoderConfig
from .dropout import ATTENTION, EMBEDDINGS, FEED_FORWARD, Dropout
from .errors import DataError
from .trace import Trace, record
from .variants import ACTIVATIONS, DistanceBias, GatedFeedForward, rotate


class Embeddings(nn.Module):
    """What a token is, where it stands, and which of two texts it belongs to: summed, normalised.

    In:  batch, PackedBatch with N tokens
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        E, D = config.words_width, config.hidden_width  # E = D but in ELECTRA and ALBERT
        self.word = nn.Embedding(config.vocab_size, E)
        self.position = nn.Embedding(config.num_positions, E) if not config.rotary else None
        self.segment = nn.Embedding(config.num_segments, E) if config.num_segments else None
        self.norm = nn.LayerNorm(E, eps=config.norm_eps, bias=config.facts.biases)
        self.dropout = Dropout(config.dropout, EMBEDDINGS)
        self.project = nn.Linear(E, D) if config.projected else None
        self.position_offset = config.position_offset  # RoBERTa's positions start at pad + 1

    def forward(self, batch: PackedBatch) -> Tensor:
        """(N,) x 3 -> (N, D)."""
        summed = self.word(batch.token_ids)  # (N, E)
        if self.position is not None:
            summed = summed + self.position(batch.positions + self.position_offset)
        if self.segment is not None:
            summed = summed + self.segment(batch.segments)
        normed = self.dropout(self.norm(summed), batch.layout)
        return normed if self.project is None else self.project(normed)  # (N, D)


class SelfAttention(nn.Module):
    """Each token asks (query), each answers (key), and the answers weigh what is passed on (value).

    In:  hidden (N, D)
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig, layer: int, distance: DistanceBias | None = None):
        super().__init__()
        D, bias = config.hidden_width, config.facts.biases
        self.num_heads, self.head_width = config.num_heads, config.head_width
        self.query = nn.Linear(D, D, bias=bias)
        self.key = nn.Linear(D, D, bias=bias)
        self.value = nn.Linear(D, D, bias=bias)
        self.out = nn.Linear(D, D, bias=bias)
        self.probs_dropout = config.attention_dropout
        self.kernel = "auto"
        # Of other families; None in BERT.
        reach = config.windows[layer] if config.windows else 0
        self.window = (reach, reach) if reach else None
        self.rotary = config.rotary[layer] if config.rotary else None
        self.distance = (distance,) if distance else ()  # in a tuple, because it is the encoder's parameter

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (N, D)."""
        q, k, v = (project(hidden).unflatten(-1, (self.num_heads, self.head_width))
                   for project in (self.query, self.key, self.value))  # each (N, H, K)  # fmt: skip
        return self.out(self.meet(q, k, v, layout).flatten(1))  # (N, D)

    def meet(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """(N, H, K) x 3 -> (N, H, K). The only place where tokens meet."""
        if self.rotary:
            q, k = rotate(q, layout, self.rotary), rotate(k, layout, self.rotary)
        # Functional kernels don't know train from eval: this line is the only one that tells them.
        dropout = kernels.Dropout(self.probs_dropout, (*layout.key, layout.layer)) if self.drops else None
        return kernels.attend(
            self.kernel, q, k, v, layout, scale=self.head_width**-0.5,
            dropout=dropout, window=self.window, bias=self.bias(layout),
        )  # (N, H, K)  # fmt: skip

    def bias(self, layout: Layout) -> Tensor | None:
        """(H, 2T - 1) by distance, or None."""
        return self.distance[0](layout.max_seqlen) if self.distance else None

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
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return self.down(self.activation(self.up(hidden)))  # (N, F) -> (N, D)


class Block(nn.Module):
    """Self-attention, then feed-forward; each added to what came in, then normalised.

    In:  hidden (N, D)
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig, layer: int, distance: DistanceBias | None = None):
        super().__init__()
        D, eps, facts = config.hidden_width, config.norm_eps, config.facts
        self.attn = SelfAttention(config, layer, distance)
        self.attn_norm = nn.LayerNorm(D, eps=eps, bias=facts.biases)
        self.ffn = GatedFeedForward(config) if facts.gated else FeedForward(config)
        self.ffn_norm = nn.LayerNorm(D, eps=eps, bias=facts.biases)
        attn_share, ffn_share = config.added_dropout
        self.attn_dropout = Dropout(attn_share, ATTENTION)
        self.ffn_dropout = Dropout(ffn_share, FEED_FORWARD)
        self.pre_norm = facts.pre_norm
        if self.pre_norm and layer == 0:  # the embeddings are normalised already
            self.attn_norm = nn.Identity()

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (N, D)."""
        if self.pre_norm:  # ModernBERT: the sum itself is never normalised
            hidden = hidden + self.attn_dropout(self.attn(self.attn_norm(hidden), layout), layout)
            return hidden + self.ffn_dropout(self.ffn(self.ffn_norm(hidden)), layout)
        hidden = self.attn_norm(hidden + self.attn_dropout(self.attn(hidden, layout), layout))
        # post-norm, as published
        return self.ffn_norm(hidden + self.ffn_dropout(self.ffn(hidden), layout))


class Encoder(nn.Module):
    """Embeddings and L blocks.

    In:  batch, PackedBatch with N tokens
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig, kernel: str = "auto"):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.distance = DistanceBias(config) if config.relative_buckets else None
        self.layers = nn.ModuleList(Block(config, i, self.distance) for i in range(config.blocks))
        self.final_norm = None
        if config.facts.pre_norm:
            self.final_norm = nn.LayerNorm(config.hidden_width, eps=config.norm_eps, bias=config.facts.biases)
        self.use_kernel(kernel)

    def forward(self, batch: PackedBatch) -> Tensor:
        """(N,) tokens -> hidden (N, D)."""
        check_fits(batch, self.config)
        hidden = self.embeddings(batch)
        for i, block in enumerate(self.walk()):
            hidden = block(hidden, batch.layout.at(i))
        return hidden if self.final_norm is None else self.final_norm(hidden)

    def walk(self) -> list[Block]:
        """The block of each of the L layers: each its own, but in ALBERT, where layers share."""
        L, blocks = self.config.num_layers, self.config.blocks
        return [self.layers[i * blocks // L] for i in range(L)]

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
    if segment >= max(config.num_segments, 1):
        raise DataError(
            f"segment {segment} is not below the number of segment types, {config.num_segments}",
            "This family tells two texts apart by separators only: pass no segments.",
        )


def initialise(module: nn.Module, std: float, seed: int) -> None:
    """New weights as BERT's: normal(0, std) for matrices, 0 for biases, 1 for LayerNorm's scale."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.Linear, nn.Embedding)) and not part.weight.is_meta:  # meta: tied later
                fresh = torch.empty(part.weight.shape, dtype=torch.float32)
                part.weight.copy_(fresh.normal_(0.0, std, generator=generator))
            if isinstance(part, nn.LayerNorm):
                part.weight.fill_(1.0)
            if isinstance(part, (nn.Linear, nn.LayerNorm)) and part.bias is not None:
                part.bias.zero_()
