"""Is a Program legal? Every offset, size, index and count, before anything runs (docs/spec/program.md, section 5)."""

from bisect import bisect_left
from itertools import accumulate, pairwise

from ..dtype import DTYPES
from ..errors import FormatError
from .program import PREPARE, Buffer, Entry, Program, Step

__all__ = ["MOST", "verify"]

MOST = 2**53 - 1  # the largest integer that JavaScript holds exactly
FEATURES = {"wasm": ("relaxed-simd",), "webgpu": ("shader-f16", "subgroups", "read-only-storage")}
KINDS = ("input", "weight", "constant", "prepared", "scratch", "output")
AXES = 16
WORKGROUPS = 65535
SHARED_WITH_MAXIMUM = 3


def verify(program: Program) -> None:
    """Nothing, for a legal Program.

    errors   FormatError with the place, such as "steps[3]: buffer 7 …", for anything else
    cost     proportional to the Program, never to a number written in it
    """
    if type(program.target) is not str or program.target not in FEATURES:
        raise _wrong("target", f"is {_short(program.target)}; accepted are 'wasm' and 'webgpu'")
    _features(program)
    _number("arena", program.arena)
    _module(program)
    _names("buffers", program.buffers)
    for index, buffer in enumerate(program.buffers):
        _buffer(program, index, buffer)
    for index, buffer in enumerate(program.buffers):
        if buffer.alias >= 0:
            _alias(program, f"buffers[{index}] ({_short(buffer.name)})", buffer)
    _names("kernels", program.kernels)
    for index, kernel in enumerate(program.kernels):
        _text(f"kernels[{index}]", kernel.code)
        _number(f"kernels[{index}]: bindings", kernel.bindings)
    for index, step in enumerate(program.steps):
        _step(program, index, step)
    _entries(program)


def _wrong(place: str, what: str) -> FormatError:
    return FormatError(f"program: {place}: {what}. The file is damaged or was not made by Nearfield; export it again.")


def _number(place: str, value: object, low: int = 0, high: int = MOST) -> None:
    # `type is int`, because True is an int to isinstance and 1 to arithmetic
    if type(value) is not int or not low <= value <= high:
        raise _wrong(place, f"is {_short(value)}; accepted are integers from {low} to {high}")


