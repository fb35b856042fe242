"""What sentence-transformers' files ask for: the pooling, the longest text, and what is refused."""

from __future__ import annotations

import json

import pytest

from minibert import sentence
from minibert.errors import ConfigError

STEP = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}


def steps(*kinds, **paths):
    return [
        {
            "idx": i,
            "name": str(i),
            "path": paths.get(k, STEP.get(k, "x")),
            "type": f"sentence_transformers.models.{k}",
        }
        for i, k in enumerate(kinds)
    ]


def write(folder, modules, pooling=None, longest=None):
    raw = modules if isinstance(modules, bytes) else json.dumps(modules).encode()
    (folder / "modules.json").write_bytes(raw)
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if longest is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps(longest))
    return folder


OLD = {
    "word_embedding_dimension": 384,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
}


def test_minilm(minilm):
    files, embedder, longest = sentence.read(minilm)
    assert embedder.pooling == ("mean",) and embedder.normalise and longest == {"max_tokens": 256}
    assert set(files) == {
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    }
    assert all((minilm / name).read_bytes() == raw for name, raw in files.items())


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (OLD, ("mean",)),
        ({**OLD, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, ("cls",)),
        (
            {**OLD, "pooling_mode_lasttoken": True, "pooling_mode_max_tokens": True},
            ("max", "mean", "lasttoken"),
        ),
        ({"pooling_mode": "mean"}, ("mean",)),
        ({"pooling_mode": ["cls"]}, ("cls",)),
        (
            {"pooling_mode": ["weightedmean", "mean_sqrt_len_tokens"]},
            ("weightedmean", "mean_sqrt_len_tokens"),
        ),
    ],
)
@pytest.mark.parametrize("normalise", [True, False])
def test_todays_words_and_the_older_ones(tmp_path, pooling, expected, normalise):
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalise
    _, embedder, longest = sentence.read(write(tmp_path, steps(*kinds), pooling))
    assert (embedder.pooling, embedder.normalise, longest) == (expected, normalise, {})


def test_without_its_files_nothing_is_said(tmp_path):
    assert sentence.read(tmp_path) == ({}, None, {})
    assert sentence.read(write(tmp_path, steps("Transformer")))[1] is None


@pytest.mark.parametrize(("most", "expected"), [(99, {"max_tokens": 99}), (None, {}), ("99", {}), (True, {})])
def test_the_longest_text(tmp_path, most, expected):
    assert sentence.read(write(tmp_path, steps("Transformer"), None, {"max_seq_length": most}))[2] == expected


REFUSED = {
    "a step we don't do": (steps("Transformer", "Pooling", "CNN"), OLD, "asks for a step CNN"),
    "dense behind normalise": (steps("Pooling", "Normalize", "Dense"), OLD, "asks for a step Dense"),
    "dense without its folder": (steps("Pooling", "Dense"), OLD, "x/config.json can't be read"),
    "an older word unknown": (steps("Pooling"), {**OLD, "pooling_mode_new": True}, "pooling_mode_new"),
    "no pooling": (steps("Pooling"), {}, "of no kind"),
    "another word": (steps("Pooling"), {"pooling_mode": "median"}, "median"),
    "nonsense": (steps("Pooling"), {"pooling_mode": {"a": 1}}, "supported: cls, mean"),
    "its config missing": (steps("Pooling"), None, "1_Pooling/config.json can't be read"),
    "a way out": (steps("Pooling", Pooling="../../etc"), OLD, "no folder beside it"),
    "the folder above": (steps("Pooling", Pooling=".."), OLD, "no folder beside it"),
    "an absolute path": (steps("Pooling", Pooling="/etc"), OLD, "no folder beside it"),
    "no path": (steps("Pooling", Pooling=""), OLD, "no folder beside it"),
    "no json": (b"<html>", None, "modules.json can't be read"),
    "a table": ({"a": 1}, None, "modules.json can't be read"),
    "a number": (b"3", None, "modules.json can't be read"),
    "steps without a type": ([{"path": ""}], None, "modules.json can't be read"),
    "steps that are words": (["Pooling"], None, "modules.json can't be read"),
    "deep": (b"[" * 100_000, None, "modules.json can't be read"),
    "not utf-8": (b'["\xff"]', None, "modules.json can't be read"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_we_would_do_otherwise_is_refused(tmp_path, fault):
    modules, pooling, message = REFUSED[fault]
    with pytest.raises(ConfigError) as caught:
        sentence.read(write(tmp_path, modules, pooling))
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)


def test_an_encoder_in_a_folder_of_its_own_is_told(tmp_path):
    modules = steps("Transformer", "Pooling", Transformer="0_Transformer")
    with pytest.raises(ConfigError, match="stands in the folder '0_Transformer'"):
        sentence.read(write(tmp_path, modules, OLD))


def test_prompts_that_make_no_sense(tmp_path):
    write(tmp_path, steps("Pooling"), {**OLD, "include_prompt": False})
    table = {"default_prompt_name": "q", "prompts": {"q": "x: "}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match="left out of the pooling"):
        sentence.read(tmp_path)
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({**table, "prompts": {}}))
    with pytest.raises(ConfigError, match="names none of its prompts"):
        sentence.read(tmp_path)
