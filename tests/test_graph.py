"""The Graph: its text, and what its verifier refuses."""

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

import nearfield as nf
from nearfield import nn
from nearfield.dtype import DTYPES
from nearfield.graph.graph import Graph, Line
from nearfield.graph.verify import verify
from nearfield.trace import trace

F32, I32 = DTYPES["float32"], DTYPES["int32"]


def number(value: bytes, dtype: str = "float32") -> str:
    """How a constant of these bytes is printed."""
    line = Line("const", (), (("value", value), ("dtype", DTYPES[dtype])), (), DTYPES[dtype])
    return str(Graph((line,), (0,))).partition("value=")[2].partition(", dtype")[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"), (-0.0, "-0.0"), (0.1, "0.1"), (1.0, "1.0"), (1 / 3, "0.33333334"), (1e-45, "1e-45"),
        (100.0, "100.0"), (16777217.0, "16777216.0"), (3.4028234663852886e38, "3.4028235e+38"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_constants_are_shown_by_value(value: float, text: str) -> None:
    """As short as can be, and read back as the same bits."""
    bits = struct.pack("<f", value)
    assert number(bits) == text
    assert struct.pack("<f", float(text)) == bits


def test_constants_that_differ_print_differently() -> None:
    """NaNs by their bits; integers and bools by value."""
    assert number(b"\0\0\xc0\x7f") == "nan:7fc00000" != number(b"\1\0\xc0\x7f")
    assert number(struct.pack("<e", 65504.0), "float16") == "65500.0"
    assert number(struct.pack("<d", 0.1), "float64") == "0.1"
    assert (number(b"\xff\xff\xff\xff", "int32"), number(b"\xff", "uint8"), number(b"\1", "bool")) == (
        "-1",
        "255",
        "True",
    )


def a_graph() -> Graph:
    """%0 and %1 are inputs, %2 multiplies them, %3 adds up the rows, %4 drops the axis."""
    x, y = nf.asarray([[1.0, 2.0], [3.0, 4.0]]), nf.asarray([[5.0, 6.0], [7.0, 8.0]])
    return trace([nf.sum(x * y, axis=1).node])[0]


def test_what_tracing_makes_is_right() -> None:
    """A model with its gradient, too."""
    verify(a_graph())
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.relu, lambda x: nf.reshape(x, (2, -1)), nn.Linear(8, 3))
    loss = lambda x: nf.mean(nn.losses.cross_entropy(model(x), nf.zeros(2, dtype="int32")))  # noqa: E731
    value, gradients = nn.value_and_grad(model, loss)(nf.ones((2, 4, 4, 1)))
    verify(trace([value.node, *(g.node for g in gradients.values())])[0])


def changed(at: int, **parts: object) -> Callable[[Graph], Graph]:
    return lambda graph: replace(
        graph, lines=tuple(line._replace(**parts) if i == at else line for i, line in enumerate(graph.lines))
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (changed(2, args=(0, 2)), "line %2, multiply: argument %2; accepted are earlier lines."),
        (changed(2, args=(0, -1)), "line %2, multiply: argument %-1; accepted are earlier lines."),
        (changed(2, args=(0,)), "line %2, multiply: 1 arguments; accepted: 2."),
        (changed(2, op="multiplies"), "there is no operation 'multiplies'"),
        (changed(2, op="concat", args=(), attrs=(("axis", 0),)), "0 arguments; accepted: at least one."),
        (changed(2, shape=(2, 3)), "states float32[2, 3]; its record gives float32[2, 2]."),
        (changed(2, dtype=I32), "states int32[2, 2]; its record gives float32[2, 2]."),
        (changed(1, dtype=I32), "operands float32[2, 2], int32[2, 2]; accepted are operands of one shape and dtype."),
        (changed(1, shape=(2, 1)), "operands float32[2, 2], float32[2, 1]; accepted are"),
        (changed(1, shape=(2, -2)), "line %1, input: shape (2, -2); accepted are sizes of at least 0."),
        (changed(0, attrs=(("axis", 0),)), "line %0, input: an input with arguments or attributes"),
        (changed(3, attrs=()), "line %3, sum: its arguments do not fit: 'axes'."),
        (changed(4, attrs=(("shape", (3,)),)), "line %4, reshape: "),
        (lambda graph: replace(graph, outputs=(5,)), "returns %5; accepted are %0 to %4."),
    ],
)  # fmt: skip
def test_damage_is_found(damage: Callable[[Graph], Graph], words: str) -> None:
    """The line, what stands there, what is accepted."""
    with pytest.raises(nf.FormatError) as caught:
        verify(damage(a_graph()))
    assert str(caught.value).startswith("graph: ")
    assert words in str(caught.value)


def test_every_build_verifies_when_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    """NEARFIELD_DEBUG=1, with which these tests run, and not otherwise."""
    from nearfield.compiler.build import Target, build

    wrong = changed(2, shape=(2, 3))(a_graph())
    monkeypatch.setenv("NEARFIELD_DEBUG", "1")
    with pytest.raises(nf.FormatError, match="its record gives"):
        build(wrong, Target("wasm"))
