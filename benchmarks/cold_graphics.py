"""The first run of a model on this machine's graphics card, nothing compiled before: where its time goes.

    python -m benchmarks.cold_graphics [workload …] [--rounds 5] [--kernels] [--out file.json]

Each round is a process of its own, without files of Nearfield's or of the driver's. The clock starts when the weights
are in the process's memory and the device is open, and stops when the output is there. Parts overlap: for each, when
it first began and last ended, and for how long it kept a thread busy in all. `--kernels` compiles each kernel by
itself, one after the other, and then all with several threads.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
THREADS = (1, 4, 16)
Span = tuple[float, float]  # seconds on the clock of this process


class Parts:
    """Intervals in which parts of the work ran, by name."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Span]] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """One interval."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spans.setdefault(name, []).append((began, time.perf_counter()))

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, each of its calls an interval."""

        def call(*args: Any, **options: Any) -> Any:
            with self.timed(name):
                return function(*args, **options)

        return call

    def table(self, start: float) -> dict[str, list[float]]:
        """Name -> first beginning, last end, busy time, in ms since `start`."""
        return {
            name: [1e3 * (min(a for a, _ in spans) - start), 1e3 * (max(b for _, b in spans) - start),
                   1e3 * sum(b - a for a, b in spans)]
            for name, spans in self.spans.items()
        }  # fmt: skip


def first_run(name: str) -> dict[str, Any]:
    """Milliseconds of the first run in this process, in parts."""
    parts = Parts()
    with parts.timed("import"):
        import numpy as np

        import nearfield as nf
        from nearfield.compiler import build as building
        from nearfield.compiler import cached
        from nearfield.device import wgpu, wgpu_pipeline
        from nearfield.jit import Jit

        from . import graphics, weights, workloads
    with parts.timed("open"):
        device: Any = nf.use("webgpu").__enter__()
    job = {w.name: w for w in graphics.ROWS}[name].make()
    places = [
        ("trace", Jit, "_record"), ("build", cached, "cached_build"), ("spell", building, "spell_kernel"),
        ("read", wgpu.WgpuDevice, "read"), ("upload", wgpu.WgpuDevice, "put"), ("allocate", wgpu.WgpuDevice, "alloc"),
        ("submit", wgpu.WgpuDevice, "submit"), ("bind", wgpu.WgpuDevice, "bind"),
        ("wait for pipelines", wgpu_pipeline.Pipelines, "compile"),
    ]  # fmt: skip
    for part, owner, attribute in places:
        mock.patch.object(owner, attribute, parts.wrapped(part, getattr(owner, attribute))).start()
    gpu = device._gpu
    for part, attribute in (("module", "create_shader_module"), ("pipeline", "create_compute_pipeline")):
        mock.patch.object(gpu, attribute, parts.wrapped(part, getattr(gpu, attribute))).start()
    start = time.perf_counter()
    inputs, step = [nf.asarray(x) for x in job.inputs.values()], nf.jit(job.function)
    output = np.asarray(workloads.first(step(*inputs)))
    total = time.perf_counter() - start
    start_again = time.perf_counter()
    np.asarray(workloads.first(step(*inputs)))
    return {
        "total": total * 1e3,
        "second": (time.perf_counter() - start_again) * 1e3,
        "parts": parts.table(start),
        "rms": weights.summary(output)["rms"],
        "device": device.description,
    }


def kernels_of(name: str) -> list[Any]:
    """The kernels of a workload's Program."""
    import nearfield as nf
    from nearfield.compiler.build import build
    from nearfield.runtime import target_of

    from . import graphics

    job = {w.name: w for w in graphics.ROWS}[name].make()
    recording, _ = nf.jit(job.function).recorded(*[nf.asarray(x) for x in job.inputs.values()])
    target = replace(target_of(nf.runtime.current_device()), spelled=None)  # which would compile them before
    return list(build(recording.graph, target).program.kernels)


def compile_all(name: str, threads: int) -> dict[str, Any]:
    """Milliseconds to compile each kernel of a workload in this process, and all."""
    import nearfield as nf

    device: Any = nf.use("webgpu").__enter__()
    kernels = kernels_of(name)
    pipelines, rows = device.pipelines, []
    for kernel in kernels:
        pipelines.layout(kernel.bindings)

    def one(kernel: Any) -> None:
        began = time.perf_counter()
        module = device._gpu.create_shader_module(code=kernel.code)
        between = time.perf_counter()
        stage = {"module": module, "entry_point": "main"}
        device._gpu.create_compute_pipeline(layout=pipelines._layout(kernel.bindings)[1], compute=stage)
        rows.append((kernel.name, len(kernel.code), 1e3 * (between - began), 1e3 * (time.perf_counter() - between)))

    one(kernels[-1])  # the first pipeline of a process takes some more
    rows.clear()
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, kernels))
    return {"total": 1e3 * (time.perf_counter() - began), "kernels": rows}


def fresh(*arguments: str) -> Any:
    """What a new process prints as JSON, with no files of earlier ones."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {
            "NEARFIELD_CACHE": "off", "__GL_SHADER_DISK_CACHE": "0", "MESA_SHADER_CACHE_DISABLE": "true",
            "HOME": home, "XDG_CACHE_HOME": home,
        }  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.cold_graphics", *arguments]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the rounds, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["mobilenet_v2_1"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--child", choices=("run", "compile"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name = options.names[0]
        print(json.dumps(first_run(name) if options.child == "run" else compile_all(name, options.threads)))
        return
    for name in options.names:
        show_first_run(name, [fresh(name, "--child", "run") for _ in range(options.rounds)])
        if options.kernels:
            show_kernels(name, [fresh(name, "--child", "compile", "--threads", str(n)) for n in THREADS])


def show_first_run(name: str, rounds: list[dict[str, Any]]) -> None:
    """The round in the middle, in parts."""
    rounds.sort(key=lambda r: r["total"])
    middle = rounds[len(rounds) // 2]
    totals = [r["total"] for r in rounds]
    spread = f"{statistics.median(totals):.0f} ms ({totals[0]:.0f} to {totals[-1]:.0f})"
    print(
        f"{name} on {middle['device']}: first run {spread}, second {middle['second']:.1f} ms, rms {middle['rms']:.7g}"
    )
    for part, (begin, end, busy) in middle["parts"].items():
        print(f"    {part:20} from {begin:7.1f} to {end:7.1f}, busy {busy:7.1f} ms")
    sys.stdout.flush()


def show_kernels(name: str, runs: list[dict[str, Any]]) -> None:
    """Each kernel by itself, the slowest first, and all together."""
    for title, length, module, pipeline in sorted(runs[0]["kernels"], key=lambda row: -row[2] - row[3]):
        print(f"    {title:34} {length:6} characters, module {module:5.1f}, pipeline {pipeline:6.1f} ms")
    texts = sum(row[1] for row in runs[0]["kernels"])
    walls = ", ".join(f"{n} threads {r['total']:.0f} ms" for n, r in zip(THREADS, runs, strict=True))
    print(f"{name}: {len(runs[0]['kernels'])} kernels, {texts} characters: {walls}", flush=True)


if __name__ == "__main__":
    main()
