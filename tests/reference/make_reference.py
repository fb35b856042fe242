"""Write weights/reference/NAME.safetensors: slices of every stage for the fixed texts of `verify`.

Run with the extra `peers` installed: python tests/reference/make_reference.py [NAME ...]
A test with transformers installed derives them again and compares, so that they can't rot.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file

from minibert import catalogue, oracle, verify
from minibert.loading import load

MOST_BYTES = 250_000
NAMES = ("all-MiniLM-L6-v2", "all-mpnet-base-v2")


def derive(name: str) -> dict[str, torch.Tensor]:
    """The tensors of a reference file: ids, segments, lengths, and some features of each stage, marks of each gradient."""
    model = load(name, device="cpu")
    encoded = model.tokenize(verify.TEXTS)
    found = oracle.reference(model.report.source, encoded.ids, encoded.segments, model.config.pad_id)
    stride = verify.stride_of(found.stages)
    out = {stage: x[:, ::stride].contiguous() for stage, x in found.stages.items()}
    out |= {verify.GRADIENT_OF + name: verify.fingerprint(x) for name, x in found.gradients.items()}
    flat = [
        torch.tensor([i for text in x for i in text], dtype=torch.int32)
        for x in (encoded.ids, encoded.segments)
    ]
    lengths = torch.tensor([len(x) for x in encoded.ids], dtype=torch.int32)
    return out | {"ids": flat[0], "segments": flat[1], "lengths": lengths}


def main(names: tuple[str, ...]) -> None:
    """Write a file a name, and say how large it is."""
    for name in names:
        path = catalogue.package_folder("weights") / "reference" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file(
            derive(name), path, metadata={"transformers": verify.version(), "texts": "minibert.verify.TEXTS"}
        )
        path.chmod(0o644)
        size = path.stat().st_size
        print(f"{path.name}: {size:,} bytes")
        assert size < MOST_BYTES


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or NAMES)
