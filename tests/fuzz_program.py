"""Damaged Programs by the thousand: decoding gives a legal Program or FormatError, soon, and nothing else.

python tests/fuzz_program.py SECONDS [SEED]      prints how many files were tried, and how many of them were still legal
"""

import json
import random
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from handmade_programs import chain, prepared, take_over
from nearfield.errors import FormatError
from nearfield.program.codec import decode, encode
from nearfield.program.program import Buffer, Entry, Kernel, Program, Step

SLOW_S = 2.0  # for files of some kilobytes; decoding one takes about 0.0002
NUMBERS = (-1, 0, 1, 2, 3, 7, 15, 16, 255, 256, 65535, 65536, 2**31, 2**32, 2**53 - 1, 2**53, 2**63, 10**30, 0.5, 1e300)
ODD = (
    *NUMBERS,
    True,
    None,
    "",
    "x",
    "input",
    "prepared",
    "prepare",
    "scratch",
    "output",
    "\ud800",
    [],
    [0],
    [[]],
    {},
    {"a": 1},
)


def seeds() -> list[bytes]:
    """Small legal files that use every part of the format."""
    wasm = Program(
        target="wasm",
        features=("relaxed-simd",),
        buffers=(
            Buffer("in", "int8", (3, 5), "input"),
            Buffer("c", "float64", (2,), "constant", 16),
            Buffer("s", "bool", (), "scratch", 256),
            Buffer("w", "int64", (0, 4), "weight"),
            Buffer("out", "uint8", (15,), "output", 0, 0),
        ),
        kernels=(Kernel("é", "f", 5), Kernel("empty", "g", 0)),
        steps=(Step(0, (0, 1, 2, 3, 4), (15, 4), 99), Step(1, (), (0, 1))),
        entries=(Entry("run", (0,), (4,), 0, 2), Entry("none", (), (), 1, 1)),
        arena=512,
        module=b"\0asm\1\0\0\0\3more",
        memory_flag=8,
        data=bytes(range(40)),
    )
    return [encode(program) for program in (wasm, chain("webgpu"), take_over("webgpu"), prepared("webgpu"))]


def parts(file: bytes) -> tuple[Any, bytes]:
    """The header, read as JSON, and what comes after it."""
    length = struct.unpack("<I", file[12:16])[0]
    return json.loads(file[16 : 16 + length]), file[16 + length :]


def joined(text: bytes, rest: bytes) -> bytes:
    """A file with this header text."""
    text += b" " * (-len(text) % 8)
    return b"\x89NFP\r\n\x1a\n" + struct.pack("<II", 1, len(text)) + text + rest


def change_bytes(file: bytes, rng: random.Random) -> bytes:
    """A few bytes replaced."""
    damaged = bytearray(file)
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        damaged[rng.randrange(len(damaged))] = rng.choice((0, 1, 32, 44, 48, 57, 91, 93, 127, 255, rng.randrange(256)))
    return bytes(damaged)


def cut_or_grow(file: bytes, rng: random.Random) -> bytes:
    """A piece missing, doubled or added."""
    start, stop = sorted(rng.randrange(len(file) + 1) for _ in range(2))
    return rng.choice((file[:start], file[:start] + file[stop:], file[:stop] + file[start:], file + file[start:stop]))


def change_values(file: bytes, rng: random.Random) -> bytes:
    """Values of the header replaced, rows doubled or dropped; the lengths still agree."""
    header, rest = parts(file)
    for _ in range(rng.choice((1, 1, 2, 4))):
        change_one(header, rng)
    return joined(json.dumps(header).encode("utf-8", "surrogatepass"), rest)


def change_one(header: dict[str, Any], rng: random.Random) -> None:
    where: Any = header
    while True:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = where[key]
        if isinstance(inner, list | dict) and inner and rng.random() < 0.8:
            where = inner
            continue
        action = rng.randrange(4)
        if action == 0 and isinstance(where, list):
            where.insert(key, inner)
        elif action == 1:
            del where[key]
        elif isinstance(inner, int) and action == 2:
            where[key] = inner + rng.choice((-256, -16, -1, 1, 16, 256))
        else:
            where[key] = rng.choice(ODD)
        return


def change_text(file: bytes, rng: random.Random) -> bytes:
    """The header's text changed where JSON readers differ."""
    header, rest = parts(file)
    text = json.dumps(header)
    at = rng.randrange(len(text))
    odd = (
        "NaN",
        "-Infinity",
        "1.0",
        "1e9",
        "-0",
        "9" * rng.choice((17, 5000)),
        "[" * 5000,
        '"target":"wasm",',
        "\ufeff",
        "\t",
    )
    return joined((text[:at] + rng.choice(odd) + text[at + rng.randrange(3) :]).encode(), rest)


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (change_bytes, cut_or_grow, change_values, change_text)


def check(file: bytes) -> bool:
    """Is the file still legal? AssertionError, or whatever decoding raised, if decoding is not as it should be."""
    began = time.process_time()
    try:
        program = decode(file)
    except FormatError as error:
        message = str(error)
        assert message.startswith("program: "), message
        assert len(message) < 600, message
        return False
    finally:
        assert time.process_time() - began < SLOW_S, "decoding took too long"
    assert decode(encode(program)) == program
    assert str(program)
    return True


def fuzz(rng: random.Random, files: list[bytes]) -> bool:
    """Damage one of the files in one to three ways and check it."""
    file = rng.choice(files)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        try:
            file = rng.choice(CHANGES)(file, rng) or b"\0"
        except (ValueError, TypeError, struct.error, RecursionError):
            break  # too damaged to be taken apart again
    try:
        return check(file)
    except BaseException:
        sys.stderr.write(f"the file was {file!r}\n")
        raise


def main(seconds: float, seed: int) -> None:
    """Fuzz for so long."""
    rng, files = random.Random(seed), seeds()
    tried = legal = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        legal += fuzz(rng, files)
        tried += 1
    sys.stdout.write(f"{tried} files, {legal} of them legal, seed {seed}\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32))
