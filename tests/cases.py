"""What the operations are tried on: op × sample → arrays, deterministic. The same cases go to the browser as JSON:

    python tests/cases.py out.json

Families prescribe the hard samples: zeros of both signs, infinities, NaN, the largest and smallest numbers,
subnormals, ties, all negative; sizes 0 and 1, rank 0, sizes that no tile divides; every dtype that the row accepts.
A row adds to them with `samples=`:

    "positive", (low, high)             also values from there; gradients are checked there
    "cancels"                           errors are relative to the inputs too, because the result may cancel
    {"limit": x, "reason": text}        finite values beyond ±x are left out
    {"quotient": x, "reason": text}     … and pairs whose quotient is
    {"zeros": "any", "reason": text}    the sign of a zero is left open
    {"shapes": (…), **attributes}       rows whose family does not know the attributes: input shapes, and the attributes
"""

import base64
import itertools
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nearfield  # noqa: F401 - registers the operations
from k_interpreter import Number
from nearfield.dtype import DTYPES, DType
from nearfield.op import REGISTRY, Op
from structured_samples import KNOWN

ALL = tuple(DTYPES)
ORDER = ("float32", "float16", "float64", "int32", "uint8", "int8", "uint32", "int64", "bool")
COUNTS = (331, 7, 130)  # no multiple of 4 or 16


@dataclass(frozen=True)
class Case:
    """One application of an operation.

    arrays  its inputs; a Number is a constant of the program
    rtol    what the result may be off, relative to `want` (and with `cancels` to the inputs, `scale`)
    """

    op: Op
    label: str
    arrays: tuple[Any, ...]
    attrs: dict[str, Any]
    signs: bool = False
    cancels: bool = False

    @property
    def dtypes(self) -> set[str]:
        """The names of all element types that it needs."""
        return {self.infer()[1].name, *(x.dtype.name for x in self.arrays)}

    def infer(self) -> tuple[tuple[int, ...], DType]:
        return self.op.infer(
            [x.shape for x in self.arrays], [DTYPES[x.dtype.name] for x in self.arrays], dict(self.attrs)
        )

    def want(self, *, flush: bool = False) -> Any:
        """What the operation means, in NumPy; with `flush` of inputs whose subnormal numbers are zeros."""
        return self.meaning([flushed(x) for x in self.arrays] if flush else self.arrays)

    def meaning(self, arrays: Any) -> Any:
        attrs = dict(self.attrs)
        shape, dtype = self.op.infer([x.shape for x in self.arrays], [DTYPES[x.dtype.name] for x in self.arrays], attrs)
        attrs["dtype"] = dtype
        with np.errstate(all="ignore"):
            y = np.asarray(self.op.ref(*(np.asarray(x) for x in arrays), **attrs))
        told = f"{self}: ref gives {y.dtype}{y.shape}, infer {dtype}{shape}"
        assert (y.shape, y.dtype.name) == (shape, dtype.name), told
        return y

    def scale(self) -> Any:
        """How large the numbers were that the result was made from."""
        if self.op.family != "elementwise":
            return np.abs(
                self.meaning([np.abs(x) if x.dtype.kind == "f" else x for x in self.arrays]).astype("float64")
            )
        if not self.cancels:
            return 0.0
        largest = np.max([np.abs(x.astype("float64")) for x in self.arrays], axis=0)
        return np.where(np.isfinite(largest), largest, 0)

    def __str__(self) -> str:
        attrs = ", ".join(f"{k}={v}" for k, v in self.attrs.items())
        return f"{self.op.name}[{self.label}]({', '.join(f'{x.dtype}{list(x.shape)}' for x in self.arrays)}, {attrs})"


def flushed(x: Any) -> Any:
    """Subnormal numbers as zeros."""
    if x.dtype.kind != "f":
        return x
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(0, x), x).astype(x.dtype)


# --- values ---------------------------------------------------------------------------------------------------------


def seeded(*words: Any) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(words).encode()))


