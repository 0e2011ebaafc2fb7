"""Time what users do, on every device that is here.

    python benchmarks/run.py [device …] [--only name] [--json file]

Each figure is the median of rounds; a round runs the work several times and waits once. The spread is
(p90 - p10) / median.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nearfield as nf
from nearfield import nn, optim

RNG = np.random.default_rng(0)


def array(*shape: int) -> Any:
    return nf.asarray(RNG.standard_normal(shape).astype("float32"))


def matmul(n: int) -> tuple[Callable[[], Any], float, str]:
    a, b = array(n, n), array(n, n)
    product = nf.jit(lambda a, b: nf.matmul(a, b))
    return lambda: product(a, b), 2.0 * n**3, "GFLOP/s"


def convolution(batch: int, size: int, channels: int) -> tuple[Callable[[], Any], float, str]:
    x, layer = array(batch, size, size, channels), nn.Conv2d(channels, channels, 3, padding=1)
    run = nf.jit(lambda x: layer(x))
    return lambda: run(x), 2.0 * batch * size * size * channels * channels * 9, "GFLOP/s"


def chain(n: int) -> tuple[Callable[[], Any], float, str]:
    x, y = array(n), array(n)
    run = nf.jit(lambda x, y: nf.maximum(x * 1.5 + y, 0.0) * x - y * 0.5)
    return lambda: run(x, y), 12.0 * n, "GB/s"


def softmax(rows: int, row: int) -> tuple[Callable[[], Any], float, str]:
    x = array(rows, row)
    run = nf.jit(lambda x: nn.softmax(x))
    return lambda: run(x), 8.0 * rows * row, "GB/s"


def layer_norm(rows: int, row: int) -> tuple[Callable[[], Any], float, str]:
    x, layer = array(rows, row), nn.LayerNorm(row)
    run = nf.jit(lambda x: layer(x))
    return lambda: run(x), 8.0 * rows * row, "GB/s"


def total(n: int) -> tuple[Callable[[], Any], float, str]:
    x = array(n)
    run = nf.jit(lambda x: nf.sum(x))
    return lambda: run(x), 4.0 * n, "GB/s"


def training(model: Any, x: Any, classes: int) -> tuple[Callable[[], Any], float, str]:
    y = nf.asarray(RNG.integers(0, classes, x.shape[0]).astype("int32"))
    optimizer = optim.Adam(1e-3)
    optimizer.init(model)
    both = nn.value_and_grad(model, lambda m, x, y: nf.mean(nn.losses.cross_entropy(m(x), y)))

    @nf.jit
    def step(x: Any, y: Any) -> Any:
        loss, grads = both(model, x, y)
        optimizer.update(model, grads)
        return loss

    return lambda: step(x, y), 1.0, "steps/s"


def mlp() -> tuple[Callable[[], Any], float, str]:
    return training(nn.Sequential(nn.Linear(784, 512), nn.relu, nn.Linear(512, 10)), array(128, 784), 10)


def cnn() -> tuple[Callable[[], Any], float, str]:
    layers = [
        nn.Conv2d(1, 16, 3, padding=1),
        nn.relu,
        nn.MaxPool(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.relu,
        nn.MaxPool(2),
    ]
    return training(nn.Sequential(*layers, nn.Flatten(), nn.Linear(1568, 10)), array(64, 28, 28, 1), 10)


WORK: dict[str, Callable[[], tuple[Callable[[], Any], float, str]]] = {
    "matmul 512": lambda: matmul(512),
    "matmul 1024": lambda: matmul(1024),
    "matmul 4096": lambda: matmul(4096),
    "conv 3x3 56x56x64": lambda: convolution(1, 56, 64),
    "conv 3x3 32x56x56x64": lambda: convolution(32, 56, 64),
    "chain 4 M": lambda: chain(4 << 20),
    "chain 64 M": lambda: chain(64 << 20),
    "softmax 1024²": lambda: softmax(1024, 1024),
    "softmax 65536x1024": lambda: softmax(65536, 1024),
    "layer norm 1024²": lambda: layer_norm(1024, 1024),
    "sum 4 M": lambda: total(4 << 20),
    "sum 64 M": lambda: total(64 << 20),
    "MLP training step": mlp,
    "CNN training step": cnn,
}
LARGE = ("4096", "64 M", "65536", "32x56")  # only for hardware


def wait(result: Any) -> None:
    """Until the last of the queued runs is done: read one element of its result."""
    leaves = result if isinstance(result, (tuple, list)) else [result]
    (leaves[-1].reshape((-1,))[:1] if leaves[-1].ndim else leaves[-1]).tolist()


def measure(make: Callable[[], tuple[Callable[[], Any], float, str]], rounds: int) -> dict[str, Any]:
    began = time.perf_counter()
    run, amount, unit = make()
    wait(run())
    first = time.perf_counter() - began
    began = time.perf_counter()
    wait(run())
    once = time.perf_counter() - began
    count = max(1, min(200, int(0.2 / max(once, 1e-5))))
    times, host = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(count):
            result = run()
        host.append((time.perf_counter() - began) / count)
        wait(result)
        times.append((time.perf_counter() - began) / count)
    times.sort()
    median = statistics.median(times)
    spread = (times[int(0.9 * (len(times) - 1))] - times[int(0.1 * (len(times) - 1))]) / median
    rate = amount / median / (1e9 if unit != "steps/s" else 1.0)
    return {
        "ms": median * 1e3,
        "spread": spread,
        "rate": rate,
        "unit": unit,
        "first_ms": first * 1e3,
        "host_us": statistics.median(host) * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("devices", nargs="*")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
    for name in options.devices or ["wasm", "webgpu"]:
        with nf.use(name) as device:
            hardware = getattr(device, "is_hardware", False)
            print(f"\n{name}: {device.description}")
            print(f"{'work':24} {'ms':>10} {'rate':>10} {'':8} {'spread':>7} {'first ms':>9} {'host µs':>8}")
            for work, make in WORK.items():
                if options.only not in work or (not hardware and any(word in work for word in LARGE)):
                    continue
                r = measure(make, options.rounds)
                results[f"{name}/{work}"] = r
                rate = f"{r['ms']:10.3f} {r['rate']:10.1f} {r['unit']:8}"
                print(f"{work:24} {rate} {r['spread']:7.1%} {r['first_ms']:9.1f} {r['host_us']:8.1f}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
