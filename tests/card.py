"""A card that isn't there: torch takes its tensors for CUDA's, and a processor computes them.

Every line that a training on CUDA runs through runs here, too: autocast, autograd's own thread, pinned
memory, copies, fused AdamW; with real numbers. What a real card would make the host wait for is written
down: a blocking copy, a number that is read, an output whose size hangs on values. What a real card would
refuse is refused: tensors of two devices in one operation, shapes and types that torch's variable-length
kernel does not take. It says nothing of speed, nor of a card's own arithmetic.

`build` compiles two dozen lines of C++ against torch's headers; `plug_in` loads them, before torch is
imported, so in a process of its own.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import importlib.util
import subprocess
import types
from collections.abc import Iterator
from pathlib import Path

SOURCE = """
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <mutex>
#include <set>

// Pinned memory: plain memory of which it is known that it was asked for as pinned.
static std::mutex lock;
static std::set<const void*> held;
static void give_back(void* at) {
  std::lock_guard<std::mutex> guard(lock);
  held.erase(at);
  c10::free_cpu(at);
}
struct Pinned : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    std::lock_guard<std::mutex> guard(lock);
    void* at = c10::alloc_cpu(bytes ? bytes : 1);
    held.insert(at);
    return {at, at, &give_back, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

namespace at {
struct CUDAHooks : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return 1; }
  bool isPinnedPtr(const void* at) const override {
    std::lock_guard<std::mutex> guard(lock);
    return held.count(at);
  }
  Allocator* getPinnedMemoryAllocator() const override { static Pinned pinned; return &pinned; }
};
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks)
}

namespace c10::impl {
struct OneStream : NoOpDeviceGuardImpl<DeviceType::CUDA> {
  static Device card() { return Device(DeviceType::CUDA, 0); }
  Device exchangeDevice(Device) const override { return card(); }
  Device getDevice() const override { return card(); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, card()); }
  Stream getNewStream(Device, int) const override { return Stream(Stream::DEFAULT, card()); }
  Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, card()); }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, OneStream);
}
"""


def build(folder: Path, compiler: str) -> Path:
    """Compile the card's outside; the library."""
    torch = Path(importlib.util.find_spec("torch").origin).parent
    source, library = folder / "card.cpp", folder / "card.so"
    source.write_text(SOURCE, encoding="utf-8")
    words = [compiler, "-O0", "-std=c++20", "-shared", "-fPIC", "-w", f"-I{torch}/include", str(source), "-o",
             str(library), f"-L{torch}/lib", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch}/lib"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


