"""Devices and precision by name; what this machine lacks is said."""

from __future__ import annotations

import pytest
import torch

import minibert
from minibert import device
from minibert.errors import ConfigError, EnvironmentProblem

CPU = torch.device("cpu")


def test_auto_is_the_cpu_where_there_is_no_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.pick("auto") == CPU
    with pytest.raises(EnvironmentProblem, match="shows 0"):
        device.pick("cuda")


def test_a_card_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.pick("auto") == torch.device("cuda")
    with pytest.raises(EnvironmentProblem, match="shows 2"):
        device.pick("cuda:3")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "xpu", ""])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ConfigError):
        device.pick(name)


def capability(monkeypatch, found):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card=None: found)


def test_precision(monkeypatch):
    assert device.precision("auto", CPU) == (torch.float32, None)
    assert device.precision("float64", CPU) == (torch.float64, None)
    with pytest.raises(ConfigError, match="did you mean"):
        device.precision("float23", CPU)
    with pytest.raises(ConfigError, match="never tried there"):
        device.precision("bfloat16", torch.device("mps"))
    with pytest.raises(ConfigError, match="never tried there"):
        device.precision("bfloat16", torch.device("mps"), force=True)


@pytest.mark.parametrize(
    ("found", "auto", "refused"),
    [
        ((9, 0), "bfloat16", ()),
        ((8, 0), "bfloat16", ()),
        ((7, 5), "float16", ("bfloat16", "tf32")),
        ((6, 1), "float32", ("bfloat16", "tf32", "float16")),
    ],
)
def test_a_card_computes_in_what_it_has(monkeypatch, found, auto, refused):
    card = torch.device("cuda", 0)
    capability(monkeypatch, found)
    assert device.number_format("auto", card) == auto
    for word in device.FORMATS:
        if word not in refused:
            assert device.number_format(word, card) == word and not device.caution(word, card)
            continue
        with pytest.raises(
            ConfigError, match=f"dtype '{word}' can't be used for training on cuda:0: this card has no"
        ):
            device.number_format(word, card)
    if "bfloat16" in refused:
        assert device.precision("bfloat16", card, force=True) == (torch.float32, torch.bfloat16)
    if "tf32" in refused:
        with pytest.raises(ConfigError, match="no tf32"):
            device.number_format("tf32", card, force=True)


def test_bfloat16_on_a_processor_wants_its_instructions(monkeypatch):
    """Taken where they are, with a word on its speed; refused where not, unless forced."""
    monkeypatch.setattr(device, "has_bfloat16", lambda: True)
    assert device.precision("bfloat16", CPU) == (torch.float32, torch.bfloat16)
    assert "0.7 times" in device.caution("bfloat16", CPU)
    monkeypatch.setattr(device, "has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match=r"tens of times slower\n.*force_dtype = true"):
        device.precision("bfloat16", CPU)
    assert device.precision("bfloat16", CPU, force=True) == (torch.float32, torch.bfloat16)
    assert "was forced" in device.caution("bfloat16", CPU)
    with pytest.raises(ConfigError, match="for cards"):
        device.precision("float16", CPU)
    assert device.precision("float16", CPU, force=True) == (torch.float32, torch.float16)
    with pytest.raises(ConfigError, match="for cards"):
        device.precision("tf32", CPU, force=True)
    assert device.caution("float32", CPU) == "" and device.number_format("auto", CPU) == "float32"


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16", ""])
def test_the_instructions_are_asked_for_and_torch_too(monkeypatch, flag):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: True, "avx512_f": True}, raising=False)
    for uses in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda uses=uses: uses)
        assert device.has_bfloat16() == (bool(flag) and uses)


def test_tf32_is_a_word_of_its_own_and_is_put_back():
    """float32 means float32, whatever the process had switched on before; the CPU's switch is another."""
    card, cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before, others = card.fp32_precision, cpu.fp32_precision
    try:
        for was in ("ieee", "tf32"):
            card.fp32_precision = was
            with device.float32_as("tf32"):
                assert card.fp32_precision == "tf32"
                with device.float32_as("float32"):
                    assert card.fp32_precision == "ieee" and cpu.fp32_precision == others
                assert card.fp32_precision == "tf32"
            assert card.fp32_precision == was
    finally:
        card.fp32_precision = before


def test_the_spec_knows_the_same_words():
    import dataclasses

    from minibert import spec

    choices = next(f for f in dataclasses.fields(spec.Train) if f.name == "dtype").metadata["choices"]
    assert choices == ("auto", *device.FORMATS)


def test_products_stay_exact_whichever_library_makes_them(monkeypatch):
    device.pick("cpu")
    assert device.exact_products() and device.products() in ("oneDNN", "torch's own")
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(matmul, "fp32_precision"):
        return
    before = matmul.fp32_precision
    try:
        monkeypatch.setattr(device, "cpu_name", lambda: "AMD EPYC")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        matmul.fp32_precision = "ieee"
        monkeypatch.setattr(device, "exact_products", lambda: False)
        assert device.products.__wrapped__() == "torch's own" and matmul.fp32_precision == "ieee"
        monkeypatch.setattr(device, "exact_products", lambda: True)
        assert device.products.__wrapped__() == "oneDNN" and matmul.fp32_precision == "bf16"
        assert device.products.__wrapped__() == "torch's own", "what a user has chosen is left alone"
    finally:
        matmul.fp32_precision = before


def test_torchs_own_products_can_be_asked_for_a_while(monkeypatch):
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(matmul, "fp32_precision"):
        return
    before = matmul.fp32_precision
    with device.torchs_own_products():
        pass
    assert matmul.fp32_precision == before
    try:
        matmul.fp32_precision = "bf16"
        monkeypatch.setattr(device, "products", lambda: "oneDNN")
        with device.torchs_own_products():
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


def test_a_probe_that_rounds_is_seen(monkeypatch):
    real = torch.Tensor.__matmul__
    rounded = lambda a, b: real(a.bfloat16().float(), b.bfloat16().float()) if a.dtype == torch.float32 else real(a, b)  # fmt: skip  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not device.exact_products()


def test_a_cpu_build_beside_a_card_is_said(monkeypatch):
    monkeypatch.setattr(device.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "CPU build" in device.hint()
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    assert device.hint() == ""


def test_seeds_are_a_function_of_all_numbers():
    def draw(*numbers):
        device.seed(*numbers)
        return torch.rand(3).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    seen = {tuple(draw(a, b, c)) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seen) == 27


def test_the_machine_is_described():
    facts = device.describe(CPU)
    assert facts["device"] == "cpu" and facts["threads"] >= 1 and facts["cpu_capability"]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hidden_states_on_the_card_equal_the_cpu(minilm, dtype):
    texts = ["One short text.", "Another text, somewhat longer than the first one."]
    cpu, card = (minibert.load(minilm, dtype=dtype, device=d) for d in ("cpu", "cuda"))
    with torch.no_grad():
        gap = cpu(cpu.encode(texts)) - card(card.encode(texts)).cpu()
    assert gap.abs().max() < {"float32": 2e-5, "float64": 1e-10}[dtype]
