"""Checkpoints: what comes in goes out byte for byte, and what is damaged is named, never half loaded."""

from __future__ import annotations

import itertools
import json
import os
import signal
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import minibert
from minibert import checkpoint, safefile, system
from minibert.errors import EnvironmentProblem, WeightsError
from minibert.names import WRAPPERS

from .helpers import FAMILIES, published, within, write_checkpoint

FILE = "model.safetensors"


def load(folder, head="own", **options):
    return minibert.load(folder, head=head, device="cpu", **options)


def refused(folder, head="own") -> str:
    """The message of the WeightsError that loading gives; anything else fails the test."""
    with within(20), pytest.raises(WeightsError) as caught:
        load(folder, head)
    return str(caught.value)


def same_bytes(a, b):
    assert sorted(a) == sorted(b)
    for name, tensor in a.items():
        assert (tensor.dtype, tensor.shape) == (b[name].dtype, b[name].shape), name
        assert torch.equal(tensor.reshape(-1).view(torch.uint8), b[name].reshape(-1).view(torch.uint8)), name


# --- round trips ----------------------------------------------------------------------------------

WAYS = [
    {"head": 0},
    {"head": 7},
    {"head": 0, "prefix": False},
    {"head": 0, "mlm": True},
    {"head": 7, "shards": 3},
    {"head": 0, "pooler": False},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_comes_back_byte_for_byte(tmp_path, family, options):
    """In one file or in several, with a head or without, under the prefix or without."""
    tensors = {k: v for k, v in options.items() if k != "shards"}
    load(write_checkpoint(tmp_path / "in", family, **options)).save(tmp_path / "out")
    same_bytes(published(family, **tensors), load_file(tmp_path / "out" / FILE))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [True, False])
def test_the_counter_of_older_files_is_given_back(tmp_path, family, prefix):
    tensors = published(family, prefix=prefix)
    tensors[f"{family}." * prefix + "embeddings.position_ids"] = torch.arange(53)[None]
    model = load(write_checkpoint(tmp_path / "in", family, tensors=tensors))
    assert any(name.endswith("position_ids") for name in model.report.carried)
    same_bytes(tensors, load_file(model.save(tmp_path / "out") / FILE))
    half = load_file(model.save(tmp_path / "half", dtype=torch.float16) / FILE)
    assert {str(t.dtype) for n, t in half.items() if "position_ids" not in n} == {"torch.float16"}
    assert half[f"{family}." * prefix + "embeddings.position_ids"].dtype == torch.int64


def test_minilms_file_comes_back_byte_for_byte(minilm, tmp_path):
    same_bytes(load_file(minilm / FILE), load_file(load(minilm).save(tmp_path / "out") / FILE))


@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_head_names_carry_the_prefix(tmp_path, family):
    """Libraries look for a classifier's encoder below the family's name."""
    load(write_checkpoint(tmp_path / "in", family, head=7, prefix=False)).save(tmp_path / "out")
    same_bytes(published(family, head=7, prefix=True), load_file(tmp_path / "out" / FILE))


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_that_are_not_used_travel_along(tmp_path, family):
    """head=None: the classifier of the file is carried and saved again, as are a pooler and an MLM head."""
    folder = write_checkpoint(tmp_path / "in", family, head=7, mlm=True)
    model = load(folder, None)
    assert model.head is None and any(n.startswith("classifier.") for n in model.report.carried)
    same_bytes(published(family, head=7, mlm=True), load_file(model.save(tmp_path / "out") / FILE))
    assert load(tmp_path / "out").head is not None, "and the saved folder still knows its head"


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_tensors_follow_what_they_are_tied_to(tmp_path, family):
    model = load(write_checkpoint(tmp_path / "in", family, mlm=True))
    decoder = "cls.predictions.decoder.weight" if family == "bert" else "lm_head.decoder.weight"
    assert model.report.tied[decoder] == "@embeddings.word_embeddings.weight"
    with torch.no_grad():
        model.encoder.embeddings.word.weight.add_(1)
    out = load_file(model.save(tmp_path / "out") / FILE)
    assert torch.equal(out[decoder], out[f"{family}.embeddings.word_embeddings.weight"])