def plug_in(library: Path | str) -> type:
    """Load the card; the class to put things on it with. torch must not have been imported."""
    ctypes.CDLL(str(library))
    import torch
    from torch.nn import functional as F
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten, tree_map

    aten = torch.ops.aten
    COPIES = {aten._to_copy, aten.copy_}
    # Operations whose output's size, or whose result, the host must wait for.
    WAITS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount, aten._unique2,
             aten.equal, aten.is_nonzero, aten.unique_dim, aten.unique_consecutive}  # fmt: skip
    CARD = torch.device("cuda", 0)

    class OnCard(torch.Tensor):
        """A tensor of the card; `held` has its numbers."""

        @staticmethod
        def __new__(cls, held):
            out = torch.Tensor._make_wrapper_subclass(
                cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
                dtype=held.dtype, device=CARD,
            )  # fmt: skip
            out.held = held
            return out

        def __repr__(self):
            return f"OnCard({self.held})"

        def data_ptr(self):
            return self.held.data_ptr()

        def storage(self):
            return self.held.storage()

        def untyped_storage(self):
            return self.held.untyped_storage()

        def tolist(self):
            return self.cpu().tolist()

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            return compute(func, args, kwargs or {})

    events: list[str] = []
    copies = collections.Counter()

    def on_card(x):
        return isinstance(x, OnCard)

    def named(x):
        return isinstance(x, torch.device) and x.type == "cuda"

    def unwrap(x):
        return x.held if on_card(x) else torch.device("cpu") if named(x) else x

    def wrap(x):
        return OnCard(x) if isinstance(x, torch.Tensor) and not on_card(x) else x

    def copied(func, args, kwargs):
        """What a copy does on a real machine: whether the host waits."""
        if func.overloadpacket is aten._to_copy:
            source, goal = args[0], kwargs.get("device") or args[0].device
            blocking = not kwargs.get("non_blocking", False)
        else:
            source, goal = args[1], args[0].device
            blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        there = torch.device(goal).type == "cuda"
        if there and not on_card(source):
            copies["pinned" if source.is_pinned() else "pageable"] += 1
            if blocking:
                events.append(f"blocking copy to the card of {tuple(source.shape)}")
            elif source.numel() * source.element_size() > 2**16 and not source.is_pinned():
                events.append(f"copy to the card of {tuple(source.shape)} from memory that is not pinned")
        elif not there and on_card(source):
            events.append(f"read {tuple(source.shape)} from the card")
        return there

    def compute(func, args, kwargs):
        packet = func.overloadpacket
        flat, _ = tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, torch.Tensor)]
        if packet in COPIES:
            there = copied(func, args, kwargs)
        else:
            there = any(map(on_card, tensors)) or any(map(named, flat))
            alien = [x for x in tensors if not on_card(x) and x.dim()]
            if there and alien:
                raise RuntimeError(
                    f"{func}: Expected all tensors to be on the same device: {tuple(alien[0].shape)}"
                )
            if there and (packet in WAITS or (packet is aten.index and has_mask(args))):
                events.append(f"{packet.__name__} of {tuple(tensors[0].shape)}")
            if packet is aten.repeat_interleave and kwargs.get("output_size") is None:
                events.append("repeat_interleave without its size")
        if func.namespace == "torch_attn":
            return tree_map(wrap, VARLEN[packet.__name__](*tree_map(unwrap, args)))
        out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
        if not there:
            return out
        own = {id(x.held): x for x in tensors if on_card(x)}  # in-place operations give their argument back
        return tree_map(lambda x: own[id(x)] if id(x) in own else wrap(x), out)

    def has_mask(args):
        return any(x is not None and x.dtype == torch.bool for x in args[1])

    attentions: list[tuple] = []

    def noted(theirs, q, k, v, attn_mask=None, **rest):
        if on_card(q):
            assert not torch.backends.cuda.cudnn_sdp_enabled(), "cuDNN could be chosen"
            attentions.append((tuple(q.shape), q.dtype, "" if attn_mask is None else "mask"))
        return theirs(q, k, v, attn_mask=attn_mask, **rest)

    def per_text(q, k, v, ends, scale, window):
        from minibert.kernels.reference import between

        outs = []
        for a, b in zip(ends.tolist(), ends.tolist()[1:]):
            q_t, k_t, v_t = (x[a:b].transpose(0, 1).float() for x in (q, k, v))
            scores = q_t @ k_t.mT * scale
            if list(window) != [-1, -1]:
                scores = scores + between(b - a, tuple(window), None, scores)
            outs.append((scores.softmax(-1) @ v_t).transpose(0, 1))
        return torch.cat(outs)

    def forward(q, k, v, ends, ends_k, most, most_k, causal, scale, window, *rest):
        assert q.dtype == k.dtype == v.dtype and q.dtype in (torch.bfloat16, torch.float16), q.dtype
        assert q.shape[-1] % 8 == 0 and q.shape[-1] <= 256 and all(x.stride(-1) == 1 for x in (q, k, v))
        assert ends.dtype == torch.int32 and int(ends.diff().max()) == most == most_k and not causal
        attentions.append((tuple(q.shape), q.dtype, "varlen"))
        lse = q.new_zeros(q.shape[1], q.shape[0], dtype=torch.float32)
        out = per_text(q, k, v, ends, scale, window).to(q.dtype)
        return out, lse, torch.zeros(2, dtype=torch.uint64)

    def backward(grad, q, k, v, out, lse, ends, ends_k, most, most_k, causal, state, scale, window):
        with torch.enable_grad(), torch.inference_mode(False):
            q_l, k_l, v_l = (x.detach().clone().requires_grad_() for x in (q, k, v))
            again = per_text(q_l, k_l, v_l, ends, scale, window)
            return torch.autograd.grad(again, (q_l, k_l, v_l), grad.float())

    VARLEN = {"_varlen_attn": forward, "_varlen_attn_backward": backward}

    class Card(TorchDispatchMode):
        """Inside, `cuda` is the card.

        events       what the host waited for, since they were last cleared
        copies       how many came to it from pinned memory, and from other
        attentions   what torch's attention was asked: q's shape and type, and "varlen", "mask" or ""
        """

        capability, name = (8, 0), "NVIDIA A100-SXM4-40GB"

        def __init__(self):
            super().__init__()
            self.events, self.attentions, self.copies = events, attentions, copies

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            with self:  # in inference mode what is made of other operations comes here whole
                out = func.decompose(*args, **(kwargs or {}))
            return compute(func, args, kwargs or {}) if out is NotImplemented else out

        @contextlib.contextmanager
        def plugged(self) -> Iterator[Card]:
            """The card as torch's questions find it."""
            answers = {
                "_lazy_init": lambda: None,
                "is_available": lambda: True,
                "device_count": lambda: 1,
                "current_device": lambda: 0,
                "get_device_capability": lambda device=None: self.capability,
                "get_device_name": lambda device=None: self.name,
                "is_bf16_supported": lambda including_emulation=True: self.capability >= (8, 0),
                "manual_seed_all": lambda seed: None,
                "empty_cache": lambda: None,
                "reset_peak_memory_stats": lambda device=None: None,
                "get_device_properties": lambda device=None: types.SimpleNamespace(total_memory=16 * 2**30),
                "max_memory_allocated": lambda device=None: 123_456_789,
            }
            was = {name: getattr(torch.cuda, name) for name in answers}
            flash, theirs = torch.backends.cuda.is_flash_attention_available, F.scaled_dot_product_attention
            torch.__future__.set_overwrite_module_params_on_conversion(
                True
            )  # Module.to: no `.data =` across types
            try:
                for name, answer in answers.items():
                    setattr(torch.cuda, name, answer)
                torch.backends.cuda.is_flash_attention_available = lambda: True
                F.scaled_dot_product_attention = functools.partial(noted, theirs)
                with self:
                    yield self
            finally:
                for name, answer in was.items():
                    setattr(torch.cuda, name, answer)
                torch.backends.cuda.is_flash_attention_available = flash
                F.scaled_dot_product_attention = theirs
                torch.__future__.set_overwrite_module_params_on_conversion(False)

    return Card
