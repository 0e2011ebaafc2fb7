"""What takes a graphics card so little time that the host would be measured: products, simple functions, rows.

    python -m benchmarks.card_clock [--only word] [--rounds 40] [--small]

Programs run as a compiled function's do, one command buffer after the other, and the card tells when a buffer's steps
began and ended. Half a second of other work comes first. Outputs are compared with NumPy's in float64.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wgpu

import nearfield as nf
from nearfield import nn
from nearfield.compiler.build import build
from nearfield.device import open_device
from nearfield.device.call import find
from nearfield.device.wgpu import WgpuDevice
from nearfield.device.wgpu_session import WgpuSession
from nearfield.runtime import target_of
from nearfield.tensor import Node, Tensor
from nearfield.trace import trace

COUNT = 32  # matrices: together they are larger than a card's cache


@dataclass(frozen=True)
class Case:
    """A function, its inputs, how its outputs should begin, and its work: the least of bytes moved, or operations."""

    name: str
    function: Callable[..., Sequence[Tensor]]
    inputs: list[np.ndarray]
    want: dict[int, np.ndarray]
    work: float
    unit: str = "GB/s"


@dataclass(frozen=True)
class Weights:
    """The matrices as one kind of weights has them.

    given    what a function takes for each matrix
    product  of these and a vector
    real     the matrix in float64
    """

    given: list[list[np.ndarray]]
    product: Callable[..., Tensor]
    real: Callable[[int], np.ndarray]


def halves(n: int) -> Weights:
    """float16, so large that a product is about as long as its vector."""
    limit = (3 / n) ** 0.5
    one = np.random.default_rng(0).uniform(-limit, limit, n * n).astype("float16")
    all_ = [[np.roll(one, 4099 * i).reshape(n, n)] for i in range(COUNT)]
    return Weights(all_, lambda x, w: w @ x, lambda i: all_[i][0].astype("float64"))


def whole(n: int, bits: int, activations: str | None = None) -> Weights:
    """Numbers of 8 or 4 bits in groups of 32, as nf.quantize gives them."""
    rng = np.random.default_rng(bits)
    numbers = [rng.integers(-128, 128, (n, n * bits // 8), dtype="int8") for _ in range(COUNT)]
    size = 1 / ((4.6 if bits == 4 else 74) * n**0.5)
    scales = [(size * rng.uniform(0.9, 1.1, (n, n // 32))).astype("float16") for _ in range(COUNT)]

    def real(i: int) -> np.ndarray:
        wide = numbers[i]
        if bits == 4:  # byte j of four has number j of eight in its low half, and number j + 4 in the other
            halves = [(wide << 4 >> 4).reshape(n, -1, 4), (wide >> 4).reshape(n, -1, 4)]
            wide = np.stack(halves, axis=2)
        groups = wide.reshape(n, n // 32, 32) * scales[i].astype("float64")[:, :, None]
        return groups.reshape(n, n)

    def product(x: Tensor, w: Tensor, scale: Tensor) -> Tensor:
        return nf.quantized_matmul(x, w, scale, bits=bits, activations=activations)

    return Weights([list(pair) for pair in zip(numbers, scales, strict=True)], product, real)


def products(name: str, n: int, weights: Weights, dtype: str, chained: bool) -> Case:
    """COUNT products: all of one vector, or each of what the one before gave."""
    x = np.random.default_rng(1).uniform(-1, 1, n).astype(dtype)
    each = len(weights.given[0])

    def function(x: Tensor, *flat: Tensor) -> list[Tensor]:
        found = []
        for i in range(COUNT):
            y = weights.product(x, *flat[each * i : each * (i + 1)])
            found.append(y)
            x = y if chained else x
        return found[-1:] if chained else found

    real = x.astype("float64")
    if chained:
        for i in range(COUNT):
            real = weights.real(i) @ real
        want = {0: real}
    else:
        want = {i: weights.real(i) @ real for i in (0, COUNT - 1)}
    flat = [array for given in weights.given for array in given]
    return Case(
        f"{name}, {'in a chain' if chained else 'of one vector'}",
        function,
        [x, *flat],
        want,
        sum(a.nbytes for a in flat),
    )


def simple(name: str, count: int, dtype: str, function: Callable[..., Tensor], inputs: int) -> Case:
    """One function of each element."""
    arrays = [np.random.default_rng(i).uniform(-1, 1, 1 << 16).astype(dtype) for i in range(inputs)]
    arrays = [np.tile(a, count >> 16) for a in arrays]
    with nf.use("reference"):
        want = np.asarray(function(*(nf.asarray(a[: 1 << 16]) for a in arrays))).astype("float64")
    return Case(f"{name}, {dtype}", lambda *xs: [function(*xs)], arrays, {0: want}, arrays[0].nbytes * (inputs + 1.0))


def rows(name: str, count: int, function: Callable[[Tensor], Tensor]) -> Case:
    """A function of each row of 1024 numbers."""
    some = np.random.default_rng(0).uniform(-4, 4, (64, 1024)).astype("float32")
    array = np.tile(some, (count >> 16, 1))
    with nf.use("reference"):
        want = np.asarray(function(nf.asarray(some))).astype("float64")
    title = f"{name}, {len(array)} rows of 1024"
    moved = array.nbytes * (1 + want.size / some.size)
    return Case(title, lambda x: [function(x)], [array], {0: want}, moved)


def square(n: int) -> Case:
    """A product of two matrices."""
    x, w = (np.random.default_rng(i).uniform(-1, 1, (n, n)).astype("float32") for i in range(2))
    want = x[:64].astype("float64") @ w.astype("float64")
    return Case(f"matmul {n}, float32", lambda x, w: [x @ w], [x, w], {0: want}, 2.0 * n**3, "GFLOP/s")


def loaded(device: WgpuDevice, case: Case) -> tuple[WgpuSession, list[Any]]:
    """The case's Program on the device, and its inputs."""
    given = [Tensor(Node(None, (), {}, a.shape, nf.asarray(np.zeros(1, a.dtype)).dtype)) for a in case.inputs]
    graph, _ = trace([y.node for y in case.function(*given)], [x.node for x in given])
    session = device.load(build(graph, target_of(device)).program)
    blocks = []
    for array in case.inputs:
        blocks.append(device.alloc(array.nbytes))
        device.write(blocks[-1], array)
    return session, blocks


