"""Tiles fetch the next panel of a right factor while they multiply, and never what is behind the last."""

import ctypes

import numpy as np
import pytest

import nearfield as nf
from nearfield.compiler.wasm_contraction import WRITTEN_OUT, tiling
from nearfield.compiler.wasm_dot import Dots
from nearfield.compiler.wasm_module import assemble
from nearfield.compiler.wasm_tile import Tiles
from test_contraction import graph_of, kernels_of, whole
from wasm_machine import Machine, executed

AHEAD = [(7, 140, 40), (49, 64, 40), (60, 72, 17), (100, 24, 64), (140, 20, 24), (48, 8, 100), (49, 100, 20)]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("sizes", AHEAD)
def test_the_next_panel_is_fetched_and_nothing_behind_the_last(sizes: tuple[int, int, int], dtype: str) -> None:
    """Panels at the very end of memory: to touch one byte more would be a trap."""
    rows, length, columns = sizes
    a, b = whole(rows, length).astype(dtype), whole(length, columns).astype(dtype)
    wide = "float32" if dtype == "float32" else "int32"
    graph = graph_of(lambda a, b: nf.astype(a, wide) @ nf.astype(b, wide), (a, b))
    kernel = next(kernel for kernel in kernels_of(graph, frozenset([1])) if tiling(kernel, relaxed=True))
    plan = tiling(kernel, relaxed=True)
    assert plan is not None
    form = Dots if plan.kind == "dot" else Tiles
    fetched = plan.length >= WRITTEN_OUT and plan.block > 1
    assert (form(kernel, plan).pace > 0) == fetched
    panels = np.resize(b, (1, -(-columns // 8) * 8 * length))
    out = np.zeros((rows, columns), wide)
    (want,) = executed(kernel, [a, panels], out)
    machine = Machine(assemble([kernel], [(0, (0, 1, 2))], [("main", 0, 1)], relaxed=True), [a, panels, out])
    end = (machine.memory.grow(2 + panels.nbytes // 65536) + 2 + panels.nbytes // 65536) * 65536
    machine.places[1] = end - panels.nbytes
    begin = ctypes.addressof(machine.memory.data_ptr().contents)
    ctypes.memmove(begin + machine.places[1], panels.tobytes(), panels.nbytes)
    machine.run()
    np.testing.assert_array_equal(machine.read(2), want)
