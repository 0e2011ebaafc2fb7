"""The Program format: what is written is read back, and hostile bytes get FormatError and nothing else."""

import json
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import fuzz_program
from handmade_programs import chain, prepared, sums, take_over
from nearfield.errors import FormatError
from nearfield.program.codec import decode, encode
from nearfield.program.program import Buffer, Entry, Kernel, Program, Step
from nearfield.program.verify import verify

SEEDS = fuzz_program.seeds()
WEBGPU = chain("webgpu")


def changed(change: Callable[[dict[str, Any]], object], seed: int = 0) -> bytes:
    """A legal file whose header was changed."""
    header, rest = fuzz_program.parts(SEEDS[seed])
    change(header)
    return fuzz_program.joined(json.dumps(header).encode("utf-8", "surrogatepass"), rest)


@pytest.mark.parametrize("program", [decode(SEEDS[0]), WEBGPU, take_over("webgpu"), sums("webgpu"), prepared("webgpu")])
def test_round_trip(program: Program) -> None:
    """Equal Programs, equal bytes."""
    file = encode(program)
    assert decode(file) == program
    assert decode(bytearray(file)) == decode(memoryview(file)) == program
    assert encode(decode(file)) == file
    assert len(file) % 8 == len(program.data) % 8


@pytest.mark.device("wasm")
def test_round_trip_of_a_real_module() -> None:
    """The module's bytes survive."""
    program = chain("wasm")
    assert decode(encode(program)) == program


def test_empty_program() -> None:
    """Nothing is a legal Program, too."""
    empty = Program("webgpu", (), (), (), (), ())
    assert decode(encode(empty)) == empty
    assert str(empty).startswith("program webgpu\n")


def test_text_is_stable() -> None:
    """The text shows all but the code."""
    assert str(WEBGPU) == TEXT


TEXT = """\
program webgpu
  arena 288  module 0  data 24
buffers
  b0  x  float32[6]  input
  b1  c  float32[6]  constant  @0
  b2  y  float32[6]  scratch   @256
  b3  w  float32[6]  weight
  b4  z  float32[6]  output
kernels
  k0  add       3 bindings
  k1  mul       3 bindings
  k2  increase  1 bindings
steps
  0  add(b0, b1, b2)  1 x 1 x 1  cost 6
  1  mul(b2, b3, b4)  1 x 1 x 1  cost 6
  2  increase(b3)     1 x 1 x 1  cost 6
entries
  predict(x) -> (z)  steps 0 to 2
  train(x) -> (z)  steps 0 to 3"""


def put(*path: Any) -> Callable[[dict[str, Any]], object]:
    """A change: the last argument goes where the others lead."""
    *keys, last, value = path

    def change(header: dict[str, Any]) -> None:
        where: Any = header
        for key in keys:
            where = where[key]
        where[last] = value

    return change


