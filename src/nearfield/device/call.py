"""Entries prepared for calling: which inputs are checked and which outputs are made, worked out once per Session."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import ge

from ..errors import DeviceError
from ..program.program import Entry, Program
from .device import Device, Memory, next_serial

__all__ = ["Call", "arrange", "arrange_again", "calls", "find"]

COST_OF_STEP = 10_000  # operations that are done while threads wait for each other at the end of a step


@dataclass
class Call:
    """One entry.

    rooms    bytes that each input must have room for
    outputs  for each output its bytes, and the position of the input that it takes over or -1
    taken    positions of the inputs that outputs take over
    cost     the steps' arithmetic beyond what the meeting of threads after each of them costs
    places   for each output the position of the input that it takes over, or 0; `fresh` are the outputs that take none
    numbers  of the buffers that are inputs and outputs; `in_a_row` if each is one more than the one before
    seen     the serial numbers of the inputs as the last call has left them
    token    of the last call, if that was one of `repeat`; 0 if not
    """

    entry: Entry
    rooms: list[int]
    outputs: tuple[tuple[int, int], ...]
    taken: tuple[int, ...]
    cost: int
    places: tuple[int, ...]
    fresh: tuple[int, ...]
    numbers: tuple[int, ...]
    in_a_row: bool
    seen: list[int] = field(default_factory=list)
    token: int = 0

    def forget(self) -> None:
        """Take all inputs of the next call for new."""
        self.token = 0
        self.seen.clear()

    def __enter__(self) -> None:
        """A block that makes a device see a call's inputs: what it leaves half done is forgotten."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.forget()


def calls(program: Program) -> dict[str, Call]:
    """The Program's entries by name."""
    return {entry.name: _call(program, entry) for entry in program.entries}


def _call(program: Program, entry: Entry) -> Call:
    position = {buffer: place for place, buffer in enumerate(entry.inputs)}
    outputs = [program.buffers[number] for number in entry.outputs]
    numbers = (*entry.inputs, *entry.outputs)
    return Call(
        entry=entry,
        rooms=[program.buffers[number].room for number in entry.inputs],
        outputs=tuple((buffer.nbytes, position.get(buffer.alias, -1)) for buffer in outputs),
        taken=tuple(position[buffer.alias] for buffer in outputs if buffer.alias >= 0),
        cost=sum(max(0, step.cost - COST_OF_STEP) for step in program.steps[entry.start : entry.stop]),
        places=tuple(position.get(buffer.alias, 0) for buffer in outputs),
        fresh=tuple(at for at, buffer in enumerate(outputs) if buffer.alias < 0),
        numbers=numbers,
        in_a_row=bool(numbers) and numbers == tuple(range(numbers[0], numbers[0] + len(numbers))),
    )


Copy = Callable[[Memory, Memory], None]


def arrange(
    device: Device, call: Call, inputs: Sequence[Memory], copy: Copy
) -> tuple[Sequence[Memory], list[Memory], Sequence[int] | None]:
    """(inputs, outputs): the memory that the steps work on; and which inputs are others than in the last call.

    copy     copies one block to another: an input that is given again elsewhere, although an output takes over its
             memory, is copied for the other places
    returns  positions of these inputs, None if all have to be taken for new
    errors   DeviceError if inputs are too few, too small, or on another device
    """
    if len(inputs) != len(call.rooms):
        raise DeviceError(f"{call.entry.name}: {len(inputs)} inputs were given; accepted are {len(call.rooms)}.")
    serials = [memory.serial for memory in inputs]
    others = _others(device, call, inputs, serials)
    if others is None:
        inputs = _checked(device, call, inputs, copy)
        serials = [memory.serial for memory in inputs]
    call.forget()  # unless all goes well
    if call.taken:
        outputs = [inputs[place] for place in call.places]
        for at in call.fresh:
            outputs[at] = device.alloc(call.outputs[at][0])
        for place in call.taken:
            serials[place] = inputs[place].serial = next_serial()
    else:
        outputs = [device.alloc(nbytes) for nbytes, _ in call.outputs]
    call.seen.extend(serials)
    return inputs, outputs, others


