"""config.json: what is read, what is refused and how, and that it is written back as it came."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from minibert import config, families
from minibert.errors import ConfigError

from .helpers import BERT, EVERY, RAW, ROBERTA, toy_config, within


def write(tmp_path, raw):
    path = tmp_path / "config.json"
    path.write_bytes(raw if isinstance(raw, bytes) else json.dumps(raw).encode())
    return path


def refused(raw) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(raw)
    return str(caught.value)


# --- what is read ---------------------------------------------------------------------------------


def test_every_size_is_read_by_its_published_name():
    found = toy_config()
    assert dataclasses.replace(found, raw={}) == config.EncoderConfig(
        "bert", 101, 24, 3, 4, 37, 53, 2, 1e-12, "gelu", 0.1, 0.1, 0, None, 0.02
    )
    assert found.head_width == 6


@pytest.mark.parametrize(("family", "offset", "longest"), [("bert", 0, 53), ("roberta", 2, 51)])
def test_positions_start_after_pad_in_robertas_line(family, offset, longest):
    assert (toy_config(family).position_offset, toy_config(family).max_tokens) == (offset, longest)


def test_the_published_roberta_holds_512_tokens():
    found = toy_config("roberta", max_position_embeddings=514)
    assert found.max_tokens == 512


def test_minilm(minilm):
    found = config.read(minilm / "config.json")
    assert (found.num_layers, found.hidden_width, found.num_heads, found.max_tokens) == (6, 384, 12, 512)
    assert found.labels == ()


def test_a_byte_order_mark_is_no_trouble(tmp_path):
    assert config.read(write(tmp_path, b"\xef\xbb\xbf" + json.dumps(BERT).encode())) == toy_config()


# --- what is written back -------------------------------------------------------------------------

STRANGE = {
    "auto_map": {"AutoModel": "evil.py--evil.Model"},
    "_attn_implementation_internal": "../../evil",
    "transformers_version": "4.8.2",
    "tokenizer_file": "https://example.org/x",
    "nested": {"a": [1, 2.5, None, True, "é", "\ud800"]},
}


@pytest.mark.parametrize("family", EVERY)
def test_a_file_comes_back_as_it_was(family):
    raw = {**RAW[family], **STRANGE, families.FAMILIES[family].keys["head_dropout"]: None}
    assert json.loads(config.parse(raw).to_json()) == raw


def test_unknown_keys_change_nothing():
    assert toy_config(**STRANGE) == toy_config()


def test_what_is_written_can_be_written_to_a_file(tmp_path):
    (tmp_path / "config.json").write_text(toy_config(**STRANGE).to_json(), encoding="utf-8")
    assert config.read(tmp_path / "config.json").raw["nested"] == STRANGE["nested"]


def test_values_and_extras_stand_over_the_file():
    found = dataclasses.replace(toy_config(num_labels=3), dropout=0.4)
    out = json.loads(found.to_json(problem_type="regression", num_labels=config.REMOVED))
    assert (
        out["hidden_dropout_prob"] == 0.4 and out["problem_type"] == "regression" and "num_labels" not in out
    )


def test_labels_stand_in_the_order_of_their_numbers():
    names = {str(i): f"c{i}" for i in reversed(range(12))}
    assert toy_config(id2label=names).labels == tuple(f"c{i}" for i in range(12))


@pytest.mark.parametrize("names", [{"0": "a", "2": "b"}, {"one": "a"}, {"00": "a"}])
def test_labels_without_their_numbers_are_refused(names):
    with pytest.raises(ConfigError, match="id2label"):
        _ = toy_config(id2label=names).labels


# --- faults B1 to B6 ------------------------------------------------------------------------------

NO_JSON = {
    "empty": b"",
    "cut off": b'{"model_type": "be',
    "no json": b"hidden_size = 24",
    "not utf-8": b'{"a": "\xff"}',
    "a list": b"[1]",
    "a number": b"3",
    "deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 5000 digits": b'{"a": ' + b"1" * 5000 + b"}",
    "large": b'{"a": "' + b"x" * 1_100_000 + b'"}',
}


@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_no_json_object_is_named(tmp_path, name):
    path = write(tmp_path, NO_JSON[name])
    with pytest.raises(ConfigError) as caught, within(5):
        config.read(path)
    assert str(path) in str(caught.value)


def test_broken_json_is_told_by_line_and_column(tmp_path):
    with pytest.raises(ConfigError, match=r"line 3, column 1"):
        config.read(write(tmp_path, b'{\n "model_type": "bert"\n"hidden_size": 3}'))


def test_a_missing_file_a_folder_and_a_pipe(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        config.read(tmp_path / "config.json")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match="no regular file"):
        config.read(tmp_path / "config.json")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ConfigError, match="no regular file"), within(5):
            config.read(tmp_path / "pipe")


NEEDED = [k for k in families.KEYS.values() if k not in ("classifier_dropout", "initializer_range")]


@pytest.mark.parametrize("key", NEEDED)
def test_no_architecture_key_has_a_default(key):
    raw = {k: v for k, v in BERT.items() if k != key}
    assert f"{key} is missing" in refused(raw)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "type_vocab_size"])
@pytest.mark.parametrize("value", ["12", 12.0, True, None, -1, 0, [12]])
def test_counts_are_whole_numbers_above_0(key, value):
    assert f"{key} = {value!r}" in refused({**BERT, key: value})


@pytest.mark.parametrize("key", ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"])
@pytest.mark.parametrize("value", ["0.1", 1.0, -0.1, float("nan"), True])
def test_dropout_is_a_share(key, value):
    assert f"{key} = {value!r}" in refused({**BERT, key: value})


@pytest.mark.parametrize("value", ["1e-12", 0, -1e-5, float("nan"), float("inf"), None])
def test_eps_is_above_0(value):
    assert "layer_norm_eps" in refused({**BERT, "layer_norm_eps": value})


UNSUPPORTED = {
    "hidden_act": ["gelu_fast", "quick_gelu", "silu", None, ["gelu"]],
    "position_embedding_type": ["relative_key", "relative_key_query", "rotary"],
    "is_decoder": [True],
    "add_cross_attention": [True],
    "chunk_size_feed_forward": [8],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in UNSUPPORTED.items() for v in values])
def test_other_arithmetic_is_refused_not_approximated(key, value):
    message = refused({**BERT, key: value})
    assert f"{key} = {value!r}" in message and "support" in message


@pytest.mark.parametrize("family", ["deberta", "xlnet", "BERT", None, 3, ["bert"], {"bert": 1}])
def test_other_families_are_named(family):
    message = refused({**BERT, "model_type": family})
    assert f"{family!r}" in message and "Supported: bert, roberta" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_attention_heads": 5}, "no multiple of num_attention_heads = 5"),
        ({"pad_token_id": 101}, "pad_token_id = 101"),
        ({"pad_token_id": -1}, "pad_token_id = -1"),
        ({"pad_token_id": None}, "pad_token_id = None"),
    ],
)
def test_values_that_do_not_go_together(changes, expected):
    assert expected in refused({**BERT, **changes})


# A family's own keys: what other values mean is not done, and said by name.
OTHERS = [
    ("mpnet", "relative_attention_num_buckets", 64),
    ("mpnet", "pad_token_id", 0),
    ("albert", "inner_group_num", 2),
    ("albert", "num_hidden_groups", 4),  # of 3 layers
    ("electra", "summary_type", "last"),
    ("modernbert", "attention_bias", True),
    ("modernbert", "norm_bias", True),
    ("modernbert", "local_attention", 0),
    ("modernbert", "layer_types", ["full_attention"] * 3),
    ("modernbert", "layer_types", ["full_attention"] * 3 + ["chunked_attention"]),
    ("modernbert", "global_rope_theta", None),
    ("modernbert", "rope_scaling", {"rope_type": "yarn"}),
    ("modernbert", "rope_parameters", {"full_attention": {"rope_type": "yarn", "rope_theta": 1.0}}),
    ("modernbert", "hidden_size", 28),  # a head of 7 has no pairs
    ("distilbert", "hidden_size", None),
]


@pytest.mark.parametrize(("family", "key", "value"), OTHERS, ids=str)
def test_what_a_family_asks_for_and_we_do_not_do(family, key, value):
    if key == "hidden_size" and value is None:
        message = refused({k: v for k, v in RAW[family].items() if k != "dim"})
        assert "dim is missing" in message
    else:
        message = refused({**RAW[family], key: value})
        assert {"global_rope_theta": "global_rope_theta", "rope_scaling": "rope_parameters"}.get(
            key, key
        ) in message


def test_modernberts_layers_in_todays_keys_and_in_the_published_ones():
    old = toy_config("modernbert")
    assert old.windows == (0, 3, 3, 0) and old.rotary == (160000.0, 1e4, 1e4, 160000.0)
    today = {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 77.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5.0},
        },
    }
    found = toy_config("modernbert", **today)
    assert found.windows == (3, 0, 3, 0) and found.rotary == (5.0, 77.0, 5.0, 77.0)


def test_a_roberta_needs_a_position_after_pad():
    assert "max_position_embeddings = 2" in refused({**ROBERTA, "max_position_embeddings": 2})
    assert toy_config("roberta", max_position_embeddings=3).max_tokens == 1


def test_all_problems_are_told_at_once():
    changes = {
        "vocab_size": "x",
        "hidden_size": 25,
        "hidden_dropout_prob": 2,
        "hidden_act": "mish",
        "is_decoder": True,
    }
    raw = {k: v for k, v in {**BERT, **changes}.items() if k != "layer_norm_eps"}
    message = refused(raw)
    for part in (*changes, "layer_norm_eps is missing", "no multiple of"):
        assert part in message
    assert len(message.splitlines()) == 1 + len(changes) + 1


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("bert", "pruned_heads", {"0": [1]}),
        ("bert", "quantization_config", {"bits": 4}),
        ("albert", "net_structure_type", 1),
        ("albert", "num_memory_blocks", 2),
        ("modernbert", "classifier_pooling", "max"),
    ],
)
def test_what_would_be_passed_over_is_refused(family, key, value):
    assert key in refused({**RAW[family], key: value})


@pytest.mark.parametrize("key", ["is_decoder", "position_embedding_type", "pruned_heads"])
def test_null_is_no_wish(key):
    assert toy_config(**{key: None}) == toy_config()
