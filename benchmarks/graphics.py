"""Nearfield and PyTorch on this machine's graphics card, the same work and weights; outputs compared.

    python -m benchmarks.graphics [--only word] [--rounds 7] [--out benchmarks/results/gpu.json]

Nearfield runs through wgpu; PyTorch, if it is installed with CUDA, from a CUDA graph, and without tensor cores for
float32. A round starts the work many times and waits once; a figure is the median of rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import nearfield as nf

from . import models, weights, workloads
from .workloads import Job, Workload

M, G = 1e6, 1e9
Run = Callable[[], Any]  # starts the work once; the result can be waited for


def row(
    name: str, title: str, group: str, make: Callable[[], Job], flops: float, moved: float, **spec: Any
) -> Workload:
    """A row for graphics cards."""
    return Workload(name, title, group, make, flops, moved, spec)


def operator(name: str, title: str, make: Callable[[], Job], flops: float, moved: float, **spec: Any) -> Workload:
    """A row; bytes and operations as in workloads.py."""
    return row(name, title, "operator", make, flops, moved, **spec)


def batched(name: str, title: str, make: Callable[..., Job], flops: float, moved: float, kind: str) -> list[Workload]:
    """A model with one and with 32 examples."""
    return [
        row(f"{name}_{n}", f"{title}, batch {n}", "model", partial(make, batch=n), flops * n, moved, kind=kind)
        for n in (1, 32)
    ]


def _product(n: int) -> Workload:
    make = partial(workloads.product, n, n, n, False)
    return operator(f"matmul_{n}", f"matmul {n}", make, 2.0 * n**3, 12.0 * n * n, kind="matmul", fixed=False)


LONG = {"softmax": workloads.softmax, "layer_norm": workloads.layer_norm}
ROWS = [
    *map(_product, (1024, 2048, 4096)),
    operator("matvec_4096_w", "matvec 4096", partial(workloads.product, 1, 4096, 4096, True), 33.6 * M, 67.1 * M,
             kind="matmul", fixed=True),
    operator("conv3x3_32_56_64", "convolution 3x3, 32 x 56 x 56 x 64",
             partial(workloads.convolution, 56, 64, 64, 3, 1, 32), 7.4 * G, 51.5 * M, kind="conv", window=3, groups=1),
    operator("chain_64m", "elementwise chain, 64 M", partial(workloads.chain, 8192), 1.6 * G, 1342 * M, kind="chain"),
    *(operator(f"{kind}_64m", f"{kind.replace('_', ' ')}, 65536 x 1024", partial(make, 1024, 65536), 1.3 * G, 537 * M,
               kind=kind, n=1024) for kind, make in LONG.items()),
    operator("attention_512", "attention, 12 heads of 512 x 64", partial(workloads.attention, 12, 512, 64), 805 * M,
             6.3 * M, kind="attention"),
    *batched("mobilenet_v2", "MobileNetV2", partial(workloads.image, models.MobileNetV2), 602 * M, 14.5 * M, "image"),
    *batched("resnet50", "ResNet-50", partial(workloads.image, models.ResNet50), 8.18 * G, 103 * M, "image"),
    *batched("minilm_l6", "MiniLM-like encoder", partial(workloads.text, "minilm_l6"), 2.87 * G, 43 * M, "text"),
    *(workloads.WORKLOADS[name] for name in ("gpt2_decode", "train_mlp", "train_cnn", "train_encoder")),
]  # fmt: skip


def nearfield_job(workload: Workload) -> tuple[Run, Run, Callable[[], Any]]:
    """Start; wait until all that was started is done; the last result as an array."""
    job = workload.make()
    inputs, step = [nf.asarray(x) for x in job.inputs.values()], nf.jit(job.function)
    last: list[Any] = []

    def start() -> None:
        last[:] = [workloads.first(step(*inputs))]

    def wait() -> None:  # until one element of the last result can be read
        result = last[0]
        (nf.reshape(result, (-1,))[:1] if result.ndim else result).tolist()

    return start, wait, lambda: np.asarray(last[0])


def torch_job(workload: Workload) -> tuple[Run, Run, Callable[[], Any]]:
    """The same calls for PyTorch on CUDA: a graph where it can be captured, else eager calls."""
    import torch

    from .peers import torch_models

    torch_models.DEVICE = "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    run = torch_models.made(workload)
    last: list[Any] = []
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        first = run().clone()
        for _ in range(2):
            last[:] = [run()]
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        last[:] = [run()]
    return (
        graph.replay,
        torch.cuda.synchronize,
        lambda: (first if workload.group == "training" else last[0]).cpu().numpy(),
    )


def _warm_up(start: Run, wait: Callable[[], Any]) -> None:
    """Work for half a second: a card's clocks rise only then; what is timed earlier takes two to five times as long."""
    until = time.perf_counter() + 0.5
    while time.perf_counter() < until:
        for _ in range(20):
            start()
        wait()


