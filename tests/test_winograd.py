"""Convolutions with windows of 3 x 3 in fewer multiplications, and kernels whose axes choose between expressions."""

from math import prod
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn
from nearfield import scalar as k
from nearfield.compiler.build import Target, build
from nearfield.compiler.kernel import Kernel
from nearfield.compiler.pack import pack
from nearfield.compiler.wasm_cases import by_cases
from nearfield.device.open import open_device
from nearfield.graph.interpret import interpret
from nearfield.op import Source
from nearfield.scalar import K
from nearfield.tensor import Tensor
from test_contraction import TARGETS, graph_of, run, tilings_of, whole
from wasm_machine import executed, lowered, normal

# Windows of 3 x 3 in tiles


def with_weights(make: Any, x: Any, w: Any) -> list[Any]:
    """What make(x, w) gives where w is a weight, on one thread as on several."""
    graph, device = graph_of(make, (x, w)), open_device("wasm")
    program = build(graph, Target("wasm", frozenset({"relaxed-simd"}), 32), weights={1: "w"}).program
    session, memory = device.load(program), device.alloc(x.nbytes)
    session.load_weights({"w": w})
    device.write(memory, x)
    about = [program.buffers[n] for n in program.entries[0].outputs]
    found = [
        np.frombuffer(device.read(m, b.nbytes), b.dtype).reshape(b.shape)
        for m, b in zip(session.run("main", [memory]), about, strict=True)
    ]
    session.close()
    return found


@pytest.mark.parametrize("after", ["nothing", "bias", "convolution", "sum"])
@pytest.mark.parametrize(
    ("image", "window", "padding"),
    [
        ((1, 8, 8, 32), (32, 32), 1),
        ((2, 7, 9, 24), (24, 40), 1),  # no whole number of tiles; columns that fill no panel
        ((1, 10, 9, 40), (40, 21), 0),
        ((3, 2, 3, 32), (32, 28), 2),
    ],
    ids=str,
)
def test_windows_of_three_in_fewer_multiplications(
    image: tuple[int, ...], window: tuple[int, int], padding: int, after: str
) -> None:
    """One product for each of 16 places in a tile; exact for small whole numbers, whatever is done with the result."""
    x, w = whole(*image), whole(3, 3, *window)

    def make(x: Tensor, w: Tensor) -> Tensor:
        y = nn.conv2d(x, w, padding=padding)
        if after == "bias":
            y = nn.relu(y + nf.arange(window[1], dtype="float32"))
            return y + 0.5 * y
        if after == "convolution":
            return nn.conv2d(y, nf.permute_dims(w, (0, 1, 3, 2))[:1, :1])
        return nf.sum(y, axis=(1, 2)) if after == "sum" else y

    graph = graph_of(make, (x, w))
    (want,) = interpret(graph, [x, w])
    np.testing.assert_array_equal(interpret(pack(graph, frozenset({1})).graph, [x, w])[0], want)
    np.testing.assert_array_equal(with_weights(make, x, w)[0], want)
    assert [t for t in tilings_of(graph, frozenset({1})) if [v.value[1] for v in t.batch] == [16]]


def test_windows_in_groups_and_strides() -> None:
    """Groups have tiles of their own; windows that move by two, or with gaps, have none."""
    x, w = whole(1, 9, 8, 64), whole(3, 3, 32, 64)
    for options in ({"groups": 2}, {"groups": 2, "stride": 2}, {"groups": 2, "dilation": 2}):

        def make(x: Tensor, w: Tensor, options: Any = options) -> Tensor:
            return nn.conv2d(x, w, padding=1, **options)

        graph = graph_of(make, (x, w))
        np.testing.assert_array_equal(with_weights(make, x, w)[0], interpret(graph, [x, w])[0])
        found = [prod(v.value[1] for v in t.batch) for t in tilings_of(graph, frozenset({1}))]
        assert found == [32 if len(options) == 1 else 2]


def test_few_tiles_go_another_way() -> None:
    x, w = whole(1, 5, 6, 32), whole(3, 3, 32, 32)
    assert not [
        t for t in tilings_of(graph_of(lambda x, w: nn.conv2d(x, w, padding=1), (x, w)), frozenset({1})) if t.batch
    ]


