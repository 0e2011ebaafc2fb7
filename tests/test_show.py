"""Tensors as text."""

import numpy as np
import pytest

import nearfield as nf
from array_cases import on_devices

pytestmark = on_devices

TEXTS = [
    (nf.asarray([[1.0, 2.0], [3.0, 4.0]]), "Tensor([[1.0, 2.0], [3.0, 4.0]], float32)"),
    (nf.asarray(1 / 3), "Tensor(0.33333334, float32)"),
    (nf.asarray([0.1], "float16"), "Tensor([0.1], float16)"),
    (nf.asarray([1e-8, 16777216.0, 3.4028235e38, -0.0]), "Tensor([1e-08, 16777216.0, 3.4028235e+38, -0.0], float32)"),
    (nf.asarray([nf.nan, nf.inf, -nf.inf]), "Tensor([nan, inf, -inf], float32)"),
    (nf.asarray([True, False]), "Tensor([True, False], bool)"),
    (nf.asarray([-3], "int8"), "Tensor([-3], int8)"),
    (nf.zeros((0,)), "Tensor([], float32)"),
    (nf.zeros((0, 3)), "Tensor([], shape (0, 3), float32)"),
    (nf.zeros((3, 0), dtype="int32"), "Tensor([], shape (3, 0), int32)"),
    (nf.arange(2000), "Tensor([0, 1, 2, …, 1997, 1998, 1999], shape (2000,), int32)"),
    (
        nf.asarray([[[1, 2], [30, 4]], [[5, 6], [7, -8]]]),
        "Tensor([[[ 1,  2],\n         [30,  4]],\n\n        [[ 5,  6],\n         [ 7, -8]]], int32)",
    ),
    (
        nf.asarray([[[1.0, 22.25]], [[-3.5, 4.0]]]),
        "Tensor([[[ 1.0 , 22.25]],\n\n        [[-3.5 ,  4.0 ]]], float32)",
    ),
]


@pytest.mark.parametrize(("x", "text"), TEXTS, ids=range(len(TEXTS)))
def test_text(x: nf.Tensor, text: str, device: str) -> None:
    assert repr(x) == text
    assert str(x) == text


def test_long_rows_go_on_in_the_next_line(device: str) -> None:
    lines = repr(nf.arange(100)).splitlines()
    assert max(map(len, lines)) <= 108
    assert lines[0].startswith("Tensor([ 0,  1,")
    assert lines[1].startswith("        ")


def test_large_arrays_show_their_edges(device: str) -> None:
    lines = repr(nf.eye(40)).splitlines()
    assert lines[0] == "Tensor([[1.0, 0.0, 0.0, …, 0.0, 0.0, 0.0],"
    assert lines[3] == "        …,"
    assert lines[-1] == "        [0.0, 0.0, 0.0, …, 0.0, 0.0, 1.0]], shape (40, 40), float32)"
    assert len(lines) == 7


def test_values_read_back_are_the_same(device: str) -> None:
    x = np.random.default_rng(0).standard_normal(200).astype("float32")
    text = repr(nf.asarray(x)).removeprefix("Tensor(").removesuffix(", float32)")
    np.testing.assert_array_equal(np.float32(eval(text)), x)


def test_formatting(device: str) -> None:
    assert f"{nf.asarray(2.5):.2f}" == "2.50"
    assert f"{nf.asarray([1])}" == "Tensor([1], int32)"


def test_inside_jit_there_are_no_values(device: str) -> None:
    seen = []

    @nf.jit
    def traced(x: nf.Tensor) -> nf.Tensor:
        seen.append(repr(x))
        return x + 1

    traced(nf.ones((2, 3)))
    assert seen[0] == "Tensor(shape (2, 3), float32, traced)"
