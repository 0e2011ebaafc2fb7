"""Kernels of an exported Program whose texts differ in numbers only are one, which reads them (wgsl_numbers.py)."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn
from nearfield.compiler.build import Target, build
from nearfield.compiler.wgsl_access import READ_ONLY
from nearfield.compiler.wgsl_numbers import share_texts
from nearfield.device import open_device
from nearfield.graph.graph import Graph
from nearfield.graph.interpret import interpret
from nearfield.program.program import Program
from nearfield.program.verify import verify
from nearfield.tensor import Tensor
from test_contraction import graph_of, whole

WEBGPU = Target("webgpu", frozenset(), 8)


def filters(x: Tensor, v: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return nn.conv2d(x, v, padding=1, groups=8), nn.conv2d(y, w, padding=1, groups=12)


def products(x: Tensor, v: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return x @ v, y @ w


def curves(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return nf.exp(x)[1:] + x[:-1], nf.exp(y)[1:] + y[:-1]


def norms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return nn.softmax(x, axis=-1), nn.softmax(y, axis=-1)


ALIKE: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "depthwise": (filters, [whole(1, 9, 7, 8), whole(3, 3, 1, 8), whole(1, 6, 11, 12), whole(3, 3, 1, 12)]),
    "tiles": (products, [whole(60, 64), whole(64, 36), whole(40, 64), whole(64, 72)]),
    "one by one": (curves, [whole(7, 8), whole(11, 20)]),
}


def built(make: Callable[..., Any], arrays: list[Any]) -> tuple[Graph, Program]:
    graph = graph_of(make, arrays)
    return graph, build(graph, WEBGPU).program


@pytest.mark.parametrize("name", ALIKE)
def test_one_text_for_kernels_that_differ_in_numbers(name: str) -> None:
    """Fewer kernels, as many steps, and none has numbers of its own that another reads."""
    _, program = built(*ALIKE[name])
    shared = share_texts(program, 8)
    verify(shared)
    assert len(shared.kernels) < len(program.kernels)
    assert [step.size for step in shared.steps] == [step.size for step in program.steps]
    assert shared.entries == program.entries
    numbers = [b for b in shared.buffers if b.kind == "constant"]
    assert len(numbers) == len(program.kernels)
    assert all(b.offset % 16 == 0 for b in numbers)
    assert share_texts(shared, 8) == shared


@pytest.mark.device("webgpu")
@pytest.mark.parametrize("name", ALIKE)
def test_results_are_the_same(name: str) -> None:
    """Each step reads its own numbers."""
    need("webgpu")
    make, arrays = ALIKE[name]
    graph, program = built(make, arrays)
    device = open_device("webgpu")
    inputs = []
    for x in arrays:
        inputs.append(device.alloc(x.nbytes))
        device.write(inputs[-1], x.tobytes())
    outputs = device.load(share_texts(program, 8)).run("main", inputs)
    for memory, want in zip(outputs, interpret(graph, arrays), strict=True):
        got = np.frombuffer(device.read(memory, want.nbytes), want.dtype).reshape(want.shape)
        np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=name)


def test_who_meets_at_a_barrier_depends_on_no_number_that_is_read() -> None:
    """Pages refuse such kernels; natively nobody would notice. Tiles keep the numbers of their strips."""
    _, program = built(norms, [whole(9, 300), whole(9, 400)])
    assert any("workgroupBarrier" in kernel.code for kernel in program.kernels)
    assert share_texts(program, 8) == program
    _, program = built(products, [whole(40, 64), whole(64, 36), whole(40, 128), whole(128, 36)])
    assert share_texts(program, 8) == program
    _, program = built(*ALIKE["tiles"])
    (kernel,) = share_texts(program, 8).kernels
    main = kernel.code[kernel.code.index("fn main(") :]
    conditions = re.findall(r"^ *(?:for|if) .*", main, re.MULTILINE)
    assert conditions
    assert not [line for line in conditions if re.search(r"\bn\d+\b", line)]


def test_what_has_no_room_or_is_large_stays() -> None:
    """The numbers are one more argument; a large kernel keeps its own."""
    _, program = built(*ALIKE["depthwise"])
    assert share_texts(program, max(kernel.bindings for kernel in program.kernels)) == program
    _, program = built(products, [whole(2048, 64), whole(64, 1024), whole(2048, 64), whole(64, 1088)])
    assert share_texts(program, 8) == program


def test_what_says_that_it_only_reads_stays() -> None:
    """Constants lie in one buffer, which cannot be declared in two ways."""
    make, arrays = ALIKE["one by one"]
    program = build(graph_of(make, arrays), Target("webgpu", frozenset({READ_ONLY}), 8)).program
    assert program.features
    assert share_texts(program, 8) == program


def test_exported_programs_share_texts(tmp_path: Any) -> None:
    """A page compiles one kernel for layers of two sizes."""
    from nearfield.program.codec import decode

    def model(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return nf.exp(x)[1:] + x[:-1], nf.exp(y)[1:] + y[:-1]

    folder = nf.export(model, tmp_path / "m", inputs={"x": whole(7, 8), "y": whole(11, 20)})
    program = decode((folder / "webgpu.nfp").read_bytes())
    assert len(program.kernels) == 1
    assert len(program.steps) == 2
