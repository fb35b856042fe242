"""ONNX Runtime: BERT's layers fused by its own optimizer, in float32 and with weights in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from exported import INPUTS, exported
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from serving import Contestant, Job, Read, one_by_one, serve


def fused(job: Job) -> tuple[Path, dict[str, Any]]:
    """The graph after onnxruntime.transformers.optimizer, and how many attentions it put together."""
    path = Path(job.work, "fused.onnx")
    graph = optimizer.optimize_model(
        str(exported(job)), model_type="bert", num_heads=job.heads, hidden_size=job.width, opt_level=0
    )
    graph.save_model_to_file(str(path))
    counts = graph.get_fused_operator_statistics()
    fused_into = {name: n for name, n in counts.items() if n}
    return path, {"onnxruntime": onnxruntime.__version__, "fused": fused_into}


def session(path: Path, job: Job) -> Read:
    """A session on the CPU with all of its own optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    run = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run
    return one_by_one(lambda places: run(None, dict(zip(INPUTS, job.padded(places))))[0])


def float32(job: Job) -> list[tuple[Read, dict[str, Any]]]:
    """Fused, else as exported."""
    path, settings = fused(job)
    return [(session(path, job), settings)]


def int8(job: Job) -> list[tuple[Read, dict[str, Any]]]:
    """The same with weights in int8, a scale a column, and activations scaled as they come.

    7 bits where the processor has no VNNI: there 8 of them overflow 16 bits (onnxruntime #6004).
    """
    path, settings = fused(job)
    quantized, short = path.with_name("int8.onnx"), not has_vnni()
    plain = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # what comes out of a fused layer
    quantize_dynamic(
        path,
        quantized,
        per_channel=True,
        reduce_range=short,
        weight_type=QuantType.QInt8,
        extra_options=plain,
    )
    settings |= {"dynamic": True, "per_channel": True, "reduce_range": short}
    return [(session(quantized, job), settings)]


def has_vnni() -> bool:
    """Whether /proc/cpuinfo says so; False where there is none."""
    path = Path("/proc/cpuinfo")
    return path.exists() and "vnni" in path.read_text("utf-8")


if __name__ == "__main__":
    serve(
        [
            Contestant("ONNX Runtime float32, sorted", "BERT fused, texts of like length together", float32),
            Contestant("ONNX Runtime int8, sorted", "the same, quantized dynamically", int8, numbers="int8"),
        ]
    )
