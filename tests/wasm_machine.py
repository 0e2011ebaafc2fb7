"""A machine for tests of the WebAssembly target: kernels made by hand or from records, run by wasmtime."""

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from nearfield import scalar as k
from nearfield.compiler import wasm_loops
from nearfield.compiler.kernel import Kernel, Store
from nearfield.compiler.wasm_contraction import tiling
from nearfield.compiler.wasm_generator import CRANELIFT, V8, CodeGenerator
from nearfield.compiler.wasm_module import Module, assemble
from nearfield.dtype import DTYPES
from nearfield.index import flatten
from nearfield.op import REGISTRY, Source
from nearfield.scalar import K

wasmtime = pytest.importorskip("wasmtime")
Array = np.ndarray[Any, Any]
ARGS = 1024  # address of the block of arguments
TICKETS = 4096  # address of the tickets: 64 bytes a thread
FIRST = 8192  # address of the first buffer
GUARD = 64  # bytes around buffers that no kernel may change


@functools.cache
def engine() -> Any:
    config = wasmtime.Config()
    config.wasm_simd = True
    config.wasm_relaxed_simd = True
    config.wasm_threads = True
    config.shared_memory = True
    return wasmtime.Engine(config)


class Machine:
    """A module in a memory with buffers; `run` calls an entry, on several threads if asked."""

    def __init__(self, module: Module, arrays: Sequence[Array]) -> None:
        from nearfield.device.wasmtime_call import SharedMemory

        self.arrays = arrays
        self.places = []
        at = FIRST
        for a in arrays:
            self.places.append(at)
            at += max(16, -(-a.nbytes // 16) * 16) + GUARD
        memory = SharedMemory(engine(), wasmtime.MemoryType(wasmtime.Limits(1, 65536), shared=True))
        memory.grow(at // 65536 + 1)
        self.memory = memory
        self.view = np.frombuffer(
            (ctypes.c_ubyte * at).from_address(ctypes.addressof(memory.data_ptr().contents)), np.uint8
        )
        self.view[:] = 0xAB
        self.view[TICKETS:FIRST] = 0
        for place, a in zip(self.places, arrays, strict=True):
            self.view[place : place + a.nbytes] = np.frombuffer(a.tobytes(), np.uint8)
        self.code = wasmtime.Module(engine(), module.bytes)

    def run(self, entry: str = "main", threads: int = 1) -> None:
        words = self.view[ARGS : ARGS + 4 * (5 + len(self.places))].view(np.uint32)
        words[:5] = (0, 0, 1, 0, TICKETS)
        words[5:] = self.places

        def share(thread: int) -> None:
            store = wasmtime.Store(engine())
            instance = wasmtime.Instance(store, self.code, [self.memory])
            instance.exports(store)[f"run_{entry}"](store, ARGS, thread, threads)

        workers = [threading.Thread(target=share, args=(n,)) for n in range(1, threads)]
        for worker in workers:
            worker.start()
        share(0)
        for worker in workers:
            worker.join()
        assert not self.view[TICKETS:FIRST].any(), "tickets are new again for the next call"

    def read(self, n: int) -> Array:
        a, place = self.arrays[n], self.places[n]
        room = max(16, -(-a.nbytes // 16) * 16)
        assert (self.view[place + room : place + room + GUARD] == 0xAB).all(), "written beyond the buffer"
        return self.view[place : place + a.nbytes].copy().view(a.dtype).reshape(a.shape)


def executed(
    kernel: Kernel,
    inputs: Sequence[Array],
    *outputs: Array,
    relaxed: bool = True,
    threads: int = 1,
    generator: CodeGenerator = V8,
) -> list[Array]:
    """What a kernel makes of its inputs; outputs say the shape and dtype of the arguments that follow."""
    numbers = tuple(range(len(kernel.arguments)))
    worth = wasm_loops.WORTH if threads == 1 else 1  # however small the work, all threads take part
    with patch.object(wasm_loops, "WORTH", worth):
        module = assemble([kernel], [(0, numbers)], [("main", 0, 1)], relaxed=relaxed, generator=generator)
    machine = Machine(module, [*inputs, *outputs])
    machine.run(threads=threads)
    for n, a in enumerate(inputs):
        if n not in kernel.written:
            assert machine.read(n).tobytes() == a.tobytes(), "an input was written"
    return [machine.read(n) for n in sorted(kernel.written)]


def source(n: int, a: Array) -> Source:
    dtype = DTYPES[a.dtype.name]

    def at(index: list[K], mask: K | None = None) -> K:
        return k.load(n, flatten(index, a.shape), dtype.compute, mask)

    return Source(a.shape, dtype, at)


def lowered(
    make: Callable[..., K], inputs: Sequence[Array], shape: tuple[int, ...], dtype: str, name: str = "test"
) -> Kernel:
    """make(index, sources) -> the element of the result."""
    k.restart()
    axes = tuple(k.fresh("i", n) for n in shape)
    value = make(list(axes), [source(n, a) for n, a in enumerate(inputs)])
    store = Store(len(inputs), flatten(axes, shape), value)
    return Kernel(name, axes, (store,), (*(DTYPES[a.dtype.name] for a in inputs), DTYPES[dtype]))


def op_kernel(name: str, inputs: Sequence[Array], attrs: dict[str, Any]) -> tuple[Kernel, tuple[int, ...], str]:
    op = REGISTRY[name]
    shape, dtype = op.infer([a.shape for a in inputs], [DTYPES[a.dtype.name] for a in inputs], attrs)
    kernel = lowered(
        lambda index, sources: op.element(index, sources, shape, dtype, attrs), inputs, shape, dtype.name, name
    )
    return kernel, shape, dtype.name


def check(name: str, *inputs: Array, tol: float = 1e-5, **attrs: Any) -> None:
    """An op's kernel against its meaning, with relaxed SIMD and without, on one thread and on two; tiles for all."""
    kernel, shape, dtype = op_kernel(name, inputs, attrs)
    want = REGISTRY[name].ref(*inputs, dtype=DTYPES[dtype], **attrs)
    results, ways = [], [(True, 1, V8), (True, 2, V8), (False, 1, V8)]
    if tiling(kernel, relaxed=True):
        ways += [(True, 2, CRANELIFT), (False, 1, CRANELIFT)]
    for relaxed, threads, generator in ways:
        zeros = np.zeros(shape, dtype)
        (got,) = executed(kernel, inputs, zeros, relaxed=relaxed, threads=threads, generator=generator)
        np.testing.assert_allclose(
            got.astype("float64"), want.astype("float64"), rtol=tol, atol=tol, err_msg=str(kernel)
        )
        results.append(got)
    assert results[0].tobytes() == results[1].tobytes(), "two threads give another result"


def normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype("float32")


INT = {"int32": 32, "uint32": 32, "int64": 64}
REAL_EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.7, -3.7, 1e-40, 1e10, -1e10, 3e38, 2147483648.0,
              -2147483904.0, 4294967296.0, np.inf, -np.inf, np.nan]  # fmt: skip


def edges(dtype: str) -> Array:
    if dtype.startswith("float"):
        extra = [1e300, 9.3e18] if dtype == "float64" else []
        with np.errstate(over="ignore"):
            return np.array(REAL_EDGES + extra, dtype)
    if dtype == "bool":
        return np.array([False, True])
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return np.array(
        sorted({0, 1, 2, 3, 7, 31, 32, 33, 1000003, high, high - 1, low, low // 2, *([-1, -2, -7] if low < 0 else [])}),
        dtype,
    )
