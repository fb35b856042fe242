"""OpenVINO, in float32 and in int8, one text batch after the other or several side by side, whichever is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openvino
from exported import INPUTS, exported
from serving import Contestant, Groups, Job, Read, serve

CALIBRATION = 128  # texts that show int8 how large activations get


def reader(model: Any, job: Job, hint: str) -> tuple[Read, dict[str, Any]]:
    """Compiled for the CPU; the hint says whether batches wait for one another."""
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", settings | {"INFERENCE_NUM_THREADS": job.threads})
    queue = openvino.AsyncInferQueue(compiled)  # as many at once as the hint makes streams

    def read(groups: Groups) -> Iterator[np.ndarray]:
        found: dict[int, np.ndarray] = {}
        queue.set_callback(lambda done, i: found.update({i: done.get_output_tensor(0).data.copy()}))
        for i, places in enumerate(groups):
            queue.start_async(dict(zip(INPUTS, job.padded(places))), i)
        queue.wait_all()
        return (found[i] for i in range(len(groups)))

    return read, settings | {"openvino": openvino.__version__, "streams": len(queue)}


def float32(job: Job) -> Any:
    """The graph as it was exported; OpenVINO fuses by itself."""
    return openvino.Core().read_model(exported(job))


def int8(job: Job) -> Any:
    """Weights and activations in int8, scaled by what some of the texts came to (nncf)."""
    import nncf

    places = range(0, len(job.ids), max(1, len(job.ids) // CALIBRATION))
    shown = [dict(zip(INPUTS, job.padded([place]))) for place in places]
    return nncf.quantize(
        float32(job),
        nncf.Dataset(shown),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(shown),
    )


def hinted(make: Callable[[Job], Any]) -> Callable[[Job], list[tuple[Read, dict[str, Any]]]]:
    """The model with either hint."""

    def both(job: Job) -> list[tuple[Read, dict[str, Any]]]:
        model = make(job)
        return [reader(model, job, hint) for hint in ("LATENCY", "THROUGHPUT")]

    return both


if __name__ == "__main__":
    serve(
        [
            Contestant("OpenVINO float32, sorted", "texts of like length together", hinted(float32)),
            Contestant(
                "OpenVINO int8, sorted",
                "quantized by nncf after a look at texts",
                hinted(int8),
                numbers="int8",
            ),
        ]
    )