def hard(dtype: str) -> Any:
    """The values where functions go wrong."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return np.array([False, True])
    if kind in "iu":
        ends = np.iinfo(dtype)
        near = [0, 1, 2, 3, 7, 31, 32, 33, ends.max, ends.max - 1, ends.min, ends.min + 1]
        return np.array(near + ([-1, -2, -7, -32] if kind == "i" else []), dtype)
    f = np.finfo(dtype)
    plain = [0.0, 1, 0.5, 1.5, 2.5, 3, 7, 1e-3, 10.25, 88.5, np.inf, f.max, f.tiny, f.tiny / 2, f.smallest_subnormal]
    with np.errstate(all="ignore"):
        return np.array([*plain, *(-x for x in plain), 1 + f.eps, 1 - f.eps / 2, np.nan], dtype)


def domain(op: Op) -> tuple[float, float] | None:
    """The interval where a row wants to be tried, too."""
    for sample in op.samples:
        if sample == "positive":
            return 0.1, 4.0
        if isinstance(sample, tuple):
            return sample
    return None


def marks(op: Op) -> dict[str, Any]:
    """The samples that are settings, in one."""
    found: dict[str, Any] = {"cancels": True} if "cancels" in op.samples else {}
    for sample in op.samples:
        if isinstance(sample, dict) and "shapes" not in sample:
            assert sample.get("reason"), f"{op.name}: {sample} needs a reason"
            found |= sample
    return found


def some(op: Op, dtype: str, count: int, rng: np.random.Generator) -> Any:
    """Values without edges: of the row's interval, else of both signs and several sizes."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    if kind in "iu":
        ends = np.iinfo(dtype)
        small = rng.integers(0 if kind == "u" else -9, 10, count)
        large = rng.integers(max(ends.min, -(2**62)), min(ends.max, 2**62), count)
        return np.where(rng.integers(0, 2, count) == 1, small, large).astype(dtype)
    interval = domain(op)
    if interval:
        return rng.uniform(*interval, count).astype(dtype)
    size = np.exp(rng.uniform(-5, 3, count))
    return (size * rng.choice([-1.0, 1.0], count)).astype(dtype)


# --- the families ---------------------------------------------------------------------------------------------------


def elementwise(op: Op) -> Iterator[Case]:
    """Hard values in all combinations, then others; the shapes on one dtype, since all of a family share them."""
    kinds, n_mixed = op.notes["kinds"], op.notes["mixed"]
    dtypes = [d for d in ORDER if DTYPES[d].kind in kinds]
    for dtype in dtypes:
        of = ["bool"] * n_mixed + [dtype] * (op.n_in - n_mixed)
        rng = seeded(op.name, dtype)
        if op.n_in <= 2:
            grid = list(np.meshgrid(*(hard(d) for d in of)))
        else:
            grid = [rng.choice(hard(d), COUNTS[0]) for d in of]
        count = grid[0].size
        extra = 100 + (-(count + 100)) % 4 + 3
        columns = [np.concatenate([g.reshape(-1), some(op, d, extra, rng)]) for g, d in zip(grid, of, strict=True)]
        yield elementwise_case(op, f"hard {dtype}", columns)
    yield from elementwise_shapes(op, dtypes[0], ["bool"] * n_mixed + [dtypes[0]] * (op.n_in - n_mixed))


def chosen(columns: list[Any], keep: Any) -> list[Any]:
    return [Number.full(c[keep].shape, c.item(), c.dtype.name) if isinstance(c, Number) else c[keep] for c in columns]


def elementwise_case(op: Op, label: str, columns: list[Any]) -> Case:
    mark = marks(op)
    if "limit" in mark:
        keep = np.logical_and.reduce(
            [~(np.isfinite(c) & (np.abs(c.astype("float64")) > mark["limit"])) for c in columns]
        )
        columns = chosen(columns, keep)
    if "quotient" in mark:
        with np.errstate(all="ignore"):
            quotient = np.abs(columns[0].astype("float64") / columns[1].astype("float64"))
        real = (columns[0].dtype.kind == "f") & np.isfinite(columns[0]) & (columns[1] != 0)
        columns = chosen(columns, ~(real & (quotient > mark["quotient"])))
    return Case(op, label, tuple(columns), {}, signs=mark.get("zeros") != "any", cancels=mark.get("cancels", False))


def elementwise_shapes(op: Op, dtype: str, of: list[str]) -> Iterator[Case]:
    rng = seeded(op.name, "shapes")
    for shape in ((), (0,), (1,), (3, 5)):
        size = int(np.prod(shape))
        yield elementwise_case(op, f"shape {shape}", [some(op, d, size, rng).reshape(shape) for d in of])
    if op.n_in == 2:
        for value in (2, 3, -1, 0.5, 1, 4, 0) if np.dtype(dtype).kind == "f" else (2, 3, 0):
            x = np.concatenate([hard(dtype), some(op, dtype, 10, rng)])
            yield elementwise_case(op, f"second is {value}", [x, Number.full(x.shape, value, dtype)])
        yield elementwise_case(op, "first is 3", [Number.full(x.shape, 3, dtype), x])


def casts(op: Op) -> Iterator[Case]:
    for source, target in itertools.product(ORDER, ORDER):
        rng = seeded(source, target)
        x = np.concatenate([hard(source), some(op, source, 20, rng)])
        yield Case(op, f"to {target}", (x,), {"dtype": DTYPES[target]}, signs=True)


AXES = (
    ((), ()),
    ((7,), (0,)),
    ((3, 5), (1,)),
    ((3, 5), (0,)),
    ((2, 3, 4), (0, 2)),
    ((5, 130), (1,)),
    ((130, 3), (0,)),
    ((1,), (0,)),
)


