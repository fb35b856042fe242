"""A text's hidden states are the same alone, in any pack, in any order, with any kernel; and they are BERT's."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

import minibert
from minibert.batch import pack, unpack
from minibert.config import parse
from minibert.encoder import Encoder, initialise
from minibert.errors import ConfigError, DataError
from minibert.variants import DistanceBias, rotate

from .helpers import (
    BERT,
    EVERY,
    FAMILIES,
    RAW,
    close,
    fill,
    published,
    toy_batch,
    toy_encoder,
    toy_ids,
    write_checkpoint,
)

KERNELS = ("reference", "sdpa", "padded")
float64 = torch.float64

# --- against the definition -----------------------------------------------------------------------


def layer_norm(x, t, name, eps):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * t[f"{name}.weight"] + t[f"{name}.bias"]


def linear(x, t, name):
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def by_hand(t, raw, ids, marks):
    """One text through BERT as its paper and its published names say it, in float64; ids (n,) -> (n, D)."""
    eps, heads = raw["layer_norm_eps"], raw["num_attention_heads"]
    first = raw["pad_token_id"] + 1 if raw["model_type"] == "roberta" else 0
    x = t["embeddings.word_embeddings.weight"][ids]
    x = x + t["embeddings.position_embeddings.weight"][first : first + len(ids)]
    x = layer_norm(x + t["embeddings.token_type_embeddings.weight"][marks], t, "embeddings.LayerNorm", eps)
    for i in range(raw["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        q, k, v = (
            linear(x, t, f"{at}.attention.self.{w}").chunk(heads, -1) for w in ("query", "key", "value")
        )
        looks = [torch.softmax(a @ b.T / math.sqrt(a.shape[-1]), -1) @ c for a, b, c in zip(q, k, v)]
        added = linear(torch.cat(looks, -1), t, f"{at}.attention.output.dense")
        x = layer_norm(x + added, t, f"{at}.attention.output.LayerNorm", eps)
        up = linear(x, t, f"{at}.intermediate.dense")
        bent = up * 0.5 * (1 + torch.erf(up / math.sqrt(2)))
        x = layer_norm(x + linear(bent, t, f"{at}.output.dense"), t, f"{at}.output.LayerNorm", eps)
    return x


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_published_names_give_the_papers_numbers(tmp_path, family, kernel):
    tensors = published(family)
    model = minibert.load(
        write_checkpoint(tmp_path, family, tensors=tensors), head=None, dtype="float64", kernel=kernel
    )
    ids = toy_ids((5, 11, 2, 51))
    marks = [[i % RAW[family]["type_vocab_size"] for i in range(len(x))] for x in ids]
    hidden = model(pack(ids, marks))
    plain = {name.removeprefix(f"{family}."): x.double() for name, x in tensors.items()}
    for text, mark, ours in zip(ids, marks, unpack(hidden, pack(ids).layout)):
        close(ours.detach(), by_hand(plain, RAW[family], text, mark), "hidden float64")


# --- the same in any company ----------------------------------------------------------------------


def alone(encoder, ids):
    """Each text's hidden states in a pack of its own, by the textbook kernel."""
    encoder.use_kernel("reference")
    with torch.no_grad():
        return [encoder(pack([text])) for text in ids]


def together(encoder, ids, kernel, order, fill_to=None):
    """Each text's hidden states in one pack in some order, put back in the texts' own."""
    encoder.use_kernel(kernel)
    batch = pack([ids[i] for i in order], fill_to=fill_to)
    with torch.no_grad():
        found = unpack(encoder(batch), batch.layout)
    assert len(found) == len(order)
    return [found[order.index(i)] for i in range(len(ids))]


ENCODERS = {family: toy_encoder(family, dtype=float64) for family in EVERY}


@given(
    st.lists(st.integers(1, 12), max_size=6),
    st.sampled_from(KERNELS),
    st.sampled_from(EVERY),
    st.randoms(use_true_random=False),
    st.none() | st.integers(0, 9),
)
@settings(max_examples=160, deadline=None)
def test_any_pack_any_order_any_kernel(lengths, kernel, family, chance, filler):
    """Lengths from none at all over a single token to ties; with and without filler behind them."""
    encoder, ids = ENCODERS[family], toy_ids(lengths)
    order = list(range(len(ids)))
    chance.shuffle(order)
    fill_to = None if filler is None else sum(lengths) + filler
    for ours, expected in zip(
        together(encoder, ids, kernel, order, fill_to), alone(encoder, ids), strict=True
    ):
        close(ours, expected, "hidden float64")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", EVERY)
