"""Every operation agrees with what it means (its `ref`, in NumPy), as K and on every device."""

import functools
import os
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from cases import Case, cases_of, flushed, marks
from devices import chosen_devices, need
from k_interpreter import Number, element_of
from nearfield.dtype import DTYPES
from nearfield.op import REGISTRY, Op
from nearfield.runtime import current_device
from nearfield.tensor import apply, call, scalar

DEVICES = ("k", "wasm", "webgpu")
FLUSHES = ("webgpu",)  # subnormal numbers may become zeros there
FOLDS = ("webgpu",)  # compilers there may take x · 0 for 0 and x + 0 for x, where 0 is written in the kernel
OPS = [pytest.param(op, id=op.name) for op in REGISTRY.values()]


@functools.cache
def cases(op: Op) -> list[Case]:
    return cases_of(op)


def tensor(x: Any) -> Any:
    if isinstance(x, Number):
        return call("broadcast_to", scalar(x.item(), DTYPES[x.dtype.name]), x.shape)
    return nf.asarray(np.asarray(x))


def run(device: str, chosen: list[Case]) -> list[Any]:
    """The results of all cases, in one Program."""
    if device == "k":
        return [element_of(case.op, case.arrays, case.attrs) for case in chosen]
    results = [apply(case.op, *map(tensor, case.arrays), **case.attrs) for case in chosen]
    return [y.numpy() for y in results]


def spacing(want: Any) -> Any:
    """The distance to the next number of the type; infinity counts as the number after the largest."""
    largest = np.finfo(want.dtype).max
    return np.spacing(np.minimum(np.abs(want), largest)).astype("float64")


def agrees(case: Case, got: Any, want: Any, *, flush: bool) -> Any:
    """Where the result may be what it is: integers exactly; reals within the row's tolerance, NaN as NaN."""
    if want.dtype.kind != "f":
        return got == want
    wide_got, wide_want = finite(got), finite(want)
    unit = {"float16": 0.0, "float32": 1.0, "float64": 2.0**-26}[want.dtype.name] * case.op.tol
    size = np.maximum(np.abs(wide_want), case.scale())
    slack = unit * np.where(np.isfinite(size), size, 0) + 2 * float(np.finfo(want.dtype).smallest_subnormal)
    if want.dtype.name == "float16":
        slack = slack + spacing(want) + case.op.tol * np.where(np.isfinite(size), size, 0)
    if flush:
        slack = slack + float(np.finfo(want.dtype).tiny) * (np.abs(wide_want) < 2 * float(np.finfo(want.dtype).tiny))
    close = np.abs(wide_got - wide_want) <= slack
    if want.dtype.name != "float16":
        edge = np.abs(wide_want) > float(np.finfo(want.dtype).max) * (1 - 1e-6)  # where a rounding error may overflow
        close &= (np.isinf(got) == np.isinf(want)) | (flush & edge)
    if case.signs:
        close &= (got != 0) | (want != 0) | (np.signbit(got) == np.signbit(want))
    return np.where(np.isnan(want), np.isnan(got), close & ~np.isnan(got))


def finite(x: Any) -> Any:
    """In double precision, with infinity as the number after the largest."""
    about = np.finfo(x.dtype)
    beyond = float(about.max) if x.dtype.itemsize == 8 else float(about.max) * (1 + float(about.eps) / 2)
    wide = x.astype("float64")
    return np.where(np.isinf(wide), np.copysign(beyond, wide), wide)


def complaint(device: str, case: Case, got: Any) -> str:
    """What is wrong with the result of a case; nothing if nothing is."""
    want, flush = case.want(), device in FLUSHES
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{case}: {got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    with np.errstate(all="ignore"):
        right = agrees(case, got, want, flush=flush)
        if flush and not np.all(right):
            right = right | agrees(case, got, case.want(flush=True), flush=flush)
    if np.all(right):
        return ""
    wrong = np.argwhere(~np.asarray(right))
    inputs = ""
    if case.op.family == "elementwise":
        inputs = ", ".join(repr(np.asarray(x)[tuple(wrong[0])]) for x in case.arrays) + " give "
    at = tuple(int(n) for n in wrong[0])
    return f"{case}: {len(wrong)} of {want.size} differ; at {at} {inputs}{got[at]!r} instead of {want[at]!r}"


def complaints(device: str, op: Op) -> list[str]:
    chosen = cases(op)
    if device != "k":
        chosen = [case for case in chosen if case.dtypes <= set(current_device().dtypes)]
    if device in FOLDS:
        chosen = [case for case in chosen if not any(isinstance(x, Number) and x.item() == 0 for x in case.arrays)]
    return [
        text for case, got in zip(chosen, run(device, chosen), strict=True) if (text := complaint(device, case, got))
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", OPS)
def test_op_agrees_with_its_meaning(op: Op, device: str) -> None:
    """The element that a record makes is the one that its NumPy statement means."""
    if device == "k":
        found = complaints(device, op)
    else:
        if device not in chosen_devices():
            pytest.skip(f"NEARFIELD_DEVICE={os.environ['NEARFIELD_DEVICE']}")
        need(device)
        with nf.use(device):
            found = complaints(device, op)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("device", DEVICES)
def test_beyond_the_limit_finite_numbers_give_numbers(device: str) -> None:
    """Where a row promises no digits, it still gives no NaN."""
    limited = [op for op in REGISTRY.values() if "limit" in marks(op)]
    x = np.array(
        [s * f * marks(op)["limit"] for op in limited for s in (1, -1) for f in (1.01, 33, 1e9, 1e33)], "float32"
    )
    if device == "k":
        results = [element_of(op, (x,) * op.n_in, {}) for op in limited]
    else:
        need(device)
        with nf.use(device):
            results = [y.numpy() for y in [apply(op, *[nf.asarray(x)] * op.n_in) for op in limited]]
    for op, y in zip(limited, results, strict=True):
        assert not np.isnan(y).any(), f"{op.name} of {x[np.isnan(y)]}"


@pytest.mark.parametrize("op", OPS)
def test_every_operation_has_cases(op: Op) -> None:
    """A row that its family does not know how to try says it itself, with `samples=({"shapes": …, …},)`."""
    assert cases(op), f"{op.name} has no case: give its row samples"
    accepted = {d.name for d in DTYPES.values() if d.kind in (op.notes.get("kinds") or "")}
    tried = {x.dtype.name for case in cases(op) for x in case.arrays}
    assert accepted <= tried, f"{op.name} accepts {sorted(accepted - tried)}, which no case has"


def test_flushing_keeps_signs() -> None:
    """What stands for a subnormal number on a device without them is a zero of its sign."""
    assert np.signbit(flushed(np.array([-1e-45], "float32")))[0]
