"""Arguments that are only read: declared so where no step could find their memory among what may be written."""

import re
from collections.abc import Callable

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield.compiler.build import Target, build
from nearfield.device import open_device
from nearfield.program.program import Program
from nearfield.tensor import Node, Tensor
from nearfield.trace import trace

N = 64
NATIVE = Target("webgpu", frozenset({"read-only-storage"}), 8)


def whole(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).integers(-2, 3, shape).astype("float32")


def program_of(
    make: Callable[..., list[Tensor]], shapes: list[tuple[int, ...]], *taken: int, target: Target = NATIVE
) -> Program:
    given = [Tensor(Node(None, (), {}, shape, nf.float32)) for shape in shapes]
    graph, _ = trace([y.node for y in make(*given)], [x.node for x in given])
    return build(graph, target, givable=frozenset(taken)).program


def uses(program: Program) -> list[dict[str, str]]:
    """For each step, its buffers' kinds and what the kernel says of them."""
    found = []
    for step in program.steps:
        said = re.findall(r"var<storage, (\w+)> b", program.kernels[step.kernel].code)
        found.append({program.buffers[n].name: word for n, word in zip(step.buffers, said, strict=True)})
    return found


def independent(x: Tensor, v: Tensor, w: Tensor) -> list[Tensor]:
    return [x @ v, x @ w]


def chained(x: Tensor, v: Tensor, w: Tensor) -> list[Tensor]:
    return [x @ v @ w @ v]


def by_way_of_the_arena(x: Tensor, v: Tensor, w: Tensor) -> list[Tensor]:
    return [(x @ v + x) @ w]


def in_place(x: Tensor, v: Tensor, w: Tensor) -> list[Tensor]:
    return [x @ v, w - 2.0 * x, v - 2.0 * x]


SHAPES: list[tuple[int, ...]] = [(N,), (N, N), (N, N)]


def test_what_independent_products_share_is_only_read() -> None:
    program = program_of(independent, SHAPES)
    assert program.features == ("read-only-storage",)
    for use in uses(program):
        assert sorted(use.values()) == ["read", "read", "read_write"]
        assert use["input0"] == "read"


@pytest.mark.parametrize(
    ("make", "taken"), [(independent, ()), (chained, ()), (by_way_of_the_arena, ()), (in_place, (1, 2))]
)
def test_no_step_has_one_memory_to_read_and_to_write(make: Callable[..., list[Tensor]], taken: tuple[int, ...]) -> None:
    """What lies in the arena is one memory, so are the constants, and a caller may give one thing twice."""
    program = program_of(make, SHAPES, *taken)
    buffers = {b.name: b for b in program.buffers}
    own = {program.buffers[b.alias].name for b in program.buffers if b.alias >= 0}
    for use in uses(program):
        kinds = {
            word: {buffers[n].kind for n, said in use.items() if said == word and n not in own} for word in use.values()
        }
        assert not kinds.get("read", set()) & kinds["read_write"] & {"scratch", "constant", "input"}


def test_an_arena_that_is_not_written_is_only_read() -> None:
    first, second = uses(program_of(by_way_of_the_arena, SHAPES))
    assert first["scratch4"] == "read_write"
    assert second["scratch4"] == "read"


def test_a_kernel_of_several_steps_says_what_all_of_them_allow() -> None:
    """In the middle one the left factor lies in the arena, as the result does; in the first both are inputs."""
    assert {word for use in uses(program_of(chained, SHAPES)) for word in use.values()} == {"read_write"}


@pytest.mark.parametrize(
    ("make", "taken"), [(independent, ()), (chained, ()), (by_way_of_the_arena, ()), (in_place, (1, 2))]
)
@pytest.mark.parametrize("same", [(0, 1, 2), (0, 0, 0), (0, 1, 1)], ids=str)
def test_results(make: Callable[..., list[Tensor]], taken: tuple[int, ...], same: tuple[int, ...]) -> None:
    """Also where one block of memory is given for several inputs."""
    need("webgpu")
    device = open_device("webgpu")
    arrays = [whole(N, N) * (n + 1) for n in range(3)]
    session = device.load(program_of(make, SHAPES, *taken))
    blocks = [device.alloc(4 * N * N) for _ in range(3)]
    for block, x in zip(blocks, arrays, strict=True):
        device.write(block, x)
    got = session.run("main", [blocks[n] for n in same])
    with nf.use("reference"):
        given = [np.resize(arrays[n], shape) for n, shape in zip(same, SHAPES, strict=True)]
        want = [y.numpy() for y in make(*map(nf.asarray, given))]
    for memory, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.frombuffer(device.read(memory, y.nbytes), "float32").reshape(y.shape), y)
    session.close()


def test_factors_of_tiles_are_not_declared_so() -> None:
    """Drivers make slower code then."""
    program = program_of(lambda v, w: [v @ w], [(N, N)] * 2)
    assert program.features == ()
    assert {word for use in uses(program) for word in use.values()} == {"read_write"}


def test_programs_for_other_readers_say_nothing() -> None:
    program = program_of(independent, SHAPES, target=Target("webgpu", frozenset(), 8))
    assert program.features == ()
    assert {word for use in uses(program) for word in use.values()} == {"read_write"}
