"""The WebAssembly target: every instruction of K at its edges, every storage type, every shape of loop nest, against NumPy."""

import ctypes
import functools
import itertools
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import nearfield.ops.arithmetic
import nearfield.ops.contraction
import nearfield.ops.indexing
import nearfield.ops.movement
import nearfield.ops.reduce
import nearfield.ops.source  # noqa: F401  (they fill REGISTRY)
from nearfield import scalar as k
from nearfield.compiler.kernel import Kernel, Store
from nearfield.compiler.wasm import LANES, SCALAR
from nearfield.compiler.wasm_bytes import sleb, uleb
from nearfield.compiler.wasm_module import Module, assemble
from nearfield.dtype import DTYPES
from nearfield.index import flatten
from nearfield.op import REGISTRY, Source
from nearfield.scalar import K

wasmtime = pytest.importorskip("wasmtime")
Array = np.ndarray[Any, Any]
ARGS = 1024  # address of the block of arguments
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
        for place, a in zip(self.places, arrays, strict=True):
            self.view[place : place + a.nbytes] = np.frombuffer(a.tobytes(), np.uint8)
        self.code = wasmtime.Module(engine(), module.bytes)

    def run(self, entry: str = "main", threads: int = 1) -> None:
        words = self.view[ARGS : ARGS + 4 * (4 + len(self.places))].view(np.uint32)
        words[:4] = (0, 0, 1, 0)
        words[4:] = self.places

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

    def read(self, n: int) -> Array:
        a, place = self.arrays[n], self.places[n]
        room = max(16, -(-a.nbytes // 16) * 16)
        assert (self.view[place + room : place + room + GUARD] == 0xAB).all(), "written beyond the buffer"
        return self.view[place : place + a.nbytes].copy().view(a.dtype).reshape(a.shape)


def executed(kernel: Kernel, inputs: Sequence[Array], *outputs: Array, relaxed: bool = True, threads: int = 1) -> list[Array]:
    """What a kernel makes of its inputs; outputs say the shape and dtype of the arguments that follow."""
    numbers = tuple(range(len(kernel.arguments)))
    module = assemble([kernel], [(0, numbers)], [("main", 0, 1)], relaxed=relaxed)
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


def lowered(make: Callable[..., K], inputs: Sequence[Array], shape: tuple[int, ...], dtype: str, name: str = "test") -> Kernel:
    """make(index, sources) -> the element of the result."""
    k.restart()
    axes = tuple(k.fresh("i", n) for n in shape)
    value = make(list(axes), [source(n, a) for n, a in enumerate(inputs)])
    store = Store(len(inputs), flatten(axes, shape), value)
    return Kernel(name, axes, (store,), tuple(DTYPES[a.dtype.name] for a in inputs) + (DTYPES[dtype],))


def op_kernel(name: str, inputs: Sequence[Array], attrs: dict[str, Any]) -> tuple[Kernel, tuple[int, ...], str]:
    op = REGISTRY[name]
    shape, dtype = op.infer([a.shape for a in inputs], [DTYPES[a.dtype.name] for a in inputs], attrs)
    kernel = lowered(lambda index, sources: op.element(index, sources, shape, dtype, attrs), inputs, shape, dtype.name, name)
    return kernel, shape, dtype.name


def check(name: str, *inputs: Array, tol: float = 1e-5, **attrs: Any) -> None:
    """An op's kernel against its meaning, with relaxed SIMD and without, on one thread and on two."""
    kernel, shape, dtype = op_kernel(name, inputs, attrs)
    want = REGISTRY[name].ref(*inputs, dtype=DTYPES[dtype], **attrs)
    results = []
    for relaxed, threads in ((True, 1), (True, 2), (False, 1)):
        (got,) = executed(kernel, inputs, np.zeros(shape, dtype), relaxed=relaxed, threads=threads)
        np.testing.assert_allclose(got.astype("float64"), want.astype("float64"), rtol=tol, atol=tol, err_msg=str(kernel))
        results.append(got)
    assert results[0].tobytes() == results[1].tobytes(), "two threads give another result"


def normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype("float32")


# The encoder


@pytest.mark.parametrize("n", [0, 1, 63, 64, 127, 128, 300, 2**31, 2**32 - 1])
def test_leb(n: int) -> None:
    """Numbers decode to themselves."""
    assert sum((b & 127) << 7 * i for i, b in enumerate(uleb(n))) == n
    for signed in (n, -n):
        code = sleb(signed)
        value = sum((b & 127) << 7 * i for i, b in enumerate(code))
        assert (value - (1 << 7 * len(code)) if code[-1] & 64 else value) == signed


# Instructions

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
    return np.array(sorted({0, 1, 2, 3, 7, 31, 32, 33, 1000003, high, high - 1, low, low // 2, *([-1, -2, -7] if low < 0 else [])}), dtype)


def python_int(op: str, dtype: str) -> Callable[[int, int], int]:
    """Integer instructions by Python's unbounded integers."""
    width, signed = INT[dtype], dtype != "uint32"

    def wrap(n: int) -> int:
        n %= 1 << width
        return n - (1 << width) if signed and n >> (width - 1) else n

    def divided(x: int, y: int) -> int:
        return (abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1) if y else 0

    table: dict[str, Callable[[int, int], int]] = {
        "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": divided,
        "rem": lambda x, y: x - y * divided(x, y) if y else 0, "min": min, "max": max,
        "and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y,
        "shl": lambda x, y: x << y % width, "shr": lambda x, y: x >> y % width,
        "lt": lambda x, y: x < y, "le": lambda x, y: x <= y, "eq": lambda x, y: x == y, "ne": lambda x, y: x != y,
        "neg": lambda x, y: -x, "abs": lambda x, y: abs(x), "not": lambda x, y: ~x,
    }  # fmt: skip
    if op in ("lt", "le", "eq", "ne"):
        return table[op]
    return lambda x, y: wrap(table[op](x, y))


REAL: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "rem": lambda x, y: x - y * np.trunc(x / y),
    "min": np.minimum, "max": np.maximum, "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal,
    "neg": np.negative, "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "nearest": np.rint, "sqrt": np.sqrt,
    "isnan": np.isnan,
}  # fmt: skip
TRUTH: dict[str, Callable[..., Any]] = {
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not, "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "min": np.logical_and, "max": np.logical_or,
}  # fmt: skip
BOOLEAN = ("lt", "le", "eq", "ne", "isnan")
CASES = [(op, t) for op, n in k.INSTRUCTIONS.items() if op not in ("cast", "bits", "select")
         for t in SCALAR[op] if t != "index"]  # fmt: skip


def pairs(dtype: str, n: int) -> list[Array]:
    values = edges(dtype)
    return [np.array(a, dtype) for a in zip(*itertools.product(values, repeat=n), strict=True)]


def instruction(op: str, args: list[K]) -> K:
    return k.make(op, "bool" if op in BOOLEAN else args[0].type, tuple(args))


def in_both_codes(make: Callable[[list[K]], K], inputs: Sequence[Array], result: str) -> list[Array]:
    """Each element through SIMD code and through scalar code (which a store to every second element asks for)."""
    n = inputs[0].size
    found = []
    for stride in (1, 2):
        i = k.var("i", n)
        loads = [k.load(m, i, DTYPES[a.dtype.name].compute) for m, a in enumerate(inputs)]
        arguments = (*(DTYPES[a.dtype.name] for a in inputs), DTYPES[result])
        kernel = Kernel("one", (i,), (Store(len(inputs), i * stride, make(loads)),), arguments)
        (got,) = executed(kernel, inputs, np.zeros(n * stride, result))
        found.append(got[::stride])
    return found


def same(got: Array, want: Array, signs: bool = True) -> None:
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, want)
        return
    np.testing.assert_array_equal(got, want.astype(got.dtype))
    number = ~np.isnan(want)
    if signs:
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


def test_every_instruction_is_spelled() -> None:
    """Both tables have exactly the instructions of K."""
    assert set(SCALAR) == set(LANES) == set(k.INSTRUCTIONS)


@pytest.mark.parametrize(("op", "dtype"), CASES)
def test_instruction(op: str, dtype: str) -> None:
    """One instruction on all pairs of edge values, as scalar code and as SIMD."""
    inputs = pairs(dtype, k.INSTRUCTIONS[op])
    result = "bool" if op in BOOLEAN else dtype
    if dtype in INT:
        meaning = python_int(op, dtype)
        both = [inputs[0], inputs[-1]]
        want = np.array([meaning(int(x), int(y)) for x, y in zip(*both, strict=True)], result)
    else:
        with np.errstate(all="ignore"):
            want = (REAL if dtype.startswith("float") else TRUTH)[op](*inputs).astype(result)
    for got in in_both_codes(lambda args: instruction(op, args), inputs, result):
        same(got, want, signs=op not in ("min", "max"))


@pytest.mark.parametrize("amount", [0, 1, 24, 31, 33])
@pytest.mark.parametrize("op", ["shl", "shr"])
@pytest.mark.parametrize("dtype", list(INT))
def test_shift_by_constant(op: str, dtype: str, amount: int) -> None:
    """One amount for all lanes has an instruction of its own."""
    x = edges(dtype)
    want = np.array([python_int(op, dtype)(int(v), amount) for v in x], dtype)
    for got in in_both_codes(lambda args: k.make(op, dtype, (args[0], k.const(amount, dtype))), [x], dtype):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [t for t in SCALAR["select"] if t != "index"])
def test_select(dtype: str) -> None:
    """The second argument where the first is true, else the third."""
    values = edges(dtype)
    x, y = np.tile(values, 3), np.tile(values[::-1], 3)
    c = np.arange(x.size) % 3 == 0
    for got in in_both_codes(lambda a: k.make("select", dtype, tuple(a)), [c, x, y], dtype):
        same(got, np.where(c, x, y))


@pytest.mark.parametrize("pair", [p for p in SCALAR["cast"] if p != "int32>int32"])
def test_cast(pair: str) -> None:
    """Reals truncate and saturate to integers, NaN becomes 0; integers wrap; numbers are true unless 0."""
    a, b = pair.split(">")
    x = edges(a)
    if a.startswith("float") and b in INT:
        low, high = np.iinfo(b).min, np.iinfo(b).max
        want = np.array([0 if v != v else min(max(int(v), low), high) if abs(v) < 1e30 else (low, high)[int(v > 0)] for v in x.tolist()], b)
    else:
        with np.errstate(all="ignore"):
            want = x.astype(b)
    for got in in_both_codes(lambda args: k.cast(args[0], b), [x], b):
        same(got, want)


@pytest.mark.parametrize("pair", list(SCALAR["bits"]))
def test_bits(pair: str) -> None:
    """The same bits as another type."""
    a, b = pair.split(">")
    x = edges(a)
    for got in in_both_codes(lambda args: k.bits(args[0], b), [x], b):
        assert got.tobytes() == x.tobytes()


def test_index_arithmetic() -> None:
    """Quotients, remainders, extremes, comparisons and choices of index expressions, and as numbers."""
    n = 61

    def make(args: list[K], i: K) -> K:
        low = k.minimum(i // 3, k.const(11, "index"))
        high = k.maximum(i % 7, k.const(2, "index"))
        product = k.binary("mul", low, high)
        mixed = k.select(k.less(i, 17), product + i * 2 + 5, low - high)
        return k.cast(k.select(k.equal(i % 5, k.const(2, "index")), mixed, i), "float32")

    i = np.arange(n)
    low, high = np.minimum(i // 3, 11), np.maximum(i % 7, 2)
    want = np.where(i % 5 == 2, np.where(i < 17, low * high + 2 * i + 5, low - high), i)
    v = k.var("i", n)
    for stride in (1, 2):
        kernel = Kernel("index", (v,), (Store(0, v * stride, make([], v)),), (DTYPES["float32"],))
        np.testing.assert_array_equal(executed(kernel, [], np.zeros(n * stride, "float32"))[0][::stride], want)


# Storage


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("stride", [1, 2, -1])
def test_copy(dtype: str, stride: int) -> None:
    """Every value of every type survives a load and a store: neighbours, every second, backwards."""
    x = np.arange(65536, dtype="uint16").view("float16") if dtype == "float16" else np.tile(edges(dtype), 3) if DTYPES[dtype].itemsize > 2 else np.arange(256).astype(dtype)
    n = x.size // abs(stride)
    i = k.var("i", n)
    place = i * stride + (n - 1 if stride < 0 else 0)
    want = x[::stride][:n]
    for spread in (1, 2):
        kernel = Kernel("copy", (i,), (Store(1, i * spread, k.load(0, place, DTYPES[dtype].compute)),), (DTYPES[dtype],) * 2)
        (got,) = executed(kernel, [x], np.zeros(n * spread, dtype))
        same(got[::spread], want)


def test_half_is_exact() -> None:
    """float16 widens exactly and float32 rounds to it to nearest even: all halves, all midpoints and their neighbours."""
    halves = np.arange(65536, dtype="uint16").view("float16")
    wide = halves.astype("float32")
    finite = np.unique(wide[np.isfinite(wide)])
    middle = (finite[1:].astype("float64") + finite[:-1]) / 2
    edge = np.array([65519.996, 65520, 65536, 1e30, np.inf, np.nan, 1e-40, 2.0**-25, np.nextafter(np.float32(2.0**-25), np.float32(1))])
    near = [np.concatenate([middle, edge]).astype("float32")]
    near += [np.nextafter(near[0], np.float32(d)) for d in (np.inf, -np.inf)]
    x = np.concatenate([wide, *near, *(-n for n in near)])
    with np.errstate(all="ignore"):
        want = x.astype("float16")
    for got in in_both_codes(lambda a: a[0], [x], "float16"):
        same(got, want)
    for got in in_both_codes(lambda a: a[0], [halves], "float32"):
        same(got, wide)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_small_integers_wrap(dtype: str) -> None:
    """A store keeps the low eight bits."""
    x = np.array([0, 1, 127, 128, 255, 256, 257, -1, -128, -129, 2**31 - 1, -(2**31), 65535], "int32")
    for got in in_both_codes(lambda a: k.cast(a[0], DTYPES[dtype].compute), [x], dtype):
        np.testing.assert_array_equal(got, x.astype(dtype))


# Loop nests

SIZES = [1, 3, 4, 5, 17, 64]
SHAPES = [(5, 7), (17, 64), (64, 17), (3, 4, 5), (2, 3, 4, 17)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.mark.parametrize("n", SIZES)
def test_elementwise_sizes(n: int) -> None:
    """Any length, and nothing beyond the buffer is touched."""
    check("add", normal(n), normal(n) * 3)
    check("multiply", normal(n).astype("float16"), normal(n).astype("float16"))


@shapes
def test_movement(shape: tuple[int, ...]) -> None:
    """Index maps: transposed, reversed, strided, padded, joined, repeated."""
    x, rank = normal(*shape), len(shape)
    check("permute", x, axes=tuple(reversed(range(rank))))
    check("permute", x, axes=(*range(1, rank), 0))
    check("slice", x, start=tuple(n - 1 for n in shape), stop=(-1,) * rank, step=(-1,) * rank)
    check("slice", x, start=(0,) * rank, stop=shape, step=(2,) * rank)
    for step, value in itertools.product((1, 2), (0.0, 1.5)):
        check("pad", x, low=(1,) * rank, high=(2,) * rank, step=(step,) * rank, value=value)
    for axis in range(rank):
        check("concat", x, x * 2, axis=axis)
        check("expand", x[tuple(slice(0, 1) if a == axis else slice(None) for a in range(rank))], shape=shape)


@shapes
def test_reductions(shape: tuple[int, ...]) -> None:
    """Along each axis, all but the first, and all."""
    x, rank = normal(*shape), len(shape)
    y = (x * 10).astype("int32")
    x[tuple(n // 2 for n in shape)] = np.nan
    for axes in [*((a,) for a in range(rank)), tuple(range(1, rank)), tuple(range(rank))]:
        for name in ("sum", "prod", "max", "min"):
            check(name, x, axes=axes, tol=1e-4)
            check(name, y, axes=axes)
        check("any", x > 1, axes=axes)
    for axis, name in itertools.product(range(rank), ("argmax", "argmin")):
        check(name, x, axis=axis)
        check(name, y // 5, axis=axis)


@pytest.mark.parametrize("kind", ["sum", "prod", "min", "max"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint32", "int64"])
def test_reduction_over_nothing(kind: str, dtype: str) -> None:
    """It gives what changes no other value."""
    i, r = k.var("i", 5), k.var("r", 0)
    kernel = Kernel("empty", (i,), (Store(1, i, k.reduce(kind, (r,), k.load(0, i + r, dtype))),), (DTYPES[dtype],) * 2)
    info = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
    low, high = (-np.inf, np.inf) if dtype.startswith("float") else (info.min, info.max)
    want = {"sum": 0, "prod": 1, "min": high, "max": low}[kind]
    (got,) = executed(kernel, [np.zeros(5, dtype)], np.zeros(5, dtype))
    np.testing.assert_array_equal(got, np.full(5, want, dtype))


ROWS = [(1, 1), (3, 5), (4, 17), (9, 64), (130, 33)]


@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_row_programs(shape: tuple[int, ...]) -> None:
    """Reductions inside and after one another are computed once a row: a softmax without exp, and layer norm."""
    x, scale = normal(*shape), normal(shape[1])
    n = shape[1]

    def spread(index: list[K], s: list[Source]) -> K:
        r, q = k.fresh("r", n), k.fresh("r", n)
        top = k.reduce("max", (r,), s[0].at([index[0], r]))
        total = k.reduce("sum", (q,), (s[0].at([index[0], q]) - top) * (s[0].at([index[0], q]) - top))
        return (s[0].at(index) - top) / (total + 1)

    def norm(index: list[K], s: list[Source]) -> K:
        r, q = k.fresh("r", n), k.fresh("r", n)
        mean = k.reduce("sum", (r,), s[0].at([index[0], r])) * (1 / n)
        d = s[0].at([index[0], q]) - mean
        return (s[0].at(index) - mean) / k.sqrt(k.reduce("sum", (q,), d * d) * (1 / n) + 1e-3) * s[1].at([index[1]])

    top = x.max(1, keepdims=True)
    wants = [(x - top) / (((x - top) ** 2).sum(1, keepdims=True) + 1)]
    wants.append((x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3) * scale)
    for make, want, inputs in zip((spread, norm), wants, ([x], [x, scale]), strict=True):
        kernel = lowered(make, inputs, shape, "float32")
        for relaxed, threads in ((True, 1), (False, 2)):
            (got,) = executed(kernel, inputs, np.zeros(shape, "float32"), relaxed=relaxed, threads=threads)
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("spec", ["ab,bc->ac", "ab,cb->ac", "ba,bc->ac", "ba,cb->ac", "ab,bc->ca"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 7, 9), (17, 33, 20), (64, 64, 64), (6, 128, 8), (13, 5, 3), (1, 70, 40)], ids=str)
def test_matmul(spec: str, sizes: tuple[int, int, int]) -> None:
    """Products of matrices in every orientation, with remainders in every direction."""
    size = dict(zip("abc", sizes, strict=True))
    first, second = spec.split("->")[0].split(",")
    x, y = normal(*(size[c] for c in first)), normal(*(size[c] for c in second)) + 1
    check("einsum", x, y, spec=spec, tol=1e-4)


def test_contractions() -> None:
    """Batches, vectors, outer products, several summed letters, and other types."""
    check("einsum", normal(3, 5, 20), normal(3, 20, 12), spec="nab,nbc->nac", tol=1e-4)
    check("einsum", normal(3, 5, 20), normal(20, 12), spec="nab,bc->nac", tol=1e-4)
    check("einsum", normal(4, 20, 6), normal(4, 30, 6), spec="nad,nbd->nab", tol=1e-4)
    check("einsum", normal(20, 4, 6), normal(30, 4, 6), spec="ahd,bhd->hab", tol=1e-4)
    check("einsum", normal(50, 60), normal(60), spec="ab,b->a", tol=1e-4)
    check("einsum", normal(60), normal(60, 50), spec="b,ba->a", tol=1e-4)
    check("einsum", normal(60), normal(50), spec="a,b->ab", tol=1e-4)
    check("einsum", normal(12, 5, 9), normal(5, 9, 16), spec="abc,bcd->ad", tol=1e-4)
    check("einsum", normal(60), normal(60), spec="a,a->", tol=1e-4)
    x, y = normal(18, 21), normal(21, 17)
    check("einsum", x.astype("float16"), y.astype("float16"), spec="ab,bc->ac", tol=1e-2)
    check("einsum", x.astype("float64"), y.astype("float64"), spec="ab,bc->ac", tol=1e-12)
    for dtype in ("int32", "int64", "int8", "uint8"):
        check("einsum", (x * 5).astype("int8").astype(dtype), (y * 5).astype("int8").astype(dtype), spec="ab,bc->ac")


CONVOLUTIONS = [
    ((5, 6), 3, 8, 3, (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1)),
    ((9, 14), 8, 16, 3, (2, 2), ((0, 1), (0, 1)), (1, 1), (1, 1)),
    ((7, 7), 4, 5, 1, (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1)),
    ((6, 6), 4, 5, 3, (1, 1), ((2, 2), (2, 2)), (1, 1), (2, 2)),
    ((8, 13), 5, 9, 3, (1, 1), ((2, 2), (2, 2)), (2, 2), (1, 1)),
    ((12, 13), 1, 1, 3, (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1)),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("groups", [1, 4, 9])
def test_convolution(case: Any, groups: int) -> None:
    """Padding, strides, dilation, spread images, groups."""
    space, ci, co, window, stride, pad, dilation, spread = case
    x, w = normal(2, *space, groups, ci), normal(window, window, groups, ci, co)
    check("conv", x, w, stride=stride, pad=pad, dilation=dilation, spread=spread, tol=2e-4)


def test_indexing() -> None:
    """Loads whose place is data, and windows with their adjoint."""
    places = np.random.default_rng(5).integers(-3, 25, (5, 3)).astype("int32")
    check("take", normal(20, 8), places, axis=0)
    check("take", normal(8, 20), places, axis=1)
    check("take", normal(20, 8).astype("float16"), places, axis=0)
    check("put_add", normal(5, 3, 8), places, axis=0, n=20)
    check("take_along", normal(20, 3), places, axis=0)
    check("put_along", normal(5, 3), places, axis=0, n=20)
    check("windows", normal(2, 9, 9), size=(3, 3), stride=(2, 2), dilation=(1, 1))
    check("unwindow", normal(2, 4, 4, 3, 3), shape=(2, 9, 9), size=(3, 3), stride=(2, 2), dilation=(1, 1))


@pytest.mark.parametrize("name", [n for n in nearfield.ops.arithmetic.__all__ if n in REGISTRY])
def test_elementwise_ops(name: str) -> None:
    """Every arithmetic record, in each compute type it accepts."""
    op = REGISTRY[name]
    for dtype in ("bool", "int8", "uint8", "int32", "uint32", "int64", "float32", "float64"):
        if DTYPES[dtype].kind not in op.notes["kinds"] or (name == "remainder" and dtype.startswith("float")):
            continue  # the remainder of reals of very different size is a matter of rounding: see test_instruction
        values = edges("int32" if DTYPES[dtype].itemsize == 1 else dtype).astype(dtype)
        inputs = [np.resize(np.roll(values, n * 3 + 1), 40) for n in range(op.n_in)]
        if op.notes.get("mixed"):
            inputs[0] = np.arange(40) % 3 == 0
        kernel, shape, result = op_kernel(name, inputs, {})
        with np.errstate(all="ignore"):
            want = op.ref(*inputs, dtype=DTYPES[result])
        (got,) = executed(kernel, inputs, np.zeros(shape, result), relaxed=False)
        np.testing.assert_allclose(got, want, rtol=op.tol, err_msg=f"{name} {dtype}")


def test_several_stores_in_place() -> None:
    """All loads of a point come before its stores, so that a parameter and its momentum change together."""
    p, m, g = normal(70), normal(70) + 1, normal(70) * 2
    i = k.var("i", 70)
    old, speed, slope = (k.load(n, i, "float32") for n in range(3))
    faster = speed * 0.5 + slope
    stores = (Store(0, i, old - faster * speed), Store(1, i, faster * old))
    kernel = Kernel("update", (i,), stores, (DTYPES["float32"],) * 3)
    got = executed(kernel, [p, m, g], relaxed=False)
    np.testing.assert_array_equal(got[0], p - (m * 0.5 + g) * m)
    np.testing.assert_array_equal(got[1], (m * 0.5 + g) * p)


def test_fused_epilogue() -> None:
    """A bias, a residual and a clamp around a sum stay in its tile."""
    x, w, bias, rest = normal(19, 23), normal(23, 21), normal(21), normal(19, 21)

    def make(index: list[K], s: list[Source]) -> K:
        r = k.fresh("r", 23)
        total = k.reduce("sum", (r,), s[0].at([index[0], r]) * s[1].at([r, index[1]]))
        return k.maximum(total + s[2].at([index[1]]), 0.0) + s[3].at(index)

    inputs = [x, w, bias, rest]
    for relaxed in (True, False):
        (got,) = executed(lowered(make, inputs, (19, 21), "float32"), inputs, np.zeros((19, 21), "float32"), relaxed=relaxed)
        np.testing.assert_allclose(got, np.maximum(x @ w + bias, 0) + rest, rtol=1e-4, atol=1e-4)


# Modules


def test_steps_and_threads() -> None:
    """Steps see what all threads wrote in the steps before; equal kernels are one function; entries are apart."""
    n = 70_000
    i = k.var("i", n)
    f32 = DTYPES["float32"]
    heavy = functools.reduce(lambda v, _: k.sqrt(v * v + 1.0), range(8), k.load(0, k.const(n - 1, "index") - i, "float32"))
    turn = Kernel("turn", (i,), (Store(1, i, heavy),), (f32, f32))
    again = Kernel("turn", (i,), (Store(1, i, heavy),), (f32, f32))
    steps = [(n % 2, (n % 2, 1 - n % 2)) for n in range(40)]
    module = assemble([turn, again], steps, [("main", 0, 40), ("half", 0, 1)], relaxed=True)
    assert module.names[0] == module.names[1]
    assert module.bytes[module.memory_flag] == 3
    assert all(total == n and grain < n for total, grain in module.sizes)
    x = normal(n)
    results = []
    for threads in (1, 2, 3):
        machine = Machine(module, [x, x])
        machine.run(threads=threads)
        results.append(machine.read(0).tobytes() + machine.read(1).tobytes())
    assert results[0] == results[1] == results[2]


def test_small_steps_stay_on_one_thread() -> None:
    """A piece of a range is worth some thousand operations."""
    kernel, _, _ = op_kernel("add", [normal(100), normal(100)], {})
    module = assemble([kernel], [(0, (0, 1, 2))], [("main", 0, 1)], relaxed=False)
    assert module.sizes[0][1] >= 100


def test_same_kernel_same_bytes() -> None:
    """The module depends on nothing but the kernels."""
    texts = []
    for _ in range(2):
        kernel, _, _ = op_kernel("einsum", [normal(20, 30), normal(30, 40)], {"spec": "ab,bc->ac"})
        texts.append(assemble([kernel], [(0, (0, 1, 2))], [("main", 0, 1)], relaxed=True).bytes)
    assert texts[0] == texts[1]
    assert struct.pack("<I", 1) == texts[0][4:8]