HOSTILE_HEADERS = {
    "unknown target": (put("target", "cuda"), "target"),
    "target is no text": (put("target", ["wasm"]), "target"),
    "unknown feature": (put("features", ["f32"]), "features"),
    "feature twice": (put("features", ["relaxed-simd"] * 2), "features"),
    "feature of the other target": (put("features", ["subgroups"]), "features"),
    "features is no list": (put("features", "relaxed-simd"), "features"),
    "unknown key": (put("extra", 1), "header"),
    "missing key": (lambda header: header.pop("arena"), "header"),
    "arena negative": (put("arena", -1), "arena"),
    "arena beyond 2**53": (put("arena", 2**53), "arena"),
    "arena is a truth value": (put("arena", True), "arena"),
    "arena too small for its buffer": (put("arena", 264), r"buffers\[2\]"),
    "row too short": (lambda header: header["buffers"][1].pop(), r"buffers\[1\]"),
    "row is no list": (put("steps", 0, {"kernel": 0}), "steps"),
    "name twice": (put("buffers", 1, 0, "in"), r"buffers\[1\]"),
    "name is half a surrogate pair": (put("buffers", 1, 0, "\ud800"), r"buffers\[1\]"),
    "name is a number": (put("entries", 0, 0, 5), r"entries\[0\]"),
    "unknown dtype": (put("buffers", 0, 1, "float128"), r"buffers\[0\]"),
    "dtype is a list": (put("buffers", 0, 1, ["int8"]), r"buffers\[0\]"),
    "unknown kind": (put("buffers", 0, 3, "global"), r"buffers\[0\]"),
    "too many axes": (put("buffers", 0, 2, [1] * 17), r"buffers\[0\]"),
    "shape overflows": (put("buffers", 3, 2, [2**53 - 1] * 16), r"buffers\[3\]"),
    "negative size": (put("buffers", 0, 2, [-3, -5]), r"buffers\[0\]"),
    "size is text": (put("buffers", 0, 2, ["3"]), r"buffers\[0\]"),
    "offset of an input": (put("buffers", 0, 4, 16), r"buffers\[0\]"),
    "constant misaligned": (put("buffers", 1, 4, 8), r"buffers\[1\]"),
    "constant outside the data": (put("buffers", 1, 4, 32), r"buffers\[1\]"),
    "constant far outside": (put("buffers", 1, 4, 2**53 - 1 - 15), r"buffers\[1\]"),
    "scratch misaligned": (put("buffers", 2, 4, 16), r"buffers\[2\]"),
    "scratch outside": (put("buffers", 2, 4, 512), r"buffers\[2\]"),
    "alias of a scratch": (put("buffers", 2, 5, 0), r"buffers\[2\]"),
    "alias of no buffer": (put("buffers", 4, 5, 99), r"buffers\[4\]"),
    "alias below -1": (put("buffers", 4, 5, -2), r"buffers\[4\]"),
    "alias to a weight": (put("buffers", 4, 5, 3), r"buffers\[4\]"),
    "alias to another room": (put("buffers", 4, 2, [17]), r"buffers\[4\]"),
    "kernel out of range": (put("steps", 0, 0, 2), r"steps\[0\]"),
    "kernel negative": (put("steps", 0, 0, -1), r"steps\[0\]"),
    "buffer out of range": (put("steps", 0, 1, 0, 5), r"steps\[0\]"),
    "wrong number of arguments": (put("steps", 0, 1, [0]), r"steps\[0\]"),
    "grain 0": (put("steps", 0, 2, [15, 0]), r"steps\[0\]"),
    "size for the other target": (put("steps", 0, 2, [1, 1, 1]), r"steps\[0\]"),
    "cost negative": (put("steps", 0, 3, -1), r"steps\[0\]"),
    "entry ends too late": (put("entries", 0, 4, 3), r"entries\[0\]"),
    "entry ends before it starts": (put("entries", 1, 4, 0), r"entries\[1\]"),
    "entry's input is an output": (put("entries", 0, 1, [4]), r"entries\[0\]"),
    "entry's input twice": (put("entries", 0, 1, [0, 0]), r"entries\[0\]"),
    "entry lacks an input that its steps use": (put("entries", 1, 3, 0), r"entries\[1\]"),
    "entry lacks the input that is taken over": (put("entries", 0, 1, []), r"entries\[0\]"),
    "memory_flag outside": (put("memory_flag", 13), "memory_flag"),
    "memory_flag on another byte": (put("memory_flag", 9), "memory_flag"),
    "module longer than the file": (put("module", 2**53 - 1), "length"),
    "module is a truth value": (put("module", True), "header"),
    "data longer than the file": (put("data", 41), "length"),
}


@pytest.mark.parametrize(("change", "place"), HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS)
def test_hostile_header(change: Callable[[dict[str, Any]], object], place: str) -> None:
    """Each rule of the format is checked, and the message says where it was broken."""
    with pytest.raises(FormatError, match=f"^program: {place}"):
        decode(changed(change))


def header_of(text: str) -> bytes:
    return fuzz_program.joined(text.encode(), b"")