def measure(
    make: Callable[[Workload], tuple[Run, Run, Callable[[], Any]]], workload: Workload, rounds: int
) -> dict[str, Any]:
    """Milliseconds of one run, and the output's fingerprint: of a training step, the first loss."""
    began = time.perf_counter()
    start, wait, result = make(workload)
    start()
    wait()
    first = time.perf_counter() - began
    output = weights.summary(result())
    began = time.perf_counter()
    start()
    wait()
    count = max(1, min(200, int(0.2 / max(time.perf_counter() - began, 1e-5))))
    _warm_up(start, wait)
    times, host = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(count):
            start()
        host.append((time.perf_counter() - began) / count)
        wait()
        times.append((time.perf_counter() - began) / count * 1e3)
    median = statistics.median(times)
    return {
        "left": {"median": median, "low": min(times), "high": max(times), "runs": count * rounds},
        "first": {"load": first * 1e3, "output": output},
        "host_us": statistics.median(host) * 1e6,
        "tflops": workload.flops / median / 1e9,
        "gbs": workload.bytes / median / 1e6,
    }


def libraries() -> dict[str, Callable[[Workload], tuple[Run, Run, Callable[[], Any]]]]:
    """What can run here."""
    found = {"nearfield": nearfield_job}
    try:
        import torch

        if torch.cuda.is_available():
            found["torch"] = torch_job
    except ImportError:
        print("PyTorch is not installed: its column is left out.")
    return found


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    options = parser.parse_args()
    data: dict[str, Any] = {"bench": {}, "titles": {}}
    with nf.use("webgpu") as device:
        data["machine"] = {"gpu": device.description}
        print(device.description)
        for workload in (w for w in ROWS if options.only in w.name):
            entries: dict[str, Any] = {}
            for library, make in libraries().items():
                try:
                    entries[library] = measure(make, workload, options.rounds)
                except Exception as error:  # noqa: BLE001 - one row that fails must not hide the others
                    entries[library] = {"error": f"{type(error).__name__}: {error}"[:300]}
            data["bench"][workload.name], data["titles"][workload.name] = entries, workload.title
            print(line(workload.name, entries), flush=True)
            options.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def line(name: str, entries: dict[str, Any]) -> str:
    """A row in a line of text, with the difference of the outputs."""
    words = [
        f"{library} {e['left']['median']:.3f} ms "
        f"({e['tflops']:.1f} TFLOP/s, {e['gbs']:.0f} GB/s, host {e['host_us']:.0f} µs)"
        if "left" in e else f"{library} {e['error'][:120]}"
        for library, e in entries.items()
    ]  # fmt: skip
    rms = [e["first"]["output"]["rms"] for e in entries.values() if "first" in e]
    apart = f" | outputs differ by {abs(rms[0] - rms[-1]) / max(abs(rms[0]), 1e-30):.0e}" if len(rms) > 1 else ""
    return f"{name}: " + " | ".join(words) + apart


if __name__ == "__main__":
    main()