def reduced_values(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """All negative, ties, one NaN, infinities, zeros of both signs: each is a mistake that others have made."""
    kind, size = np.dtype(dtype).kind, int(np.prod(shape))
    if kind == "b":
        yield from (
            ("any", rng.integers(0, 2, shape).astype(bool)),
            ("false", np.zeros(shape, bool)),
            ("true", np.ones(shape, bool)),
        )
        return
    if kind in "iu":
        ends = np.iinfo(dtype)
        yield "ends", rng.choice(np.array([ends.max, ends.min, 3, 2, 1], dtype), shape)
        yield (
            "negative" if kind == "i" else "small",
            (rng.integers(1, 9, shape) * (-1 if kind == "i" else 1)).astype(dtype),
        )
        return
    yield "negative", -rng.uniform(0.5, 1.5, shape).astype(dtype)
    yield "ties", rng.choice(np.array([-1, 0.5, 2], dtype), shape)
    if size > 1:
        edges = rng.uniform(-1.5, 1.5, size).astype(dtype)
        for label, hard_one in (("nan", np.nan), ("infinity", np.inf)):
            found = edges.copy()
            found[size // 2], found[0] = hard_one, -0.0
            yield label, found.reshape(shape)


def reduction(op: Op) -> Iterator[Case]:
    one_axis = op.name in ("argmax", "argmin")
    for dtype in (d for d in ORDER if DTYPES[d].kind in op.notes["kinds"]):
        for shape, axes in AXES:
            few = dtype != "float32" and op.notes["kinds"] != "b" and shape not in {(3, 5), (5, 130)}
            if few or (one_axis and len(axes) != 1):
                continue
            attrs = {"axis": axes[0]} if one_axis else {"axes": axes}
            for label, x in reduced_values(dtype, shape, seeded(op.name, dtype, shape, axes)):
                yield Case(op, label, (x,), attrs)
    if op.name in ("sum", "prod", "any", "all"):
        x = np.zeros((3, 0), "bool" if op.notes["kinds"] == "b" else "float32")
        yield Case(op, "nothing", (x,), {"axes": (1,)})
        yield Case(op, "nothing", (x,), {"axes": (0,)})


def structured(op: Op, samples: list[dict[str, Any]]) -> Iterator[Case]:
    """Rows whose attributes and shapes are given one by one: distinct values, in every dtype for the first two."""
    kinds = op.notes.get("kinds") or "biuf"
    if op.family in ("reduction", "contraction") or op.name.startswith("put"):
        kinds = kinds.replace("b", "")
    for n, sample in enumerate(samples):
        shapes = sample["shapes"]
        attrs = {name: value for name, value in sample.items() if name not in ("shapes", "indices")}
        for dtype in (d for d in ORDER if DTYPES[d].kind in kinds and (n < 2 or d == "float32")):
            rng = seeded(op.name, n, dtype)
            arrays = [distinct(dtype, shape, rng) for shape in shapes]
            if "indices" in sample:
                arrays.append(rng.integers(-1, sample["indices"][1] + 1, sample["indices"][0]).astype("int32"))
            yield Case(op, f"{n} {dtype}", tuple(arrays), attrs)


def distinct(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    size = int(np.prod(shape))
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    values = rng.permutation(size) + 1
    if np.dtype(dtype).kind == "f":
        values = values * 0.25 * rng.choice([-1, 1], size)
    elif np.dtype(dtype).kind == "i":
        values = values % 120 * rng.choice([-1, 1], size)
    return values.astype(dtype).reshape(shape)


def cases_of(op: Op) -> list[Case]:
    """All cases of one record. A new row of a family gets them from its family."""
    if op.name == "cast":
        return list(casts(op))
    if op.family == "elementwise":
        return list(elementwise(op))
    own = [s for s in op.samples if isinstance(s, dict) and "shapes" in s]
    if op.family == "reduction" and op.name not in KNOWN and not own:
        return list(reduction(op))
    return list(structured(op, KNOWN.get(op.name, []) + own))


def every_case() -> Iterator[Case]:
    for op in REGISTRY.values():
        yield from cases_of(op)


# --- for the browser ------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """An attribute as JSON."""
    if isinstance(value, DType):
        return {"dtype": value.name}
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    return value.hex() if isinstance(value, bytes) else str(value) if value in (float("inf"), float("-inf")) else value


def array_as_json(x: Any) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()
    return {"dtype": x.dtype.name, "shape": list(x.shape), "data": data, "number": isinstance(x, Number)}


def case_as_json(case: Case) -> dict[str, Any]:
    attrs = {name: plain(value) for name, value in case.attrs.items()}
    inputs = [array_as_json(x) for x in case.arrays]
    return {
        "op": case.op.name,
        "label": case.label,
        "attrs": attrs,
        "inputs": inputs,
        "want": array_as_json(case.want()),
        "tol": case.op.tol,
    }


if __name__ == "__main__":
    listed = [case_as_json(case) for case in every_case()]
    Path(sys.argv[1]).write_text(json.dumps(listed, allow_nan=False))
    sys.stdout.write(f"{len(listed)} cases of {len(REGISTRY)} operations\n")
