"""A native peer: reads [call, arguments …] in lines of JSON, answers {"result": …} or {"error": …}.

python -m benchmarks.worker nearfield|onnxruntime|torch THREADS
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import weights
from .workloads import WORKLOADS, first

ROOT = Path(__file__).resolve().parent.parent
Run = Callable[[], Any]


@dataclass(frozen=True)
class Job:
    """A workload, ready to run.

    read  runs it and gives its output as a NumPy array
    left  runs it and leaves the output where it is, if that makes a difference
    """

    read: Run
    left: Run


def both(run: Run) -> Job:
    """A job that has one way to run."""
    return Job(run, run)


def onnxruntime_job(name: str, threads: int) -> Job:
    """A session on the file that peers/build_onnx.py wrote."""
    import onnxruntime

    workload = WORKLOADS[name]
    if workload.group == "training":
        raise NotImplementedError("not offered: onnxruntime does not train")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    path = ROOT / ".cache" / "peers" / "models" / f"{name}.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    pictures = workload.spec["kind"] in ("image", "conv")
    feeds = {k: x.transpose(0, 3, 1, 2).copy() if pictures else x for k, x in workload.make().inputs.items()}
    return both(lambda: session.run(None, feeds)[0])


def torch_job(name: str, threads: int) -> Job:
    """Eager PyTorch."""
    import torch

    from .peers.torch_models import array_job

    torch.set_num_threads(threads)
    return both(array_job(name))


def nearfield_job(name: str, threads: int) -> Job:
    """What `nf.export` wrote, through wasmtime; a step of training through jit. Inputs stay in place, as in a page."""
    import nearfield as nf

    from .exported import FOLDER

    workload = WORKLOADS[name]
    nf.use("wasm")
    if workload.group != "training":
        model, inputs = nf.load(FOLDER / name), [nf.asarray(x) for x in workload.make().inputs.values()]
        return Job(lambda: np.asarray(first(model(*inputs))), lambda: model(*inputs))
    job = workload.make()
    step, tensors = nf.jit(job.function), [nf.asarray(x) for x in job.inputs.values()]
    return both(lambda: np.asarray(step(*tensors)))


JOBS = {"nearfield": nearfield_job, "onnxruntime": onnxruntime_job, "torch": torch_job}


class Worker:
    """The calls that a driver makes."""

    def __init__(self, library: str, threads: int) -> None:
        self.make, self.threads, self.job = JOBS[library], threads, both(lambda: None)

    def prepare(self, name: str) -> dict[str, Any]:
        """As PagePeer.prepare."""
        began = time.perf_counter()
        self.job = self.make(name, self.threads)
        loaded = time.perf_counter()
        output = self.job.read()
        done = time.perf_counter()
        return {
            "load": (loaded - began) * 1e3,
            "predict": (done - loaded) * 1e3,
            "output": weights.summary(output),
        }

    def run(self, budget: float, least: int, most: int, left: bool) -> list[float]:
        """As PagePeer.run."""
        found: list[float] = []
        job = self.job.left if left else self.job.read
        start = time.perf_counter()
        while len(found) < least or (len(found) < most and (time.perf_counter() - start) * 1e3 < budget):
            began = time.perf_counter()
            job()
            found.append((time.perf_counter() - began) * 1e3)
        return found

    def release(self) -> None:
        """As PagePeer.release."""
        self.job = both(lambda: None)

    def memory(self) -> dict[str, float]:
        """The most memory that the process ever had."""
        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    """Answer until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    worker = Worker(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        name, *values = json.loads(line)
        try:
            answer = {"result": getattr(worker, name)(*values)}
        except Exception as error:  # noqa: BLE001 - whatever a library raises is its answer
            answer = {"error": f"{type(error).__name__}: {error}"[:600]}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