def test_a_decoder_that_differs_is_kept_apart_and_told(tmp_path):
    tensors = published(mlm=True)
    tensors["cls.predictions.decoder.weight"] += 1
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.decoder.bias"].half()  # another dtype
    model = load(write_checkpoint(tmp_path / "in", tensors=tensors))
    assert (
        not model.report.tied and len(model.report.warnings) == 2 and "kept apart" in model.report.warnings[0]
    )
    same_bytes(tensors, load_file(model.save(tmp_path / "out") / FILE))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_tools_wrapper_is_taken_off(tmp_path, wrapper):
    tensors = {wrapper + n: t for n, t in published(head=7).items()}
    model = load(write_checkpoint(tmp_path / "in", head=7, tensors=tensors))
    assert model.report.wrapper == wrapper and f'"{wrapper}" taken off' in str(model.report)
    same_bytes(published(head=7), load_file(model.save(tmp_path / "out") / FILE))


def test_gamma_and_beta_are_weight_and_bias(tmp_path):
    def old(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    model = load(write_checkpoint(tmp_path / "in", tensors={old(n): t for n, t in published().items()}))
    assert len(model.report.renamed) == 2 * (1 + 2 * 3) and "gamma/beta" in str(model.report)
    same_bytes(published(), load_file(model.save(tmp_path / "out") / FILE))


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_are_read_in_float32(tmp_path, stored):
    tensors = {n: t.to(stored) for n, t in published(head=7).items()}
    folder = write_checkpoint(
        tmp_path / "in", head=7, tensors=tensors, config_keys={"torch_dtype": "float16"}
    )
    model = load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(
        model.encoder.embeddings.word.weight, tensors["bert.embeddings.word_embeddings.weight"].float()
    )
    assert list(model.report.dtypes) == [
        {2: {True: "BF16", False: "F16"}[stored == torch.bfloat16], 8: "F64"}[stored.itemsize]
    ]
    assert ("float64" in str(model.report)) == (stored == torch.float64)
    model.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float32"
    assert not load(folder, dtype="float64").report.warnings or stored != torch.float64


def test_the_report_tells_what_became_of_every_tensor(tmp_path):
    model = load(write_checkpoint(tmp_path / "in", head=7, mlm=True), "classification", labels=["a", "b"])
    report, names = model.report, set(published(head=7, mlm=True))
    told = [*report.loaded, *report.carried, *report.ignored, *report.tied]
    assert sorted(told) == sorted(names), "each tensor of the file once"
    assert report.new == ("classifier.weight", "classifier.bias")
    assert set(report.ignored) == {n for n in names if not n.startswith("bert.")}
    assert report.dtypes == {"F32": len(names)} and not report.warnings
    text = str(report)
    for part in (
        f"{len(report.loaded)} tensors loaded (F32)",
        "new (expected): classifier.weight",
        "no part of the new head",
    ):
        assert part in text


def test_a_new_head_takes_the_pooler_that_pre_training_made(tmp_path):
    tensors = published()
    model = load(write_checkpoint(tmp_path / "in", tensors=tensors), "classification", labels=["a", "b"])
    assert torch.equal(model.head.read.dense.weight, tensors["bert.pooler.dense.weight"])
    assert model.report.new == ("classifier.weight", "classifier.bias")
    bare = load(write_checkpoint(tmp_path / "bare", pooler=False), "classification", labels=["a", "b"])
    assert len(bare.report.new) == 4 and bare.report.new[0] == "bert.pooler.dense.weight"


def test_a_matrix_of_zeros_is_worth_a_line(tmp_path):
    tensors = published()
    tensors["bert.encoder.layer.1.output.dense.weight"].zero_()
    tensors["bert.encoder.layer.1.output.dense.bias"].zero_()
    warnings = load(write_checkpoint(tmp_path / "in", tensors=tensors)).report.warnings
    assert warnings == ("encoder.layer.1.output.dense.weight is all zeros",)


def test_a_reference_roberta_has_one_row_of_zeros(tmp_path):
    tensors = published("roberta")
    tensors["roberta.embeddings.token_type_embeddings.weight"].zero_()
    assert not load(write_checkpoint(tmp_path / "in", "roberta", tensors=tensors)).report.warnings


# --- checkpoints that don't fit -------------------------------------------------------------------


def test_one_error_lists_all_that_is_missing_unexpected_and_misshapen(tmp_path):
    tensors = published()
    tensors["bert.embeddings.word_embedding.weight"] = tensors.pop("bert.embeddings.word_embeddings.weight")
    del tensors["bert.encoder.layer.0.output.dense.bias"], tensors["bert.encoder.layer.2.output.dense.bias"]
    tensors["bert.embeddings.position_embeddings.weight"] = torch.zeros(50, 24)
    tensors["foo.bar"] = torch.zeros(3)
    message = refused(write_checkpoint(tmp_path / "in", tensors=tensors))
    assert str(tmp_path / "in") in message
    for part in (
        "missing: embeddings.word_embeddings.weight (nearest in the file: embeddings.word_embedding.weight)",
        "missing: encoder.layer.{0,2}.output.dense.bias",
        "unexpected: embeddings.word_embedding.weight (nearest missing: embeddings.word_embeddings.weight)",
        "unexpected: foo.bar",
        "wrong shape: embeddings.position_embeddings.weight is (50, 24) in the file, (53, 24) by config.json "
        "(max_position_embeddings, hidden_size)",
    ):
        assert part in message, part


def test_a_long_list_is_cut_and_says_so(tmp_path):
    tensors = published() | {f"odd.name{chr(97 + i)}{j}": torch.zeros(1) for i in range(20) for j in range(3)}
    message = refused(write_checkpoint(tmp_path / "in", tensors=tensors))
    assert message.count("unexpected: odd") == 20 and "unexpected: 40 more" in message


def mutations():
    """(what is done, the change, the name that the error must give), on every kind of parameter."""
    names = sorted(published(head=7))
    for name in names[:: len(names) // 12]:
        yield f"dropped {name}", lambda t, n=name: t.pop(n), name
        yield f"renamed {name}", lambda t, n=name: t.update({n + "x": t.pop(n)}), name
    matrices = [n for n in names if "dense.weight" in n and "attention" not in n and "pooler" not in n]
    for name in [*matrices[:3], "bert.embeddings.word_embeddings.weight", "classifier.weight"]:
        yield f"transposed {name}", lambda t, n=name: t.update({n: t[n].T.contiguous()}), name
    yield (
        "added",
        lambda t: t.update({"bert.encoder.layer.3.output.dense.bias": torch.zeros(24)}),
        "encoder.layer.3.output.dense.bias",
    )
    for dtype in (torch.int8, torch.int64, torch.float8_e4m3fn):
        for name in ("bert.encoder.layer.1.output.dense.bias", "bert.pooler.dense.bias"):
            yield f"{dtype} {name}", lambda t, n=name, d=dtype: t.update({n: t[n].to(d)}), name
    yield "a vector more", lambda t: t.update({"classifier.bias": torch.zeros(8)}), "classifier.bias"
    yield "a scalar", lambda t: t.update({"classifier.weight": torch.tensor(1.0)}), "classifier.weight"


@pytest.mark.parametrize(("change", "name"), [m[1:] for m in mutations()], ids=[m[0] for m in mutations()])
def test_a_mutated_checkpoint_fails_with_the_tensors_name(tmp_path, change, name):
    tensors = published(head=7)
    change(tensors)
    message = refused(write_checkpoint(tmp_path / "in", head=7, tensors=tensors))
    assert name.removeprefix("bert.") in message


def test_carried_tensors_are_checked_too(tmp_path):
    tensors = published(mlm=True)
    tensors["cls.predictions.bias"] = tensors["cls.predictions.bias"].to(torch.float8_e4m3fn)
    assert "cls.predictions.bias is F8_E4M3" in refused(write_checkpoint(tmp_path / "in", tensors=tensors))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["bert.encoder.layer.0.output.dense.bias", "bert.pooler.dense.weight"])
def test_values_that_are_not_finite_are_counted(tmp_path, value, name):
    tensors = published()
    tensors[name].view(-1)[:2] = value
    message = refused(write_checkpoint(tmp_path / "in", tensors=tensors))
    assert f"{name} holds 2 values that are not finite" in message.replace('"', "")


def test_gamma_beside_weight_is_ambiguous(tmp_path):
    tensors = published()
    tensors["bert.embeddings.LayerNorm.gamma"] = torch.ones(24)
    message = refused(write_checkpoint(tmp_path / "in", tensors=tensors))
    assert "LayerNorm.gamma" in message and "both mean @embeddings.LayerNorm.weight" in message


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.removeprefix("bert.") if "layer.1" in n else n,  # half of it without the prefix
        lambda n: f"module.{n}" if "layer.1" in n else n,
        lambda n: f"module.module.{n}",
        lambda n: n.replace("bert.", "roberta."),
    ],
)
def test_mixed_prefixes_are_refused(tmp_path, change):
    message = refused(
        write_checkpoint(tmp_path / "in", tensors={change(n): t for n, t in published().items()})
    )
    assert "missing: encoder.layer.{" in message or "missing: encoder.layer.1." in message
    assert "unexpected" in message


