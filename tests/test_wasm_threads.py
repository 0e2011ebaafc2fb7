"""How threads share a step: every piece is somebody's, and nobody's twice, in whatever order threads come."""

import random
from unittest.mock import patch

import numpy as np
import pytest

from nearfield import scalar as k
from nearfield.compiler import wasm_loops, wasm_threads
from nearfield.compiler.kernel import Kernel, Store
from nearfield.compiler.wasm_bytes import module
from nearfield.compiler.wasm_module import assemble
from nearfield.dtype import DTYPES
from wasm_machine import TICKETS, Machine, engine

wasmtime = pytest.importorskip("wasmtime")
F32 = DTYPES["float32"]


class Taker:
    """The function that gives out pieces, alone in a module."""

    def __init__(self) -> None:
        rows = [(f"f{n}", *row[1:]) for n, row in enumerate(wasm_threads.functions())]
        self.store = wasmtime.Store(engine())
        from nearfield.device.wasmtime_call import SharedMemory

        memory = SharedMemory(engine(), wasmtime.MemoryType(wasmtime.Limits(1, 65536), shared=True))
        code = wasmtime.Module(engine(), module(rows)[0])
        self.function = wasmtime.Instance(self.store, code, [memory]).exports(self.store)[f"f{wasm_threads.TAKE}"]
        self.slot = 0

    def take(self, thread: int, threads: int, total: int, grain: int) -> tuple[int, int]:
        begin, end = self.function(self.store, self.slot, thread, threads, total, grain)
        return begin, end


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(("total", "grain"), [(1, 1), (5, 1), (64, 8), (1000, 7), (70_000, 64), (129, 128), (3, 5)])
def test_each_piece_is_taken_once(threads: int, total: int, grain: int) -> None:
    """Pieces cover the range, apart, cut at multiples of the grain; then each thread is told that nothing is left."""
    draw = random.Random(f"{threads} {total} {grain}")
    taker = Taker()
    for turn in range(3):
        taker.slot = 4096 + 4 * turn
        busy, pieces = list(range(threads)), []
        while busy:
            thread = draw.choice(busy)
            begin, end = taker.take(thread, threads, total, grain)
            if begin == end:
                busy.remove(thread)
            else:
                pieces.append((begin, end))
        pieces.sort()
        assert [0, *(end for _, end in pieces)] == [*(begin for begin, _ in pieces), total]
        assert all(begin % grain == 0 for begin, _ in pieces)


def test_own_share_comes_first() -> None:
    """A thread begins with half of its share, goes on in sixteenths, and helps others when its own is done."""
    taker = Taker()
    assert [taker.take(1, 2, 640, 1) for _ in range(3)] == [(320, 480), (480, 500), (500, 520)]
    assert taker.take(0, 2, 640, 1) == (0, 160)
    taken = [taker.take(1, 2, 640, 1) for _ in range(8)]
    assert taken[5:] == [(620, 640), (160, 180), (180, 200)]


def test_one_thread_takes_all_at_once() -> None:
    """Nobody else could take the rest."""
    taker = Taker()
    assert [taker.take(0, 1, 70_000, 64) for _ in range(2)] == [(0, 70_000), (0, 0)]


def test_a_single_piece_is_thread_0s() -> None:
    """It is awake, and the others may sleep."""
    assert Taker().take(0, 4, 10, 16) == (0, 10)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_many_steps_between_barriers(threads: int) -> None:
    """More steps that touch nothing in common than a line has tickets, in place, call after call: each adds once."""
    n, many = 500, 3 * wasm_threads.SLOTS + 1
    i = k.var("i", n)
    increase = Kernel("increase", (i,), (Store(0, i, k.load(0, i, "float32") + 1.0),), (F32,))
    with patch.object(wasm_loops, "WORTH", 1):
        steps = [(0, (b,)) for b in range(many)]
        made = assemble([increase], [*steps, *steps[:3], *steps], [("main", 0, 2 * many + 3)], relaxed=False)
    assert all(total > grain for total, grain in made.sizes), "threads share all steps"
    machine = Machine(made, [np.zeros(n, "float32")] * many)
    for _ in range(5):
        machine.run(threads=threads)
    for b in range(many):
        assert (machine.read(b) == (15 if b < 3 else 10)).all()
    assert not machine.view[TICKETS : TICKETS + 64 * threads].any()
