"""Operations in the browser, written in Python there: traced, compiled and run by Pyodide on both devices."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from browser.case_programs import ONLY_ON_WASM
from browser.harness import Pyodide
from cases import Case, cases_of
from k_interpreter import Number
from nearfield.op import REGISTRY
from test_ops import complaint

FAMILIES = sorted({op.family for op in REGISTRY.values()})
SETUP = """
import base64, math
import nearfield as nf
from nearfield.dtype import DTYPES
from nearfield.tensor import apply, call, leaf, scalar

def array(dtype, shape, value):
    if isinstance(value, str):
        return leaf(base64.b64decode(value), tuple(shape), DTYPES[dtype])
    return call("broadcast_to", scalar(value[0], DTYPES[dtype]), tuple(shape))

def results(device, rows):
    with nf.use(device):
        made = [apply(op, *[array(*x) for x in arrays], **attrs) for op, attrs, arrays in rows]
        return [base64.b64encode(y._bytes()).decode() for y in made]
"""


def chosen(family: str, device: str) -> list[Case]:
    """At most three cases of each operation: the hardest, one between, the last."""
    found = []
    for op in REGISTRY.values():
        if op.family == family:
            cases = [c for c in cases_of(op) if device == "wasm" or not c.dtypes & ONLY_ON_WASM]
            found += [cases[n] for n in sorted({0, len(cases) // 2, len(cases) - 1})]
    return found


def row(case: Case) -> tuple[str, dict[str, Any], list[tuple[str, tuple[int, ...], Any]]]:
    """The case as Python text once it is printed."""
    arrays = []
    for x in case.arrays:
        value = (x.item(),) if isinstance(x, Number) else b64encode(np.ascontiguousarray(x).tobytes()).decode()
        arrays.append((x.dtype.name, x.shape, value))
    return case.op.name, case.attrs, arrays


@pytest.mark.parametrize("device", ["wasm", "webgpu"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family_means_the_same_in_pyodide(
    family: str, device: str, pyodide: Pyodide, count_cases: Callable[[str, int], None]
) -> None:
    """All at once: what is pending together is one Program."""
    pyodide.run(SETUP + "None")
    cases = chosen(family, device)
    rows = "\n".join(f"    {row(case)!r}," for case in cases)
    values = {"nearfield": "nf", "inf": "math.inf", "nan": "math.nan"}
    names = "\n".join(f"{name} = {value}" for name, value in values.items())
    answer = pyodide.run(f"{names}\nresults({device!r}, [\n{rows}\n])")
    found = []
    for case, text in zip(cases, answer, strict=True):
        shape, dtype = case.infer()
        got = np.frombuffer(b64decode(text), dtype.name).reshape(shape)
        if words := complaint(device, case, got):
            found.append(words)
    assert not found, "\n".join(found)
    count_cases(f"Pyodide, {device}", len(cases))
