"""Computed arrays compared with themselves: sorted, searched, or with the gradient of an extreme."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn
from nearfield.compiler.compared import compared
from nearfield.graph.graph import Graph
from nearfield.tensor import Tensor
from nearfield.trace import trace
from test_compiler import stand_in

SHAPES = [(9, 33), (4, 7)]  # rows that fill vectors, and leave one or three elements


def rows(*shape: int) -> list[Any]:
    rng = np.random.default_rng(list(shape))
    return [rng.normal(size=size).astype("float32") for size in (shape, shape[-1:], shape[-1:])]


def shifted(y: Tensor) -> Tensor:
    return nf.concat([y[:, 1:], y[:, :1]], axis=1)


SEARCHES: dict[str, Callable[[Tensor], Tensor]] = {
    "argsort": lambda y: nf.argsort(y, axis=-1),
    "argsort of columns": lambda y: nf.argsort(y, axis=0, descending=True),
    "topk": lambda y: nf.topk(y, 2)[1],
    "argmax": lambda y: nf.argmax(y, axis=-1),
    "argmin": lambda y: nf.argmin(y),
    "ties": lambda y: y == nf.max(y, axis=-1, keepdims=True),
    "neighbours": lambda y: shifted(y) < nf.flip(nf.flip(shifted(y), axis=0), axis=0),
    "searchsorted": lambda y: nf.searchsorted(nf.sort(nf.reshape(y, (-1,))), nf.reshape(y, (-1,))),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("search", SEARCHES)
def test_places_are_those_of_the_reference(search: str, shape: tuple[int, ...], device: str) -> None:
    """However each element is rounded: none is found twice, and none is lost."""

    def places() -> Any:
        x, a, b = map(nf.asarray, rows(*shape))
        return SEARCHES[search](x * a + b).numpy()

    with nf.use("reference"):
        want = places()
    np.testing.assert_array_equal(places(), want)


def pooled(y: Tensor) -> Tensor:
    return nn.max_pool(nf.reshape(y, (1, *y.shape, 1)), 2, stride=1)


EXTREMES: dict[str, Callable[[Tensor], Tensor]] = {
    "of rows": lambda y: nf.max(y, axis=-1),
    "of columns": lambda y: nf.min(y, axis=0),
    "of all": nf.max,
    "of windows": pooled,
}


@pytest.mark.parametrize("shape", [(5, 7), (70, 3)])
@pytest.mark.parametrize("extreme", EXTREMES)
def test_gradients_go_to_the_extremes(extreme: str, shape: tuple[int, ...], device: str) -> None:
    def slope() -> Any:
        x, a, b = map(nf.asarray, rows(*shape))
        return nf.grad(lambda b: nf.sum(EXTREMES[extreme](x * a + b)))(b).numpy()

    with nf.use("reference"):
        want = slope()
    np.testing.assert_allclose(slope(), want, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, -1])
def test_an_extreme_in_float16_is_found_again(axis: int, device: str) -> None:
    """It has been stored, and so rounded, unlike the elements that it is looked for among."""
    x, a, _ = (nf.astype(nf.asarray(array), "float16") for array in rows(40, 30))

    @nf.jit
    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        y, back = nf.vjp(lambda x: nf.max(x * a, axis=axis), x)
        return y, back(nf.ones(y.shape, dtype="float16"))[0]

    y, slope = step(x)
    assert (np.count_nonzero(slope.numpy(), axis=axis) >= 1).all()
    assert y.dtype is nf.float16


def test_what_is_stored() -> None:
    """Only what rounds, and only if it is on both sides."""
    x, other = stand_in(5, 7), stand_in(5, 7)
    found = lambda graph: compared(graph, set())  # noqa: E731

    def graph_of(*outputs: Tensor) -> Graph:
        return trace([y.node for y in outputs], [x.node, other.node])[0]

    assert found(graph_of(x == nf.max(x), nf.argmax(nf.abs(x)), x * 2 < other * 2)) == set()
    assert found(graph_of(nn.softmax(x * 0.5), nn.layer_norm(x) > 0)) == set()
    graph = graph_of(nn.relu(x * 2 + 1) == nf.max(nf.permute_dims(nn.relu(x * 2 + 1), (1, 0))))
    assert [graph.lines[i].op for i in found(graph)] == ["add"]
    y = x * 2 + 1
    graph = graph_of(nn.relu(y) == nf.max(nf.abs(y)))
    assert [graph.lines[i].op for i in found(graph)] == ["add"]
    graph = graph_of(nf.argsort(nf.astype(y, "int32")))
    assert [graph.lines[i].op for i in found(graph)] == ["add"]
    assert found(graph_of(x * 2 == nf.max(x * 2), nf.argmax(nn.relu(x - other + 1)))) == set()  # are rounded alone
    assert len(found(graph_of(nf.argmax(nf.exp(x)), nf.argmin(nf.abs(x * 2) + 1)))) == 2
    whole = nf.astype(x, "int32") * 3
    assert found(graph_of(whole == nf.max(whole))) == set()


def test_what_need_not_be_stored() -> None:
    """Both sides read it already; but an extreme that is stored was made of what it is compared with."""
    x = stand_in(5, 7)
    y = nn.relu(x * 2 + 1)
    graph, _ = trace([(y == nf.max(y)).node], [x.node])
    add, relu, extreme = (
        next(i for i, line in enumerate(graph.lines) if line.op == op) for op in ("add", "maximum", "max")
    )
    assert compared(graph, {extreme}) == {add}
    assert compared(graph, {extreme, add}) == compared(graph, {extreme, relu}) == set()