def _short(value: object) -> str:
    """What a message may say about a value of unknown type: short, whatever the value."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "…")
    if value is None or (isinstance(value, int) and abs(value) < 2**64):
        return repr(value)
    return f"of type {type(value).__name__}"


def _text(place: str, value: object) -> None:
    if type(value) is not str:
        raise _wrong(place, f"{_short(value)} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(place, f"{_short(value)} holds half a surrogate pair") from None


def _names(place: str, rows: tuple[object, ...]) -> None:
    seen: set[str] = set()
    for index, row in enumerate(rows):
        name = getattr(row, "name", None)
        _text(f"{place}[{index}]: name", name)
        if name in seen:
            raise _wrong(f"{place}[{index}]", f"the name {_short(name)} is used twice")
        seen.add(str(name))


def _features(program: Program) -> None:
    known = FEATURES[program.target]
    for feature in program.features:
        if type(feature) is not str or feature not in known:
            raise _wrong("features", f"{_short(feature)} is unknown; {program.target} knows {', '.join(known)}")
    if len(set(program.features)) != len(program.features):
        raise _wrong("features", "one is named twice")


def _module(program: Program) -> None:
    _number("memory_flag", program.memory_flag)
    if program.target == "webgpu":
        if program.module or program.memory_flag:
            raise _wrong("module", "a webgpu Program has no module and memory_flag 0")
    elif program.memory_flag >= len(program.module):
        raise _wrong("memory_flag", f"is {program.memory_flag}, outside the module of {len(program.module)} bytes")
    elif program.module[program.memory_flag] != SHARED_WITH_MAXIMUM:
        raise _wrong("memory_flag", f"the byte there is {program.module[program.memory_flag]}; accepted is 3 (shared)")


def _buffer(program: Program, index: int, buffer: Buffer) -> None:
    place = f"buffers[{index}] ({_short(buffer.name)})"
    if type(buffer.dtype) is not str or buffer.dtype not in DTYPES:
        raise _wrong(place, f"dtype is {_short(buffer.dtype)}; accepted are {', '.join(DTYPES)}")
    if type(buffer.kind) is not str or buffer.kind not in KINDS:
        raise _wrong(place, f"kind is {_short(buffer.kind)}; accepted are {', '.join(KINDS)}")
    if len(buffer.shape) > AXES:
        raise _wrong(place, f"shape has {len(buffer.shape)} axes; accepted are at most {AXES}")
    for size in buffer.shape:
        _number(f"{place}: shape", size)
    if buffer.room > MOST:
        raise _wrong(place, f"its values have more than {MOST} bytes")
    _number(f"{place}: offset", buffer.offset)
    _number(f"{place}: alias", buffer.alias, low=-1)
    _placed(program, place, buffer)


def _placed(program: Program, place: str, buffer: Buffer) -> None:
    if buffer.kind == "constant":
        _inside(place, buffer.offset, buffer.nbytes, 16, "the data", len(program.data))
    elif buffer.kind == "scratch":
        _inside(place, buffer.offset, buffer.room, 256, "the arena", program.arena)
    elif buffer.offset:
        raise _wrong(place, f"offset is {buffer.offset}; accepted is 0, since kind is {buffer.kind}")


def _inside(place: str, offset: int, nbytes: int, step: int, where: str, size: int) -> None:
    if offset % step:
        raise _wrong(place, f"offset {offset} is not a multiple of {step}")
    if offset + nbytes > size:
        raise _wrong(place, f"bytes {offset} to {offset + nbytes} lie outside {where}, which has {size} bytes")


def _alias(program: Program, place: str, buffer: Buffer) -> None:
    if buffer.kind != "output":
        raise _wrong(place, f"alias is {buffer.alias}; only an output has one, and kind is {buffer.kind}")
    if buffer.alias >= len(program.buffers):
        raise _wrong(place, f"alias is {buffer.alias}, and there are {len(program.buffers)} buffers")
    source = program.buffers[buffer.alias]
    if source.kind != "input":
        raise _wrong(place, f"takes over buffer {buffer.alias} of kind {source.kind}; accepted is an input")
    if source.room != buffer.room:
        raise _wrong(place, f"takes over buffer {buffer.alias}, whose room is {source.room} bytes, not {buffer.room}")


def _step(program: Program, index: int, step: Step) -> None:
    place = f"steps[{index}]"
    _index(place, "kernel", step.kernel, len(program.kernels))
    for buffer in step.buffers:
        _index(place, "buffer", buffer, len(program.buffers))
    bindings = program.kernels[step.kernel].bindings
    if len(step.buffers) != bindings:
        raise _wrong(place, f"has {len(step.buffers)} buffers; kernel {step.kernel} takes {bindings}")
    _number(f"{place}: cost", step.cost)
    if program.target == "webgpu":
        _size(place, step, 3, ("x", "y", "z"))
        _apart(program, place, step)
    else:
        _size(place, step, 2, ("total", "grain"))


def _index(place: str, what: str, value: object, count: int) -> None:
    if type(value) is not int or not 0 <= value < count:
        raise _wrong(place, f"{what} {_short(value)} does not exist; there are {count}")


def _size(place: str, step: Step, count: int, names: tuple[str, ...]) -> None:
    if len(step.size) != count:
        raise _wrong(place, f"size has {len(step.size)} numbers; accepted are [{', '.join(names)}]")
    for name, value in zip(names, step.size, strict=True):
        _number(f"{place}: {name}", value, low=0 if name == "total" else 1, high=WORKGROUPS if count == 3 else MOST)


def _apart(program: Program, place: str, step: Step) -> None:
    """FormatError if two arguments of a step share memory: WebGPU leaves open what happens then."""
    spans = sorted(_span(program, index) for index in step.buffers)
    for (space, start, stop, first), (other, begin, _, second) in pairwise(spans):
        if space == other and begin < max(stop, start + 1):
            raise _wrong(place, f"buffers {first} and {second} overlap in memory")


def _span(program: Program, index: int) -> tuple[int, int, int, int]:
    """Whose memory (a buffer's number, or -1 arena, -2 data), first byte, last byte, the buffer's number."""
    buffer = program.buffers[index]
    if buffer.kind == "scratch":
        return -1, buffer.offset, buffer.offset + buffer.room, index
    if buffer.kind == "constant":
        return -2, buffer.offset, buffer.offset + buffer.nbytes, index
    return (buffer.alias if buffer.alias >= 0 else index), 0, buffer.room, index


def _entries(program: Program) -> None:
    _names("entries", program.entries)
    uses, before = _uses(program)
    for index, entry in enumerate(program.entries):
        place = f"entries[{index}] ({_short(entry.name)})"
        _number(f"{place}: first step", entry.start, high=len(program.steps))
        _number(f"{place}: end step", entry.stop, low=entry.start, high=len(program.steps))
        _arguments(program, place, entry)
        # counting instead of looking at each step of each entry: a file may hold many entries over many steps
        own = sum(_between(uses.get(buffer, []), entry) for buffer in (*entry.inputs, *entry.outputs))
        if own != before[entry.stop] - before[entry.start]:
            raise _foreign(program, place, entry)
        if entry.name == PREPARE and (entry.inputs or entry.outputs):
            raise _wrong(place, "has inputs or outputs; the session calls it, and has none to give")
    lonely = [] if program.prepares else [b.name for b in program.buffers if b.kind == "prepared"]
    if lonely:
        raise _wrong("entries", f"none is called {PREPARE}, which would fill buffer {_short(lonely[0])}")


def _arguments(program: Program, place: str, entry: Entry) -> None:
    for what, numbers in (("input", entry.inputs), ("output", entry.outputs)):
        for number in numbers:
            _index(place, what, number, len(program.buffers))
            if program.buffers[number].kind != what:
                raise _wrong(place, f"{what} {number} is a buffer of kind {program.buffers[number].kind}")
        if len(set(numbers)) != len(numbers):
            raise _wrong(place, f"one {what} is named twice")
    taken = [program.buffers[number].alias for number in entry.outputs if program.buffers[number].alias >= 0]
    if len(set(taken)) != len(taken):
        raise _wrong(place, "two outputs take over the same input")
    if not set(taken) <= set(entry.inputs):
        raise _wrong(place, "an output takes over an input that is not among its inputs")


def _uses(program: Program) -> tuple[dict[int, list[int]], list[int]]:
    """The steps in which each input or output is used, and how many such uses lie before each step."""
    uses: dict[int, list[int]] = {}
    counts = [0]
    for index, step in enumerate(program.steps):
        outside = [b for b in step.buffers if program.buffers[b].kind in ("input", "output")]
        for buffer in outside:
            uses.setdefault(buffer, []).append(index)
        counts.append(len(outside))
    return uses, list(accumulate(counts))


def _between(steps: list[int], entry: Entry) -> int:
    return bisect_left(steps, entry.stop) - bisect_left(steps, entry.start)


def _foreign(program: Program, place: str, entry: Entry) -> FormatError:
    own = {*entry.inputs, *entry.outputs}
    for index in range(entry.start, entry.stop):
        for buffer in program.steps[index].buffers:
            if program.buffers[buffer].kind in ("input", "output") and buffer not in own:
                return _wrong(place, f"steps[{index}] uses buffer {buffer}, which is not the entry's")
    return _wrong(place, "uses a buffer that is not the entry's")