def test_another_config_is_refused_by_its_key(tmp_path):
    """A config.json beside the wrong weights: more layers, more words."""
    keys = {"vocab_size": 103, "num_hidden_layers": 4}
    message = refused(write_checkpoint(tmp_path / "in", config_keys=keys))
    assert "(101, 24) in the file, (103, 24) by config.json (vocab_size, hidden_size)" in message
    assert message.count("missing: encoder.layer.3") == 16


# --- damaged files --------------------------------------------------------------------------------

GOOD = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def raw(header, body=b"\0" * 8, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(**changes):
    return {"w": {**GOOD["w"], **changes}}


TWO = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
}
DAMAGE = {  # fault: (the file's bytes, what the message must say)
    "empty": (b"", "0 bytes"),
    "seven bytes": (b"\x08\0\0\0\0\0\0", "7 bytes"),
    "header of 2**63": (raw(GOOD, length=2**63), "truncated or no safetensors"),
    "header over 100 MB": (raw(GOOD, length=200_000_000), "truncated or no safetensors"),
    "header longer than the file": (raw(GOOD, length=5000), "truncated or no safetensors"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    "web page": (b"<!DOCTYPE html><html><body>Not found</body></html>", "web page"),
    "web page after a line": (b"\n\n  <html><body>Sign in</body></html>", "web page"),
    "json": (b'{"error": "Repository not found"}', "JSON text"),
    "zip": (b"PK\x03\x04" + b"\0" * 50, "PyTorch pickle"),
    "pickle 2": (b"\x80\x02}q\x00(X\x03\x00\x00\x00abcq\x01", "Python pickle"),
    "pickle 4": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}", "Python pickle"),
    "truncated body": (raw(GOOD, b"\0" * 4), "4 bytes are missing"),
    "trailing bytes": (raw(GOOD, b"\0" * 10), "2 bytes too many"),
    "not utf-8": (raw(b'{"\xff": 1}'), "header is damaged"),
    "utf-16": (raw(json.dumps(GOOD).encode("utf-16")), "header is damaged"),
    "no json": (raw(b"hello, world"), "header is damaged"),
    "a list": (raw(b"[1, 2]"), "header is damaged"),
    "deep": (raw(b'{"w": ' + b"[" * 200_000), "header is damaged"),
    "digits": (raw(b'{"w": ' + b"1" * 5000 + b"}"), "header is damaged"),
    "entry is no table": (raw({"w": 3}), "header is damaged"),
    "entry is null": (raw({"w": None}), "header is damaged"),
    "no dtype": (raw({"w": {"shape": [2], "data_offsets": [0, 8]}}), "header is damaged"),
    "no shape": (raw({"w": {"dtype": "F32", "data_offsets": [0, 8]}}), "header is damaged"),
    "no offsets": (raw({"w": {"dtype": "F32", "shape": [2]}}), "header is damaged"),
    "dtype is a list": (raw(entry(dtype=["F32"])), "w makes no sense"),
    "negative shape": (raw(entry(shape=[-2])), "w makes no sense"),
    "true as shape": (raw(entry(shape=[True, 2])), "w makes no sense"),
    "float offsets": (raw(entry(data_offsets=[0.0, 8.0])), "w makes no sense"),
    "three offsets": (raw(entry(data_offsets=[0, 4, 8])), "header is damaged"),
    "offsets backwards": (raw(entry(data_offsets=[8, 0])), "w makes no sense"),
    "offsets out of range": (raw(entry(data_offsets=[0, 800])), "792 bytes are missing"),
    "a gap": (
        raw({**TWO, "b": {**TWO["b"], "data_offsets": [12, 20]}}, b"\0" * 20),
        "b begins at byte 12, not 8",
    ),
    "overlap": (
        raw({**TWO, "b": {**TWO["b"], "data_offsets": [4, 12]}}, b"\0" * 12),
        "b begins at byte 4, not 8",
    ),
    "shape against span": (raw(entry(shape=[3])), "w has 8 bytes; (3,) in F32 takes 12"),
    "dtype against span": (raw(entry(dtype="F64")), "w has 8 bytes; (2,) in F64 takes 16"),
    "overflow": (raw(entry(shape=[2**40, 2**40])), "w has 8 bytes"),
    "named twice": (raw(b'{"w": %s, "w": %s}' % ((json.dumps(GOOD["w"]).encode(),) * 2)), "w is named twice"),
    "metadata with a number": (raw({"__metadata__": {"a": 1}, **GOOD}), "__metadata__ must hold texts"),
    "metadata is a list": (raw({"__metadata__": [1], **GOOD}), "header is damaged"),
    "no tensors": (raw({"__metadata__": {"format": "pt"}}, b""), "no tensors"),
    "nothing at all": (raw({}, b""), "no tensors"),
    "no tensors and trailing bytes": (raw({}, b"xx"), "no tensors"),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_file_is_named_with_what_it_is(tmp_path, fault):
    content, expected = DAMAGE[fault]
    folder = write_checkpoint(tmp_path / "in")
    (folder / FILE).write_bytes(content)
    message = refused(folder)
    assert str(folder / FILE) in message and expected in message


@pytest.mark.parametrize("name", ["w" * 1_000_000, "../../etc/x", "a\x00b\x1b[31m", "\ud800", "@@cls.x"])
def test_strange_names_are_printed_safely(tmp_path, name):
    folder = write_checkpoint(tmp_path / "in")
    (folder / FILE).write_bytes(raw({name: GOOD["w"]}))
    message = refused(folder)
    assert len(message) < 10_000 and message.replace("\n", "").isprintable()


@pytest.mark.slow
def test_many_strange_names_take_no_longer(tmp_path):
    folder = write_checkpoint(tmp_path / "in")
    none = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    (folder / FILE).write_bytes(raw({f"encoder.layer.x{i}.output": none for i in range(60_000)}, b""))
    assert "more" in refused(folder)
    twice = b",".join(b'"w%d": 1' % (i % 30_000) for i in range(60_000))
    (folder / FILE).write_bytes(raw(b"{" + twice + b"}"))
    assert "named twice" in refused(folder)


def test_an_unknown_dtype_is_named(tmp_path):
    """In place of a good tensor's, so that nothing else is wrong."""
    folder = write_checkpoint(tmp_path / "in")
    data = (folder / FILE).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    for dtype in ("F99", "F8_E5M2", "I32"):
        header["bert.pooler.dense.bias"]["dtype"] = dtype
        (folder / FILE).write_bytes(raw(header, data[8 + size :]))
        message = refused(folder)
        assert "pooler.dense.bias" in message and dtype in message


def test_headers_of_any_length_are_read(tmp_path):
    """A header of 640 bytes begins with 80 02, as a pickle does; of 60 with "<"; of 123 with "{"."""
    plain = len(json.dumps(GOOD)) + len(', "__metadata__": {"x": ""}')
    path = tmp_path / FILE
    for length in (640, 60 + 256, 123 + 256, 0x0380, 0x0480, 0x0580):
        path.write_bytes(raw({**GOOD, "__metadata__": {"x": "x" * (length - plain)}}))
        assert struct.unpack("<Q", path.read_bytes()[:8])[0] == length
        assert safefile.header(path)["w"].shape == (2,)


def test_every_cut_of_a_file_is_refused(tmp_path):
    whole = raw(TWO, b"\0" * 16)
    for size in range(len(whole)):
        (tmp_path / FILE).write_bytes(whole[:size])
        with pytest.raises(WeightsError):
            safefile.header(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(whole)
    assert set(safefile.header(tmp_path / FILE)) == {"a", "b"}


def test_no_bit_of_a_header_flips_into_another_error(tmp_path):
    """Whatever a flipped bit makes of the header, it is read or it is a WeightsError."""
    whole = raw(TWO, b"\0" * 16)
    path = tmp_path / FILE
    for at, bit in itertools.product(range(len(whole) - 16), range(8)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
        try:
            entries = safefile.header(path)
        except WeightsError:
            continue
        for found in entries.values():
            try:
                safefile.read(found, torch.float32)
            except WeightsError:
                continue


# --- files that are no files ----------------------------------------------------------------------


def without_file(tmp_path):
    folder = write_checkpoint(tmp_path / "in")
    (folder / FILE).unlink()
    return folder


def test_no_weights_at_all(tmp_path):
    message = refused(without_file(tmp_path))
    assert "neither model.safetensors nor model.safetensors.index.json" in message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_a_pickle_is_never_opened(tmp_path, name):
    folder = without_file(tmp_path)
    (folder / name).write_bytes(b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.")
    message = refused(folder)
    assert name in message and "save_file" in message


def test_a_folder_in_its_place(tmp_path):
    folder = without_file(tmp_path)
    (folder / FILE).mkdir()
    assert "no regular file" in refused(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", [FILE, "model.safetensors.index.json", "config.json"])
def test_a_pipe_in_its_place_is_not_waited_for(tmp_path, name):
    folder = without_file(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with within(20), pytest.raises(minibert.MiniBertError, match="no regular file"):
        load(folder)


def test_links_that_lead_nowhere(tmp_path):
    folder = without_file(tmp_path)
    (folder / FILE).symlink_to(tmp_path / "gone")
    assert "no regular file" in refused(folder)
    (folder / FILE).unlink()
    (folder / FILE).symlink_to(folder / FILE)
    assert FILE in refused(folder)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    folder = write_checkpoint(tmp_path / "in")
    (folder / FILE).chmod(0)
    assert "Permission denied" in refused(folder)


def test_an_unreadable_file_is_named_with_the_systems_reason(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "in")

    def denied(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(safefile, "open", denied, raising=False)
    message = refused(folder)
    assert "Permission denied" in message and str(folder / FILE) in message


# --- several files --------------------------------------------------------------------------------

INDEX = "model.safetensors.index.json"


def sharded(tmp_path, change=lambda folder, index: None):
    folder = write_checkpoint(tmp_path / "in", shards=3)
    index = json.loads((folder / INDEX).read_text())
    change(folder, index)
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def lose_shard(folder, index):
    (folder / "model-00002-of-00003.safetensors").unlink()


def add_key(folder, index):
    index["weight_map"]["bert.more"] = "model-00001-of-00003.safetensors"


def drop_key(folder, index):
    del index["weight_map"]["bert.pooler.dense.bias"]


def swap_shards(folder, index):
    index["weight_map"]["bert.pooler.dense.bias"] = "model-00001-of-00003.safetensors"
    index["weight_map"]["bert.pooler.dense.weight"] = "model-00001-of-00003.safetensors"


def same_twice(folder, index):
    path = folder / "model-00001-of-00003.safetensors"
    save_file({**load_file(path), "bert.pooler.dense.bias": torch.zeros(24)}, path)
    other = folder / "model-00002-of-00003.safetensors"
    save_file({**load_file(other), "bert.pooler.dense.bias": torch.zeros(24)}, other)


def every_value(value):
    def change(folder, index):
        index["weight_map"] = dict.fromkeys(index["weight_map"], value)

    return change


INDEX_FAULTS = {
    "a shard is missing": (lose_shard, "1 of 3 shards are missing: model-00002-of-00003.safetensors"),
    "a key without its tensor": (add_key, "the index names bert.more, its shard lacks it"),
    "a tensor without its key": (drop_key, "bert.pooler.dense.bias is in a shard and not in the index"),
    "the wrong shard": (swap_shards, "its shard lacks it"),
    "a tensor in two shards": (same_twice, "bert.pooler.dense.bias stands in two shards"),
    "a way out": (every_value("../../etc/passwd"), "outside the folder"),
    "an absolute path": (every_value("/etc/passwd"), "outside the folder"),
    "backslashes": (every_value("..\\x.safetensors"), "outside the folder"),
    "the folder above": (every_value(".."), "missing"),
    "no name": (every_value(""), "missing"),
    "a very long name": (every_value("x" * 5000), "in"),
    "numbers": (every_value(3), "missing"),
    "no map": (lambda f, i: i.pop("weight_map"), "no table weight_map"),
    "an empty map": (lambda f, i: i.update(weight_map={}), "no table weight_map"),
    "a list": (lambda f, i: i.update(weight_map=[1]), "no table weight_map"),
}


@pytest.mark.parametrize("fault", INDEX_FAULTS)
def test_an_index_that_lies_is_refused(tmp_path, fault):
    change, expected = INDEX_FAULTS[fault]
    folder = sharded(tmp_path, change)
    message = refused(folder)
    assert str(folder) in message and expected in message


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"weight_map": ' + b"[" * 100_000])
def test_an_index_that_is_none(tmp_path, content):
    folder = write_checkpoint(tmp_path / "in", shards=3)
    (folder / INDEX).write_bytes(content)
    assert INDEX in refused(folder)


def test_damage_in_a_shard_names_the_shard(tmp_path):
    folder = sharded(tmp_path)
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    message = refused(folder)
    assert str(path) in message and "4 bytes are missing" in message


def test_one_whole_file_stands_before_an_index(tmp_path):
    """As other libraries have it: what a tool left beside the whole file is not looked at."""
    folder = write_checkpoint(tmp_path / "in", shards=3, seed=1)
    write_checkpoint(folder, seed=2)
    found = load(folder).encoder.embeddings.word.weight
    assert torch.equal(found, published(seed=2)["bert.embeddings.word_embeddings.weight"])


# --- saving ---------------------------------------------------------------------------------------


def save(model, folder):
    state = model.encoder.state_dict()
    return checkpoint.save(folder, model.config, None, state, {}, model.carried, model.report)[0]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_saved_file_may_be_read_by_others(tmp_path):
    model = load(write_checkpoint(tmp_path / "in"))
    old = os.umask(0o022)
    try:
        path = save(model, tmp_path)
        assert path.stat().st_mode & 0o777 == 0o644
        path.chmod(0o640)
        assert save(model, tmp_path).stat().st_mode & 0o777 == 0o640, "an old file keeps its mode"
    finally:
        os.umask(old)
    assert sorted(os.listdir(tmp_path)) == ["in", FILE]


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    import resource

    model = load(write_checkpoint(tmp_path / "in"))
    before = save(model, tmp_path).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(EnvironmentProblem, match="could not be written.*\n.*MB are free"):
            save(model, tmp_path)
        with pytest.raises(EnvironmentProblem, match="could not be written"):
            model.save(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert (tmp_path / FILE).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["in", FILE], "nothing half-written stays"


def test_what_is_written_says_its_format(tmp_path):
    """transformers 4 refuses files that don't."""
    path = save(load(write_checkpoint(tmp_path / "in")), tmp_path)
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"] == {"format": "pt"}


# --- small parts ----------------------------------------------------------------------------------


def test_names_that_differ_in_the_layer_are_folded():
    names = [f"encoder.layer.{i}.output.dense.bias" for i in (0, 1, 11)]
    assert checkpoint.folded([*names, "a.b"]) == ["encoder.layer.{0,1,11}.output.dense.bias", "a.b"]
    assert checkpoint.folded(names[:1]) == names[:1]


def test_names_are_printed_safely():
    assert safefile.shown("a\nb\x1b") == "a\\nb\\x1b" and len(safefile.shown("x" * 500)) == 120


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert system.sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_entry_says_what_is_in_the_file(tmp_path, family):
    tensors = published(family)
    entries = safefile.stored(write_checkpoint(tmp_path / "in", family, tensors=tensors))
    assert {n: (e.dtype, e.shape) for n, e in entries.items()} == {
        n: ("F32", tuple(t.shape)) for n, t in tensors.items()
    }
