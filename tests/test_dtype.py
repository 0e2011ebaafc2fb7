"""Element types: what two of them promote to, and which names they answer to."""

import itertools
import pickle

import numpy as np
import pytest

import nearfield as nf
from nearfield.dtype import DTYPES, canonical, promote

NARROW = {
    "int16": "int32",
    "uint16": "uint32",
    "uint64": "int64",
}  # types that Nearfield lacks, and what stands for them


@pytest.mark.parametrize(("a", "b"), list(itertools.product(DTYPES, DTYPES)))
def test_promotion_holds_the_values_of_both(a: str, b: str) -> None:
    """As in NumPy within a kind and between integers; an integer beside a real takes the real type."""
    got = promote(DTYPES[a], DTYPES[b])
    kinds = {DTYPES[a].kind, DTYPES[b].kind}
    if "f" in kinds and kinds & {"i", "u"}:
        want = a if DTYPES[a].kind == "f" else b
    else:
        want = np.promote_types(a, b).name
    assert got.name == NARROW.get(want, want)
    assert promote(DTYPES[b], DTYPES[a]) is got


@pytest.mark.parametrize("name", DTYPES)
def test_names_of_a_type(name: str) -> None:
    """The name, NumPy's type, the row itself, and what was pickled."""
    row = DTYPES[name]
    assert canonical(name) is canonical(np.dtype(name)) is canonical(row) is pickle.loads(pickle.dumps(row)) is row
    assert np.dtype(name).itemsize == row.itemsize
    assert np.dtype(row.code).name == name


def test_python_types_and_numbers() -> None:
    """bool, int and float name a type; a number beside an array takes the array's type if its kind can hold it."""
    assert [canonical(t).name for t in (bool, int, float)] == ["bool", "int32", "float32"]
    pairs = [(nf.ones(2, dtype="int8") + 1, "int8"), (nf.ones(2, dtype="int8") * 1.5, "float32")]
    pairs += [(nf.ones(2, dtype="float16") * 2, "float16"), (nf.ones(2, dtype="bool") + 1, "int32")]
    assert [t.dtype.name for t, _ in pairs] == [name for _, name in pairs]
