"""Reductions: an array folded along axes, which stay with size 1 (the public functions drop them)."""

from collections.abc import Callable
from typing import Any

from .. import scalar as k
from ..dtype import DTYPES, DType
from ..op import Op, Source, np
from ..scalar import K
from ..tensor import apply, call
from .define import narrow, record, require

__all__ = ["reduction"]


def reduced_index(index: list[K], source: Source, axes: tuple[int, ...]) -> tuple[list[K], tuple[K, ...]]:
    """The full index with a fresh variable for each reduced axis, and these variables."""
    full, variables = list(index), []
    for axis in axes:
        v = k.fresh("r", source.shape[axis])
        full[axis] = v
        variables.append(v)
    return full, tuple(variables)


def reduction(
    *,
    kind: str,
    ref: Callable[..., Any],
    grad: Callable[..., Any] | None = None,
    kinds: str = "iuf",
    result: str = "same",
    samples: Any = (),
    tol: float = 1e-5,
) -> Callable[[Callable[[K], K]], Op]:
    """A fold: `kind` is "sum", "prod", "min" or "max"; the decorated function prepares each element."""

    def decorate(body: Callable[[K], K]) -> Op:
        name = body.__name__.rstrip("_")

        def infer(shapes: Any, dtypes: list[DType], attrs: Any) -> Any:
            require(name, dtypes[0], kinds)
            axes = attrs["axes"]
            shape = tuple([1 if i in axes else n for i, n in enumerate(shapes[0])])
            return shape, dtypes[0] if result == "same" else DTYPES[result]

        def element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
            full, variables = reduced_index(index, sources[0], attrs["axes"])
            value = k.reduce(kind, variables, body(sources[0].at(full)))
            return k.less(k.const(0, value.type), value) if result == "bool" else narrow(value, dtype)

        def meaning(x: Any, *, dtype: DType, axes: tuple[int, ...]) -> Any:
            wide = x.astype("float32") if x.dtype.name == "float16" else x
            with np.errstate(all="ignore"):
                return np.asarray(ref(wide, axes)).astype(dtype.name)

        return record(
            name, "reduction", 1, infer, element, meaning, grad, body.__doc__ or "", samples, tol, kinds=kinds
        )

    return decorate


def _spread(g: Any, x: Any) -> Any:
    return call("broadcast_to", g, x.shape)


@reduction(
    kind="sum",
    ref=lambda x, axes: np.sum(x, axes, keepdims=True, dtype=x.dtype),
    grad=lambda g, x, y, axes: (_spread(g, x),),
)
def sum_(x: K) -> K:
    """The sum."""
    return x


def _prod_grad(g: Any, x: Any, y: Any, axes: Any) -> Any:
    """Each element's factor is the product of the others: y / x, or where one x is 0 the product of the rest."""
    zero = x == 0
    zeros = apply("sum", call("astype", zero, x.dtype), axes=axes)
    rest = apply("prod", call("where", zero, 1, x), axes=axes)
    factor = call("where", zeros == 0, y / call("where", zero, 1, x), call("where", zero & (zeros == 1), rest, 0))
    return (g * factor,)


@reduction(kind="prod", ref=lambda x, axes: np.prod(x, axes, keepdims=True, dtype=x.dtype), grad=_prod_grad)
def prod(x: K) -> K:
    """The product."""
    return x


def _extreme_grad(g: Any, x: Any, y: Any, axes: Any) -> Any:
    return (call("where", x == y, g, 0),)


@reduction(kind="max", ref=lambda x, axes: np.max(x, axes, keepdims=True), grad=_extreme_grad)
def max_(x: K) -> K:
    """The largest element; NaN if there is one. Every element that ties for it gets the whole gradient."""
    return x


@reduction(kind="min", ref=lambda x, axes: np.min(x, axes, keepdims=True), grad=_extreme_grad)
def min_(x: K) -> K:
    """The smallest element; NaN if there is one. Every element that ties for it gets the whole gradient."""
    return x


@reduction(kind="max", ref=lambda x, axes: np.any(x, axes, keepdims=True), kinds="b", result="bool")
def any_(x: K) -> K:
    """Whether any element is true."""
    return k.cast(x, "int32")


@reduction(kind="min", ref=lambda x, axes: np.all(x, axes, keepdims=True), kinds="b", result="bool")
def all_(x: K) -> K:
    """Whether all elements are true."""
    return k.cast(x, "int32")


def _arg(name: str, kind: str, doc: str) -> Op:
    """The position of the first extreme (or first NaN) along one axis."""

    def infer(shapes: Any, dtypes: list[DType], attrs: Any) -> Any:
        require(name, dtypes[0], "iuf")
        return tuple(1 if i == attrs["axis"] else n for i, n in enumerate(shapes[0])), DTYPES["int32"]

    def element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
        source, axis = sources[0], attrs["axis"]
        full, (v,) = reduced_index(index, source, (axis,))
        x = source.at(full)
        best = k.reduce(kind, (v,), x)
        at = k.equal(x, best)
        if x.type.startswith("float"):
            at = at | k.isnan(x)
        where = k.select(at, k.cast(v, "int32"), k.const(source.shape[axis], "int32"))
        return k.reduce("min", (v,), where)

    def meaning(x: Any, *, dtype: DType, axis: int) -> Any:
        return np.expand_dims(getattr(np, name)(x, axis), axis).astype("int32")

    return record(name, "reduction", 1, infer, element, meaning, None, doc, kinds="iuf")


_arg("argmax", "max", "The position of the first largest element along one axis, int32.")
_arg("argmin", "min", "The position of the first smallest element along one axis, int32.")