def test_digits_of_windows_in_tiles() -> None:
    """No fewer than those of products added up one after the other."""
    x, w = normal(1, 12, 12, 64), normal(3, 3, 64, 32)
    exact = interpret(
        graph_of(lambda x, w: nn.conv2d(x, w), (x.astype("float64"), w.astype("float64"))),
        [x.astype("float64"), w.astype("float64")],
    )[0]
    (got,) = with_weights(lambda x, w: nn.conv2d(x, w), x, w)
    (plain,) = run(graph_of(lambda x, w: nn.conv2d(x, w), (x, w)), [x, w], TARGETS[0])
    errors = [np.sqrt(np.mean((y - exact) ** 2)) / np.std(exact) for y in (got, plain)]
    assert errors[0] < 1.5 * errors[1] < 1e-6


def test_what_is_infinite_stays_in_its_tile() -> None:
    """It may make NaN of results that share a tile with those it belongs to, and of no others."""
    x, w = whole(1, 12, 12, 32), whole(3, 3, 32, 32)
    x[0, 5, 5, 3] = np.inf
    (got,) = with_weights(lambda x, w: nn.conv2d(x, w, padding=1), x, w)
    with np.errstate(invalid="ignore"):
        (want,) = interpret(graph_of(lambda x, w: nn.conv2d(x, w, padding=1), (x, w)), [x, w])
    assert not np.isfinite(got[0, 4:7, 4:7][~np.isfinite(want[0, 4:7, 4:7])]).any()
    outside = np.ones((12, 12), bool)
    outside[4:8, 4:8] = False
    np.testing.assert_array_equal(got[0][outside], want[0][outside])


# Axes that choose


def both_ways(kernel: Kernel, inputs: list[Any], want: Any, stores: int) -> None:
    """Written out or not, on one thread or two, a kernel gives what is wanted."""
    cases = by_cases(kernel)
    assert len(cases.stores) == stores
    for one in (kernel, cases):
        for threads in (1, 2):
            np.testing.assert_array_equal(executed(one, inputs, np.zeros_like(want), threads=threads)[0], want)


@pytest.mark.parametrize(("shape", "stores"), [((5, 12), 3), ((3, 7), 3), ((1, 1), 1)], ids=str)
def test_parts_are_stored_each(shape: tuple[int, int], stores: int) -> None:
    """Sums and differences, one after the other along a new axis: no element asks which of them it is.

    Where the parts' elements are neighbours, they are lanes.
    """
    x, y = normal(*shape), normal(*shape) * 3

    def stacked(index: list[K], sources: list[Source]) -> K:
        a, b = (s.at(index[1:]) for s in sources)
        first = k.less(index[0], k.const(1, "index"))
        return k.select(first, a + b, k.select(k.less(index[0], k.const(2, "index")), a - b, b))

    both_ways(lowered(stacked, [x, y], (3, *shape), "float32"), [x, y], np.stack([x + y, x - y, y]), stores)


@pytest.mark.parametrize(("turns", "size", "stores"), [(6, 8, 6), (9, 5, 1), (32, 4, 1)])
def test_elements_that_take_turns(turns: int, size: int, stores: int) -> None:
    """Every other row is of another kind, and every third: six cases. Where rows do not divide, nothing changes."""
    x = normal(turns, size)

    def chosen(index: list[K], sources: list[Source]) -> K:
        v, zero = sources[0].at(index), k.const(0, "index")
        inner = k.select(k.equal(index[0] % 6, zero), v + 1, v * 2)
        return k.select(k.equal(index[0] % 6, k.const(5, "index")), sources[0].at([index[0] * 0, index[1]]), inner)

    rows = np.arange(turns)[:, None] % 6
    want = np.where(rows == 5, x[:1], np.where(rows == 0, x + 1, x * 2))
    both_ways(lowered(chosen, [x], (turns, size), "float32"), [x], want, stores)


def test_what_is_not_written_out() -> None:
    """Choices along the last axis, whose elements are lanes; of many cases; and inside sums."""
    x = normal(4, 4)
    first = lowered(
        lambda i, s: k.select(k.less(i[1], k.const(2, "index")), s[0].at(i), s[0].at(i[::-1])), [x], x.shape, "float32"
    )
    wide = normal(20, 4)
    many = lowered(
        lambda i, s: k.select(k.less(i[0], k.const(2, "index")), s[0].at(i), s[0].at(i) * 2), [wide], (20, 4), "float32"
    )
    v = k.fresh("v", 4)
    total = lowered(
        lambda i, s: k.reduce(
            "sum", (v,), k.select(k.less(i[0], k.const(2, "index")), s[0].at([i[0], v]), s[0].at([v, i[0]]))
        ),
        [x],
        (4, 4),
        "float32",
    )
    assert [by_cases(kernel) for kernel in (first, many, total)] == [first, many, total]