def test_no_texts_and_one_text(family, kernel):
    encoder = toy_encoder(family, kernel)
    assert encoder(pack([])).shape == (0, 24)
    assert encoder(pack([[7]])).shape == (1, 24)


def test_minilm_reads_real_texts_alike_in_any_company(minilm, real_texts):
    """Real weights, real texts of 3 to 200 tokens, float32."""
    model = minibert.load(minilm, head=None, device="cpu")
    ids = model.tokenize(real_texts[:16], max_tokens=200).ids
    assert len({len(x) for x in ids}) > 10
    expected, tokens = alone(model.encoder, ids), sum(map(len, ids))
    for kernel in KERNELS:
        order = random.Random(kernel).sample(range(16), 16)
        for ours, right in zip(
            together(model.encoder, ids, kernel, order, tokens + 9), expected, strict=True
        ):
            close(ours, right, "hidden float32")


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_of_a_pack_are_the_sum_of_those_alone(kernel):
    encoder, ids = toy_encoder(kernel=kernel, dtype=float64), toy_ids()
    weights = [torch.randn(len(x), 24, dtype=float64) for x in ids]
    parameters = list(encoder.parameters())

    def gradients(texts, wanted):
        return torch.autograd.grad((encoder(pack(texts)) * torch.cat(wanted)).sum(), parameters)

    whole = gradients(ids, weights)
    parts = [gradients([x], [w]) for x, w in zip(ids, weights)]
    for parameter in zip(whole, *parts):
        assert (parameter[0] - sum(parameter[1:])).abs().max() < 1e-10


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_those_of_finite_differences(kernel):
    """gradcheck in float64: every parameter of a tiny encoder."""
    sizes = {"vocab_size": 7, "hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = parse({**BERT, **sizes, "intermediate_size": 5, "max_position_embeddings": 4})
    encoder = Encoder(config, kernel).double().eval()
    fill(encoder)
    names = [name for name, _ in encoder.named_parameters()]
    batch = pack([[3, 1, 6], [2]], [[0, 1, 1], [0]])
    values = tuple(p.detach().clone().requires_grad_() for p in encoder.parameters())
    assert torch.autograd.gradcheck(
        lambda *new: functional_call(encoder, dict(zip(names, new)), (batch,)), values, fast_mode=False
    )


# --- train and eval -------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_dropout_in_training_only(kernel):
    """Eval with dropout in the config is bitwise a model without any; training draws anew each time."""
    encoder, plain = toy_encoder(kernel=kernel), toy_encoder(kernel=kernel, hidden_dropout_prob=0.0)
    batch = toy_batch()
    assert torch.equal(encoder(batch), plain(batch)) and torch.equal(encoder(batch), encoder(batch))
    encoder.train()
    assert not torch.equal(encoder(batch), encoder(batch))


@pytest.mark.parametrize("kernel", KERNELS)
def test_attention_dropout_alone_in_training_only(kernel):
    encoder = toy_encoder(kernel=kernel, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    plain = toy_encoder(kernel=kernel, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    batch = toy_batch()
    assert torch.equal(encoder(batch), plain(batch))
    encoder.train(), plain.train()
    assert not torch.equal(encoder(batch), encoder(batch))
    assert torch.equal(plain(batch), plain(batch))


def test_dropout_by_counter_follows_seed_step_layer_and_row():
    """In training with attention dropout alone: a text loses the same alone and in any pack of the step."""
    encoder = toy_encoder(
        kernel="tiled", dtype=float64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5
    ).train()
    ids, rows = toy_ids(), (4, 9, 2)

    def hidden(order, key=(1, 2), shift=0):
        batch = pack([ids[i] for i in order], rows=[rows[i] + shift for i in order], key=key)
        return dict(zip(order, unpack(encoder(batch), batch.layout)))

    first = hidden((0, 1, 2))
    for i, apart in hidden((2, 0, 1)).items():
        assert (apart - first[i]).abs().max() < 1e-12 and (hidden((i,))[i] - first[i]).abs().max() < 1e-12
    for other in (hidden((0,), key=(1, 3)), hidden((0,), key=(2, 2)), hidden((0,), shift=1)):
        assert (other[0] - first[0]).abs().max() > 1e-3
    x, layout = torch.randn(len(ids[0]), 24, dtype=float64), pack([ids[0]], key=(1, 2)).layout
    drops = [encoder.layers[0].attn(x, layout.at(layer)) for layer in (0, 1)]
    assert not torch.equal(*drops), "each layer draws its own"


@pytest.mark.parametrize("dtype", [torch.float32, float64], ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_training_with_dropout_reaches_every_parameter(family, kernel, dtype):
    encoder = toy_encoder(family, kernel, dtype).train()
    (encoder(toy_batch(fill_to=20)) ** 2).sum().backward()
    for name, p in encoder.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        assert p.grad.any(), name


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "batch", "message"),
    [
        ("bert", pack([[1] * 3, [1] * 54]), "text 1 of the batch has 54 tokens, the model holds 53"),
        ("roberta", pack([[2] * 52]), "text 0 of the batch has 52 tokens, the model holds 51"),
        ("bert", pack([[5, 101]]), "token id 101 is not below the vocabulary's size, 101"),
        ("bert", pack([[5, 6]], [[0, 2]]), "segment 2 is not below"),
        ("roberta", pack([[5, 6]], [[0, 1]]), "tells two texts apart by separators"),
    ],
)
def test_what_the_tables_do_not_hold_is_refused(family, batch, message):
    with pytest.raises(DataError, match=message):
        toy_encoder(family)(batch)


def test_the_longest_text_fits_and_filler_may_be_longer():
    assert toy_encoder("bert")(pack([[1] * 53], fill_to=200)).shape == (200, 24)
    assert toy_encoder("roberta")(pack([[2] * 51])).shape == (51, 24)


def test_a_kernel_that_is_not_there_is_refused_at_once():
    with pytest.raises(ConfigError, match="none of that name"):
        toy_encoder(kernel="flash")


def test_a_kernel_that_can_not_train_is_refused_when_training(monkeypatch):
    from minibert import kernels

    monkeypatch.setattr(kernels, "KERNELS", dict(kernels.KERNELS))
    monkeypatch.setattr(kernels, "choose_cached", {})
    only_eval = {"devices": ("cpu",), "dtypes": kernels.FLOATS, "dropout": "", "gradients": False}
    kernels.register("mine", **only_eval)(kernels.KERNELS["reference"].fn)
    encoder, batch = toy_encoder(kernel="mine"), toy_batch()
    with torch.no_grad():
        assert torch.equal(encoder(batch), toy_encoder(kernel="reference")(batch))
        with pytest.raises(ConfigError, match="has no dropout.*\n.*sdpa"):
            encoder.train()(batch)
    with pytest.raises(ConfigError, match="has no gradients.*\n.*sdpa"):
        encoder.eval()(batch)


# --- numbers far out ------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_large_scores_do_not_overflow(kernel):
    """Queries a thousand times too large: softmax becomes a choice, and nothing becomes NaN."""
    encoder = toy_encoder(kernel=kernel)
    with torch.no_grad():
        for block in encoder.layers:
            block.attn.query.weight.mul_(1e3)
            block.attn.key.weight.mul_(1e3)
        assert torch.isfinite(encoder(toy_batch())).all()


@pytest.mark.parametrize("kernel", ["reference", "padded", "sdpa", "tiled"])
def test_large_numbers_stay_finite_under_autocast(kernel):
    """Word vectors ten thousand times too large, scores too: norms and softmax sum in float32. The kernels that
    make their scores in it as well are as near to float64 as bfloat16's eight bits allow."""
    encoder, batch = toy_encoder(kernel=kernel), toy_batch()
    with torch.no_grad():
        encoder.embeddings.word.weight.mul_(1e4)
        for block in encoder.layers:
            block.attn.query.weight.mul_(100)
            block.attn.key.weight.mul_(100)
        exact = toy_encoder(kernel="reference", dtype=torch.float64)
        exact.load_state_dict(encoder.state_dict())
        wanted = exact(batch)
        with torch.autocast("cpu", torch.bfloat16):
            found = encoder(batch)
    assert torch.isfinite(found).all()
    if kernel in ("padded", "sdpa"):
        assert (found - wanted).abs().max() < 0.1


# --- new weights ----------------------------------------------------------------------------------


def test_new_weights_are_berts_and_follow_the_seed():
    module = nn.Sequential(nn.Linear(200, 300), nn.Embedding(100, 50), nn.LayerNorm(50))
    initialise(module, 0.02, 3)
    for p in (module[0].weight.detach(), module[1].weight.detach()):
        assert abs(float(p.std(correction=1)) - 0.02) < 5e-4 and abs(float(p.mean())) < 1e-3
    assert not module[0].bias.any() and not module[2].bias.any() and (module[2].weight == 1).all()
    first = module[0].weight.detach().clone()
    torch.manual_seed(99)
    initialise(module, 0.02, 3)
    assert torch.equal(module[0].weight, first), "it follows its seed and not torch's state"
    initialise(module, 0.02, 4)
    assert not torch.equal(module[0].weight, first)


# --- what other families change -------------------------------------------------------------------


def test_alberts_layers_are_one_block_and_learn_together():
    """Two blocks for three layers here: the first is walked twice, and its gradient is the sum of both."""
    encoder = toy_encoder("albert", dtype=float64)
    assert [list(encoder.layers).index(block) for block in encoder.walk()] == [0, 0, 1]
    batch = toy_batch()
    encoder(batch).square().sum().backward()
    shared = encoder.layers[0].ffn.up.weight.grad.clone()
    apart = toy_encoder("albert", dtype=float64, num_hidden_groups=3)
    for mine, theirs in zip(apart.layers, encoder.walk()):
        mine.load_state_dict(theirs.state_dict())
    apart.embeddings.load_state_dict(encoder.embeddings.state_dict())
    apart(batch).square().sum().backward()
    close(shared, apart.layers[0].ffn.up.weight.grad + apart.layers[1].ffn.up.weight.grad, "hidden float64")


def test_a_window_hides_what_stands_farther_off():
    """A token's first local layer does not move when a token beyond its reach is another one."""
    encoder = toy_encoder("modernbert", dtype=float64, num_hidden_layers=2, global_attn_every_n_layers=1)
    local = toy_encoder("modernbert", dtype=float64, layer_types=["sliding_attention"] * 4)
    ids = toy_ids((20,))[0]
    other = [*ids[:-1], (ids[-1] + 1 - 2) % 99 + 2]
    for model, moves in ((encoder, True), (local, False)):
        a, b = (model(pack([x])) for x in (ids, other))
        assert (not torch.equal(a[0], b[0])) == moves, "four layers of reach 3 see 12 tokens, not 19"
        assert not torch.equal(a[-1], b[-1])


def test_rotary_scores_depend_on_the_distance_alone():
    """The same two words, shifted by any number of places, look at each other alike."""
    layout = pack([[1] * 30]).layout
    q, k = torch.randn(2, 4, 6, dtype=float64)
    turned = [rotate(x.expand(30, 4, 6), layout, 10000.0) for x in (q, k)]
    product = torch.einsum("ihk,jhk->hij", *turned)
    for shift in (0, 3, -7):
        line = product.diagonal(shift, 1, 2)
        assert (line - line[:, :1]).abs().max() < 1e-5  # angles are float32, as published
    assert (product[:, 0, 0] - product[:, 0, 3]).abs().max() > 1e-3


def test_distances_fall_into_their_buckets():
    """By hand: 0..7 have one each, 8..15 share in octaves up to 128, what stands ahead has the other half."""
    bias = DistanceBias(parse(RAW["mpnet"]))
    with torch.no_grad():
        bias.weight.copy_(torch.arange(32.0)[:, None].expand(32, 4))
    line = bias(300)[0].tolist()
    middle = 299
    assert line[middle] == 0 and line[middle - 7] == 7 and line[middle - 8] == 8
    assert line[middle + 1] == 17 and line[middle + 7] == 23
    assert line[middle - 127] == 15 and line[middle - 299] == 15 and line[middle + 299] == 31
    by_hand = [8 + int(math.log(n / 8) / math.log(16) * 8) for n in range(8, 128)]
    assert [line[middle - n] for n in range(8, 128)] == by_hand


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert"])
def test_a_batch_that_was_predicted_can_be_learnt_from(family, kernel):
    """What a layout keeps from inference mode is used by the backward pass afterwards."""
    encoder, batch = toy_encoder(family, kernel), toy_batch((5, 11, 5))
    with torch.inference_mode():
        before = encoder(batch)
    after = encoder(batch)
    after.sum().backward()
    close(after.detach(), before, "hidden float32")  # a bias that learns takes another of torch's paths