EMPTY = (
    '{"target":"webgpu","features":[],"buffers":[],"kernels":[],"steps":[],"entries":[],'
    '"arena":0,"module":0,"memory_flag":0,"data":0}'
)
HOSTILE_FILES = {
    "nothing": b"",
    "signature alone": SEEDS[0][:8],
    "line ends changed": SEEDS[0].replace(b"\r\n", b"\n", 1),
    "later version": SEEDS[0][:8] + b"\2" + SEEDS[0][9:],
    "header longer than the file": SEEDS[0][:12] + struct.pack("<I", 2**32 - 8) + SEEDS[0][16:],
    "header's length is no multiple of 8": SEEDS[0][:12] + struct.pack("<I", 12) + SEEDS[0][16:],
    "cut short": SEEDS[0][:-1],
    "a trailing byte": SEEDS[0] + b"\0",
    "padding is not zero": SEEDS[0][:-41] + b"\1" + SEEDS[0][-40:],
    "a key twice": header_of(EMPTY.replace('"arena":0', '"arena":0,"arena":0')),
    "NaN": header_of(EMPTY.replace('"arena":0', '"arena":NaN')),
    "Infinity": header_of(EMPTY.replace('"arena":0', '"arena":Infinity')),
    "a float": header_of(EMPTY.replace('"arena":0', '"arena":0.0')),
    "a float with a huge exponent": header_of(EMPTY.replace('"arena":0', '"arena":1e999999999')),
    "a number of a million digits": header_of(EMPTY.replace('"arena":0', f'"arena":{"9" * 10**6}')),
    "nested deeply": header_of(EMPTY.replace("[]", "[" * 10**6, 1)),
    "nested deeply and closed": header_of(EMPTY.replace("[]", "[" * 10**5 + "]" * 10**5, 1)),
    "objects nested deeply": header_of(EMPTY.replace("[]", '{"a":' * 10**5, 1)),
    "bad UTF-8": fuzz_program.joined(EMPTY.encode().replace(b"webgpu", b"web\xffpu"), b""),
    "UTF-16": fuzz_program.joined(EMPTY.encode("utf-16"), b""),
    "a byte order mark": fuzz_program.joined(EMPTY.encode("utf-8-sig"), b""),
    "a list": header_of("[]"),
    "a control character in text": header_of(EMPTY.replace("webgpu", "web\ngpu")),
    "two values": header_of(EMPTY + EMPTY),
    "a feature nested as deeply as JSON allows": header_of(EMPTY.replace("[]", "[" * 900 + "]" * 900, 1)),
    "an input of a million axes, taken over": header_of(
        EMPTY.replace(
            '"buffers":[]',
            '"buffers":[["y","int8",[1],"output",0,1],["x","int8",['
            + "9007199254740991," * 10**6
            + '1],"input",0,-1]]',
        )
    ),
}


@pytest.mark.parametrize("file", HOSTILE_FILES.values(), ids=HOSTILE_FILES)
def test_hostile_file(file: bytes) -> None:
    """Files that are not what they seem."""
    with pytest.raises(FormatError, match=r"^program: "):
        decode(file)


def test_the_hostile_files_are_hostile_by_one_thing() -> None:
    """Without the change, the file would be legal."""
    assert decode(header_of(EMPTY)) == Program("webgpu", (), (), (), (), ())