def arrange_again(
    device: Device, call: Call, inputs: Sequence[Memory], others: Sequence[int], token: int, copy: Copy
) -> tuple[Sequence[Memory], list[Memory], Sequence[int] | None]:
    """What `arrange` gives, for `Session.repeat`: the outputs are those that take over no input."""
    if token and call.token == token and _fit(device, call, inputs, others):
        call.forget()  # unless all goes well
        fresh = [device.alloc(call.outputs[at][0]) for at in call.fresh]
        call.token = token
        return inputs, fresh, others
    own, outputs, positions = arrange(device, call, inputs, copy)
    if own is inputs:
        call.token = token
    elif any(own[place] is not inputs[place] for place in call.taken):
        raise DeviceError(f"{call.entry.name}: two outputs take over the memory of one input. Give each its own.")
    return own, [outputs[at] for at in call.fresh], positions


def _fit(device: Device, call: Call, inputs: Sequence[Memory], places: Sequence[int]) -> bool:
    """Whether these inputs are large enough, here, and taken over by no output."""
    for place in places:
        memory = inputs[place]
        if memory.device is not device or memory.room < call.rooms[place] or place in call.taken:
            return False
    return True


def _others(device: Device, call: Call, inputs: Sequence[Memory], serials: list[int]) -> Sequence[int] | None:
    """Positions of the inputs that are others than in the last call, if they fit and no output takes them over.

    None if all have to be looked at. A step of training has hundreds of inputs, and all but the first few are what the
    step before has left.
    """
    seen, first = call.seen, 0
    if len(seen) != len(serials):
        return None
    while first < len(seen) and serials[first] != seen[first]:
        first += 1
    if serials[first:] != seen[first:]:
        return None
    for place, memory in enumerate(inputs[:first]):
        if memory.device is not device or memory.room < call.rooms[place]:
            return None
        if place in call.taken or (call.taken and serials.count(serials[place]) > 1):
            return None
    return range(first)


def _checked(device: Device, call: Call, inputs: Sequence[Memory], copy: Copy) -> Sequence[Memory]:
    """The inputs, each with memory of its own where that matters; DeviceError if one does not fit."""
    # whole lists are compared at once
    rooms = [memory.room for memory in inputs]
    at_home = [memory.device for memory in inputs].count(device) == len(inputs)
    if not at_home or (rooms != call.rooms and not all(map(ge, rooms, call.rooms))):
        raise _unfit(device, call, inputs)
    if call.taken and len(set(map(id, inputs))) < len(inputs):
        return _apart(device, call, inputs, copy)
    return inputs


def _apart(device: Device, call: Call, inputs: Sequence[Memory], copy: Copy) -> Sequence[Memory]:
    taken = {id(inputs[place]): place for place in reversed(call.taken)}
    own = list(inputs)
    for place, memory in enumerate(inputs):
        if taken.get(id(memory), place) != place:
            own[place] = device.alloc(memory.nbytes)
            copy(memory, own[place])
    return own


def _unfit(device: Device, call: Call, inputs: Sequence[Memory]) -> DeviceError:
    who = call.entry.name
    for place, (memory, room) in enumerate(zip(inputs, call.rooms, strict=True)):
        if memory.device is not device:
            return DeviceError(f"{who}: input {place} is memory of another device. Move it to {device.name}.")
        if memory.room < room:
            return DeviceError(f"{who}: input {place} has room for {memory.room} bytes, but needs {room}.")
    return DeviceError(f"{who}: an input does not fit.")


def find(table: dict[str, Call], name: str) -> Call:
    """The entry; DeviceError with the names there are if there is none of this name."""
    call = table.get(name)
    if call is None:
        raise DeviceError(f"run: there is no entry {name!r}; accepted are {', '.join(table) or 'none'}.")
    return call
