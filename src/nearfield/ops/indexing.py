"""Indexing: which element is taken depends on data. Gathers, and their adjoints that add back."""

from typing import Any

from .. import scalar as k
from ..dtype import DTYPES, DType
from ..op import Source, np
from ..scalar import K
from ..tensor import apply
from .define import narrow, record, require

__all__: list[str] = []


def _position(index: K, n: int) -> K:
    """An int32 value as an index, kept inside 0 … n - 1 whatever the data."""
    return k.minimum(k.maximum(k.cast(index, "index"), k.const(0, "index")), k.const(max(n - 1, 0), "index"))


def _check(who: str, dtypes: Any) -> None:
    if dtypes[1] is not DTYPES["int32"]:
        require(f"{who}: indices", dtypes[1], "")


# take: x[..., n, ...] and indices of any shape give x.shape[:axis] + indices.shape + x.shape[axis + 1:]
def _take_infer(shapes: Any, dtypes: Any, a: Any) -> Any:
    _check("take", dtypes)
    x, i = shapes
    return (*x[: a["axis"]], *i, *x[a["axis"] + 1 :]), dtypes[0]


def _take_element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
    x, i = sources
    axis, rank = attrs["axis"], len(i.shape)
    chosen = _position(i.at(index[axis : axis + rank]), x.shape[axis])
    return x.at([*index[:axis], chosen, *index[axis + rank :]])


record(
    "take", "indexing", 2, _take_infer, _take_element, lambda x, i, dtype, axis: np.take(x, i, axis, mode="clip"),
    lambda g, x, i, y, axis: (apply("put_add", g, i, axis=axis, n=x.shape[axis]), None),
    "Whole slices of x along an axis, by position; positions outside are moved to the nearest end.", tol=0.0,
)  # fmt: skip


# put_add: g as `take` returns it, and the indices, give x's shape
def _put_infer(shapes: Any, dtypes: Any, a: Any) -> Any:
    _check("put_add", dtypes)
    g, i = shapes
    return (*g[: a["axis"]], a["n"], *g[a["axis"] + len(i) :]), dtypes[0]


def _put_element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
    g, i = sources
    axis = attrs["axis"]
    variables = [k.fresh("u", n) for n in i.shape]
    here = k.equal(_position(i.at(variables), attrs["n"]), index[axis])
    value = g.at([*index[:axis], *variables, *index[axis + 1 :]])
    term = k.select(here, value, k.const(0, value.type))
    return narrow(k.reduce("sum", tuple(variables), term) if variables else term, dtype)


def _put_ref(g: Any, i: Any, dtype: DType, axis: int, n: int) -> Any:
    y = np.zeros((*g.shape[:axis], n, *g.shape[axis + i.ndim :]), "float32" if dtype.name == "float16" else g.dtype)
    where = (slice(None),) * axis
    np.add.at(y, (*where, np.clip(i, 0, n - 1)), g)
    return y.astype(dtype.name)


record(
    "put_add", "indexing", 2, _put_infer, _put_element, _put_ref,
    lambda g, x, i, y, axis, n: (apply("take", g, i, axis=axis), None),
    "Slices added into zeros at positions along an axis: the adjoint of `take`.", tol=1e-5,
)  # fmt: skip


# take_along: x and indices of the same rank; other axes are equal
def _along_infer(shapes: Any, dtypes: Any, a: Any) -> Any:
    _check("take_along_axis", dtypes)
    return shapes[1], dtypes[0]


def _along_element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
    x, i = sources
    axis = attrs["axis"]
    chosen = _position(i.at(index), x.shape[axis])
    return x.at([*index[:axis], chosen, *index[axis + 1 :]])


record(
    "take_along", "indexing", 2, _along_infer, _along_element,
    lambda x, i, dtype, axis: np.take_along_axis(x, np.clip(i, 0, max(x.shape[axis] - 1, 0)), axis),
    lambda g, x, i, y, axis: (apply("put_along", g, i, axis=axis, n=x.shape[axis]), None),
    "One element for each index, along an axis.", tol=0.0,
)  # fmt: skip


def _put_along_element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
    g, i = sources
    axis = attrs["axis"]
    v = k.fresh("u", i.shape[axis])
    inner = [*index[:axis], v, *index[axis + 1 :]]
    value = g.at(inner)
    here = k.equal(_position(i.at(inner), attrs["n"]), index[axis])
    return narrow(k.reduce("sum", (v,), k.select(here, value, k.const(0, value.type))), dtype)


def _put_along_ref(g: Any, i: Any, dtype: DType, axis: int, n: int) -> Any:
    y = np.zeros((*g.shape[:axis], n, *g.shape[axis + 1 :]), "float32" if dtype.name == "float16" else g.dtype)
    places = list(np.indices(i.shape))
    places[axis] = np.clip(i, 0, n - 1)
    np.add.at(y, tuple(places), g)
    return y.astype(dtype.name)


record(
    "put_along", "indexing", 2,
    lambda shapes, dtypes, a: ((*shapes[0][: a["axis"]], a["n"], *shapes[0][a["axis"] + 1 :]), dtypes[0]),
    _put_along_element, _put_along_ref, lambda g, x, i, y, axis, n: (apply("take_along", g, i, axis=axis), None),
    "Elements added into zeros, one position each along an axis: the adjoint of `take_along`.", tol=1e-5,
)  # fmt: skip