def clocked(device: WgpuDevice, session: WgpuSession, blocks: list[Any], rounds: int) -> list[float]:
    """Microseconds of each of so many runs, which follow each other without the host's waiting."""
    gpu, call = device._gpu, find(session._calls, "main")
    marks = gpu.create_query_set(type="timestamp", count=2 * rounds)
    read = wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC
    told = gpu.create_buffer(size=16 * rounds, usage=read)
    outputs = session.run("main", blocks)
    tape = session._tape(call, [memory.key for memory in (*blocks, *outputs)])
    until = time.perf_counter() + 0.5
    while time.perf_counter() < until:
        for _ in range(20):
            device.submit(tape)
        device.read(outputs[0], 4)
    for n in range(rounds):
        encoder = gpu.create_command_encoder()
        places = {"beginning_of_pass_write_index": 2 * n, "end_of_pass_write_index": 2 * n + 1}
        compute = encoder.begin_compute_pass(timestamp_writes={"query_set": marks, **places})
        for batch in tape.batches:
            device._write_batch(compute, batch)
        compute.end()
        gpu.queue.submit([encoder.finish()])
    encoder = gpu.create_command_encoder()
    encoder.resolve_query_set(marks, 0, 2 * rounds, told, 0)
    gpu.queue.submit([encoder.finish()])
    times = np.frombuffer(gpu.queue.read_buffer(told), "uint64").astype("int64")
    return [float(t) / 1e3 for t in times[1::2] - times[::2]]


def line(device: WgpuDevice, case: Case, rounds: int) -> str:
    """The case's row of the table."""
    session, blocks = loaded(device, case)
    times = clocked(device, session, blocks, rounds)
    outputs = session.run("main", blocks)
    apart = 0.0
    for n, want in case.want.items():
        dtype = session.program.buffers[session.program.entries[0].outputs[n]].dtype
        got = np.frombuffer(device.read(outputs[n], want.size * np.dtype(dtype).itemsize), dtype)
        apart = max(apart, float(np.linalg.norm(got - want.ravel()) / np.linalg.norm(want)))
    session.close()
    us = statistics.median(times)
    rate = f"{case.work / us / 1e3:6.0f} {case.unit:7}"
    return f"{case.name:44} {us:9.1f} µs (least {min(times):.1f})  {rate}  error {apart:.0e}"


def cases(small: bool) -> list[tuple[str, Callable[[], Case]]]:
    """By name; each is made when its turn comes, since the weights take a gigabyte."""
    n, count = (256, 1 << 17) if small else (4096, 1 << 27)
    found: list[tuple[str, Callable[[], Case]]] = []
    kinds: dict[str, tuple[Callable[[], Weights], str]] = {
        "float16": (lambda: halves(n), "float16"),
        "8 bits": (lambda: whole(n, 8), "float32"),
        "4 bits": (lambda: whole(n, 4), "float32"),
        "4 bits, rounded inputs": (lambda: whole(n, 4, "int8"), "float32"),
    }
    for name, (make, dtype) in kinds.items():
        title = f"{COUNT} matvec {n}, {name}"
        found += [(title, lambda c=c, m=make, d=dtype, t=title: products(t, n, m(), d, c)) for c in (False, True)]
    for dtype, size in (("float32", count >> 1), ("float16", count)):
        found.append((f"add {dtype}", lambda d=dtype, s=size: simple("a + b", s, d, lambda a, b: a + b, 2)))
        found.append((f"scale {dtype}", lambda d=dtype, s=size: simple("1.5 a", s, d, lambda a: a * 1.5, 1)))
        found.append(
            (f"gate {dtype}", lambda d=dtype, s=size: simple("a tanh(b)", s, d, lambda a, b: a * nf.tanh(b), 2))
        )
    kinds_of_rows: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax": nn.softmax,
        "layer norm": lambda x: nn.layer_norm(x, nf.ones(1024), nf.zeros(1024)),
        "sum": lambda x: nf.sum(x, axis=-1),
        "max": lambda x: nf.max(x, axis=-1),
    }
    for name, function in kinds_of_rows.items():
        for size in (count >> 1, 2 * count):
            found.append((f"rows {name}", lambda f=function, n=name, s=size: rows(n, s, f)))
    found += [(f"matmul {n}", lambda n=n: square(n)) for n in ((128,) if small else (1024, 4096))]
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--small", action="store_true", help="for a processor that plays a graphics card")
    options = parser.parse_args()
    device = open_device("webgpu")
    assert isinstance(device, WgpuDevice)
    print(device.description)
    for name, make in cases(options.small):
        if options.only in name:
            print(line(device, make(), options.rounds), flush=True)


if __name__ == "__main__":
    main()
