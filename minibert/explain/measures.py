"""What is read off a trace: who gave how much to a sum, how looks add up, what becomes of a vector with depth.

In:  an Encoder, its Trace of one text.   Out: tensors.

A sum's parts are told by their length along the sum: part . sum / |sum|. So they add up to |sum|, and a part
that points the other way is negative.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoder import Block, Encoder
from ..trace import Trace

STRONGEST = 8  # units of a feed-forward that are told one by one


def head_parts(attn: nn.Module, context: Tensor, out: Tensor) -> Tensor:
    """How much each head, and last the bias, puts into what attention gives. (N, H, K), (N, D) -> (N, H + 1)."""
    along = F.normalize(out, dim=-1)  # (N, D)
    by_head = attn.out.weight.unflatten(1, (attn.num_heads, attn.head_width))  # (D, H, K)
    parts = torch.einsum("nhk,dhk,nd->nh", context, by_head, along)  # (N, H)
    return torch.cat([parts, bias_part(attn.out, along)[:, None]], -1)


def bias_part(layer: nn.Linear, along: Tensor) -> Tensor:
    """How much a layer's bias puts in, (N, D) -> (N,)."""
    return along @ layer.bias if layer.bias is not None else along.new_zeros(len(along))


def units(block: Block, up: Tensor, act: Tensor, out: Tensor) -> list[dict]:
    """For each token the feed-forward's strongest units, the others' sum and the bias: they add up to `length`."""
    along = F.normalize(out, dim=-1)  # (N, D)
    parts = act * (along @ block.ffn.down.weight)  # (N, F)
    best = parts.abs().topk(min(STRONGEST, parts.shape[-1]), -1).indices  # (N, 8)
    told = zip(best, parts, up, act, bias_part(block.ffn.down, along), out.norm(dim=-1))
    return [
        {
            "top": [[int(u), float(z[u]), float(y[u]), float(part[u])] for u in few],
            "rest": float(part.sum() - part[few].sum()),
            "bias": float(bias),
            "length": float(length),
        }
        for few, part, z, y, bias, length in told
    ]


def rollout(probs: list[Tensor]) -> list[Tensor]:
    """Attention rollout (Abnar and Zuidema 2020) after each layer: (H, N, N) each -> (N, N) each, rows sum to 1.

    Whose input a token's vector may hold, if heads count alike and the residual half: no more than that.
    """
    out, seen = [], torch.eye(probs[0].shape[-1]) if probs else None
    for each in probs:
        seen = (each.mean(0).cpu() + torch.eye(each.shape[-1])) / 2 @ seen  # (N, N)
        out.append(seen)
    return out


def stages(encoder: Encoder, trace: Trace) -> Tensor:
    """Every token's vector after the embeddings and after each block, (L + 1, N, D)."""
    first = trace.get("embeddings.projected", trace["embeddings.normed"])
    last = "out" if encoder.config.facts.pre_norm else "ffn_normed"
    return torch.stack([first, *(trace[f"layers.{i}.{last}"] for i in range(encoder.config.num_layers))])


def depth(found: Tensor) -> dict[str, Tensor]:
    """(L + 1, N, D) -> norm (L + 1, N), turn (L + 1, N), same (N, L + 1, L + 1): lengths, and cosines with the
    stage before and between all stages."""
    unit = F.normalize(found, dim=-1)
    turn = torch.cat([torch.ones_like(unit[:1, :, 0]), (unit[1:] * unit[:-1]).sum(-1)])
    return {"norm": found.norm(dim=-1), "turn": turn, "same": torch.einsum("ind,jnd->nij", unit, unit)}
