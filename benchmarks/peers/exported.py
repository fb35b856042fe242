"""The encoder as an ONNX graph with free B and T, for the engines that read one."""

from __future__ import annotations

from pathlib import Path

import torch
from serving import Job
from transformers import AutoModel

INPUTS = ("input_ids", "attention_mask")


class Hidden(torch.nn.Module):
    """Token ids and mask (B, T) to hidden states (B, T, D), by place instead of by name."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state


def exported(job: Job) -> Path:
    """The file, written once a process. By torch's older exporter: ONNX Runtime's fusions know its patterns."""
    path = Path(job.work, "encoder.onnx")
    if not path.exists():
        model = AutoModel.from_pretrained(job.weights, attn_implementation="eager", dtype=torch.float32)
        ids = torch.arange(10).view(2, 5) + 1
        mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
        torch.onnx.export(
            Hidden(model.eval()),
            (ids, mask),
            str(path),
            input_names=list(INPUTS),
            output_names=["hidden"],
            dynamic_axes={name: {0: "B", 1: "T"} for name in (*INPUTS, "hidden")},
            opset_version=17,
            dynamo=False,
        )
    return path