@pytest.mark.parametrize("name", [name for name, file in HOSTILE_FILES.items() if len(file) > 10**5])
def test_memory_follows_the_length(name: str) -> None:
    """Neither time nor memory beyond a small multiple of the file's length."""
    file = HOSTILE_FILES[name]
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(FormatError):
        decode(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(file) + 10**6
    assert time.process_time() - began < 20  # tracing makes it ten times slower


def test_many_entries_over_many_steps_take_linear_time() -> None:
    """Every entry runs all steps: looking at each step of each entry would be 4 * 10**8 looks."""
    count = 20_000
    program = Program(
        "webgpu",
        (),
        (Buffer("x", "float32", (4,), "input"),),
        (Kernel("k", "", 1),),
        (Step(0, (0,), (1, 1, 1)),) * count,
        tuple(Entry(f"e{i}", (0,), (), 0, count) for i in range(count)),
    )
    began = time.process_time()
    verify(program)
    assert time.process_time() - began < 3


OVERLAPS = {
    "a buffer twice": (0, 0, 2),
    "an output and the input it takes over": (0, 5, 2),
    "scratch within scratch": (2, 6, 0),
    "the same constant": (1, 7, 0),
}


@pytest.mark.parametrize("arguments", OVERLAPS.values(), ids=OVERLAPS)
def test_webgpu_arguments_may_not_overlap(arguments: tuple[int, ...]) -> None:
    """WebGPU leaves open what happens then."""
    more = (
        Buffer("taken", "float32", (6,), "output", 0, 0),
        Buffer("large", "float32", (70,), "scratch", 0),
        Buffer("part", "float32", (1,), "constant", 16),
    )
    program = replace(
        WEBGPU,
        buffers=WEBGPU.buffers + more,
        steps=(Step(0, arguments, (1, 1, 1)),),
        entries=(Entry("run", (0,), (5,), 0, 1),),
        arena=1024,
    )
    with pytest.raises(FormatError, match="overlap"):
        verify(program)
    verify(replace(program, steps=(Step(0, (0, 1, 6), (1, 1, 1)),)))


@pytest.mark.parametrize("size", [(0, 1, 1), (65536, 1, 1), (1, 1), (1, 1, True)])
def test_webgpu_sizes(size: tuple[int, ...]) -> None:
    """Workgroups are 1 to 65535 in three directions."""
    with pytest.raises(FormatError, match=r"steps\[0\]"):
        verify(replace(WEBGPU, steps=(Step(0, (0, 1, 2), size), *WEBGPU.steps[1:])))


def test_two_outputs_may_not_take_over_one_input() -> None:
    """They would be one memory."""
    outputs = tuple(Buffer(name, "float32", (6,), "output", 0, 0) for name in "yz")
    program = Program(
        "webgpu",
        (),
        (Buffer("x", "float32", (6,), "input"), *outputs),
        (),
        (),
        (Entry("run", (0,), (1, 2), 0, 0),),
    )
    with pytest.raises(FormatError, match="two outputs"):
        verify(program)
    verify(replace(program, entries=(Entry("run", (0,), (1,), 0, 0),)))


def test_prepare_takes_nothing_and_gives_nothing() -> None:
    """The session calls it, between loading and the first call."""
    program = prepared("webgpu")
    predict, prepare = program.entries
    with pytest.raises(FormatError, match=r"entries: none is called prepare"):
        verify(replace(program, entries=(predict, replace(prepare, name="other"))))
    with pytest.raises(FormatError, match=r"entries\[0\].*inputs or outputs"):
        verify(replace(program, entries=(replace(predict, name="prepare"), replace(prepare, name="other"))))
    buffers = (*program.buffers[:3], replace(program.buffers[3], offset=256), program.buffers[4])
    with pytest.raises(FormatError, match=r"buffers\[3\].*offset"):
        verify(replace(program, buffers=buffers))


def test_encode_refuses_what_decode_would() -> None:
    """A bad file is never written."""
    with pytest.raises(FormatError, match="arena"):
        encode(replace(WEBGPU, arena=-1))
    with pytest.raises(FormatError, match="module"):
        encode(replace(WEBGPU, module=b"\3"))


def test_messages_stay_short() -> None:
    """A hostile value does not fill the terminal."""
    with pytest.raises(FormatError) as error:
        decode(changed(put("target", "x" * 10**6)))
    assert len(str(error.value)) < 400


def test_fuzz() -> None:
    """A short, repeatable slice of fuzz_program.py."""
    rng = random.Random(20)
    legal = sum(fuzz_program.fuzz(rng, SEEDS) for _ in range(3000))
    assert 0 < legal < 1500  # the damage is small enough to reach deep, and large enough to matter
