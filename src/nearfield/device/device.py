"""What every device is: Memory, Session, Device, Stats; the devices themselves are in the files beside this one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from ..errors import DeviceError, FormatError
from ..program.program import PREPARE, Kernel, Program

__all__ = [
    "Device",
    "Memory",
    "NativeSession",
    "Session",
    "Stats",
    "check_read",
    "check_target",
    "check_weight",
    "check_write",
    "next_serial",
    "octets",
    "room_of",
    "weight_sizes",
    "weights_read",
]

Data = bytes | bytearray | memoryview
next_serial = count(1).__next__


class Stats(NamedTuple):
    """What a device holds: bytes and buffers in use, the most bytes ever in use, and freed bytes kept for reuse."""

    bytes: int
    peak: int
    buffers: int
    pooled: int


class Memory:
    """A block of a device's memory; given back as soon as nobody refers to it.

    key     the driver's object or address, of use to the device only
    nbytes  bytes asked for
    room    bytes reserved: `nbytes` rounded up to 16, at least 16
    serial  of its contents: another number whenever these may have changed, and never one of other contents
    """

    __slots__ = ("__weakref__", "device", "key", "nbytes", "room", "serial")

    def __init__(self, device: "Device", key: Any, nbytes: int, room: int) -> None:
        self.device = device
        self.key = key
        self.nbytes = nbytes
        self.room = room
        self.serial = next_serial()

    def __del__(self) -> None:
        try:  # noqa: SIM105 - `suppress` would take longer than the freeing
            self.device._free(self.key, self.room)
        except (AttributeError, TypeError):
            pass  # when Python shuts down, parts of the device may be gone before its memory is

    def __repr__(self) -> str:
        return f"Memory({self.nbytes} bytes on {self.device.name})"


class Device(ABC):
    """Something that runs Programs.

    name         "webgpu" or "wasm", which is also the target of its Programs
    description  the adapter's or the driver's name
    dtypes       names of the element types it stores
    limits       WebGPU's names for webgpu ("maxBufferSize", …); "memory" and "threads" for wasm
    features     names as in a Program's `features`, and others that the adapter has
    is_hardware  is it a graphics card, and not software that plays one?
    code_generator  what makes machine code of its WebAssembly, if that is not what browsers have: "cranelift"
    is_lost      has it stopped for good? Opening its name again may give a new one
    """

    name: str
    description: str
    dtypes: frozenset[str]
    limits: dict[str, int]
    features: frozenset[str]
    is_hardware: bool
    code_generator: str = ""
    is_lost: bool = False

    def __repr__(self) -> str:
        return f"Device({self.name}: {self.description}{', lost' if self.is_lost else ''})"

    def __str__(self) -> str:
        """A table: what it is, what it stores, its limits, and the memory it holds now."""
        rows = {
            "device": f"{self.name}: {self.description}",
            "hardware": "yes" if self.is_hardware else "no, software",
            "dtypes": " ".join(sorted(self.dtypes)),
            "features": " ".join(sorted(self.features)) or "none",
            "in use": "lost" if self.is_lost else "  ".join(f"{k} {v:,}" for k, v in self.stats()._asdict().items()),
            **{name: f"{value:,}" for name, value in sorted(self.limits.items())},
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())

    @abstractmethod
    def alloc(self, nbytes: int) -> Memory:
        """A block of memory with any contents; DeviceError if there is no room."""

    @abstractmethod
    def write(self, memory: Memory, data: Data) -> None:
        """Copy `data` to the start of the block; returns when `data` may be changed."""

    @abstractmethod
    def read(self, memory: Memory, nbytes: int) -> bytearray:
        """The first bytes of the block, after everything that was started before has ended."""

    @abstractmethod
    async def read_async(self, memory: Memory, nbytes: int) -> bytearray:
        """What `read` gives, without stopping the event loop."""

    @abstractmethod
    def load(self, program: Program) -> "Session":
        """The Program, verified, compiled and with its memory reserved; FormatError or DeviceError if it cannot be."""

    @abstractmethod
    async def load_async(self, program: Program) -> "Session":
        """What `load` gives, without stopping the event loop while kernels compile."""

    def expect(self, kernel: Kernel) -> None:  # noqa: B027 - to wait for the Program is right, too
        """A Program that will be loaded soon has this kernel: a device may compile it meanwhile. Returns at once."""

    @abstractmethod
    def stats(self) -> Stats:
        """Memory in use now."""

    @abstractmethod
    def close(self) -> None:
        """Stop using the device and give its memory back; its Sessions and Memory are of no use afterwards."""

    @abstractmethod
    def _free(self, key: Any, room: int) -> None:
        """Take a block back. Called from `__del__`, hence at any moment and in any thread: it must not wait."""


class Session(ABC):
    """A Program loaded on a device, with weights that live from call to call."""

    device: Device
    program: Program

    def __repr__(self) -> str:
        entries = ", ".join(entry.name for entry in self.program.entries)
        return f"Session({entries}, {len(self.program.steps)} steps on {self.device.name})"

    @abstractmethod
    def run(self, entry: str, inputs: Sequence[Memory]) -> list[Memory]:
        """The entry's outputs; one that takes over an input's memory is that input's Memory object.

        If the Program has an entry `prepare`, it runs first whenever weights were written since the last call.
        """

    @abstractmethod
    def repeat(self, entry: str, inputs: Sequence[Memory], others: Sequence[int], token: int) -> list[Memory]:
        """What `run` gives, for inputs most of which are known from the call before: only they are looked at.

        others   positions of inputs that may be others than in the call before, if that had the same token
        token    not 0, and for one list of the other inputs only, which the caller keeps alive
        returns  the outputs that take over no input's memory

        An input that an output takes over may be given at no other place, and need not get a new serial number: the
        caller knows what is written.
        """

    def step_times(self, entry: str, inputs: Sequence[Memory]) -> list[float] | None:
        """Seconds that each of the entry's steps takes, run one after the other; None if the device cannot tell."""
        return None

    @abstractmethod
    def load_weights(self, values: Mapping[str, Data]) -> None:
        """Fill weights by name; those not named keep their values, which are unknown at first."""

    @abstractmethod
    def read_weight(self, name: str) -> bytes:
        """The values of one weight now."""

    def settle(self) -> None:  # noqa: B027 - to keep them all is right, too
        """Run `prepare` now, and give back the weights that only it reads, for good.

        The weights that it reads can then no longer be written, nor those be read that were given back. A device may
        keep them all.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back the arena, constants and weights."""


class NativeSession(Session):
    """A Session whose weights are Memory that this process writes and reads.

    _stale    must the entry `prepare` run before the next call? So it is at first, and when weights were written
    _settled  weights that can no longer be written, because `prepare` read them and some are gone
    """

    _sizes: dict[str, int]
    _weights: dict[str, Memory]
    _stale: bool
    _settled: frozenset[str] = frozenset()

    @abstractmethod
    def _prepare(self) -> None:
        """Run `prepare` if it must be."""

    def settle(self) -> None:
        inside, outside = weights_read(self.program)
        self._prepare()
        if inside - outside:
            self._settled = inside
        for name in inside - outside:
            self._weights.pop(name, None)

    def load_weights(self, values: Mapping[str, Data]) -> None:
        sources = {name: octets(data) for name, data in values.items()}
        for name, source in sources.items():  # all are looked at before the first is changed
            check_weight(self._sizes, name, len(source))
            if name in self._settled:
                raise self._gone(name, "written")
        for name, source in sources.items():
            self.device.write(self._weights[name], source)
        self._stale = self.program.prepares

    def read_weight(self, name: str) -> bytes:
        nbytes = check_weight(self._sizes, name)
        if name not in self._weights and name in self._settled:
            raise self._gone(name, "read")
        return bytes(self.device.read(self._weights[name], nbytes))

    def _gone(self, name: str, what: str) -> DeviceError:
        return DeviceError(
            f"{self.device.name}: weights: {name!r} cannot be {what}: what is made of it has been made, and its memory "
            f"given back. Load the Program again."
        )


def room_of(nbytes: int) -> int:
    """Bytes to reserve for `nbytes`: kernels write groups of four elements, so there is always room for the last."""
    return max(16, -(-nbytes // 16) * 16)


def octets(data: Data) -> memoryview:
    """The bytes of anything with the buffer protocol, without a copy where that is possible."""
    view = memoryview(data)
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    try:
        return view.cast("B")
    except TypeError:  # not contiguous, empty, or a format such as "e" that cast does not know
        return memoryview(view.tobytes())


def check_write(memory: Memory, nbytes: int) -> None:
    """DeviceError if `nbytes` do not fit into the block."""
    if nbytes > memory.nbytes:
        who = memory.device.name
        raise DeviceError(f"{who}: write: {nbytes} bytes into a block of {memory.nbytes}. Allocate a larger block.")


def check_read(memory: Memory, nbytes: int) -> None:
    """DeviceError if the block has fewer than `nbytes`."""
    if not 0 <= nbytes <= memory.nbytes:
        who = memory.device.name
        raise DeviceError(f"{who}: read: {nbytes} bytes from a block of {memory.nbytes}; accepted are at most as many.")


def check_target(device: Device, program: Program) -> None:
    """DeviceError if the Program is for another kind of device, or needs a feature that this one lacks."""
    who = device.name
    if device.is_lost:
        raise DeviceError(f"{who}: load: the device is lost or closed. Open it again and load the model again.")
    if program.target != who:
        raise DeviceError(f"{who}: load: the Program's target is {program.target!r}. Compile it for this device.")
    missing = [feature for feature in program.features if feature not in device.features]
    if missing:
        raise DeviceError(
            f"{who}: load: the Program needs {', '.join(missing)}, which {device.description} lacks. "
            f"Compile it without, or use another device."
        )


def weight_sizes(program: Program) -> dict[str, int]:
    """Bytes of each weight, by name."""
    return {buffer.name: buffer.nbytes for buffer in program.buffers if buffer.kind == "weight"}


def weights_read(program: Program) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the weights that the steps of `prepare` use, and of those that other steps use."""
    used: tuple[set[str], set[str]] = set(), set()
    for entry in program.entries:
        for step in program.steps[entry.start : entry.stop]:
            found = (program.buffers[number] for number in step.buffers)
            used[entry.name != PREPARE].update(b.name for b in found if b.kind == "weight")
    return frozenset(used[0]), frozenset(used[1])


def check_weight(sizes: Mapping[str, int], name: str, nbytes: int | None = None) -> int:
    """Bytes of the weight; FormatError if the name, or the number of bytes given, is wrong."""
    who, size = f"weights: {name!r}", sizes.get(name)
    if size is None:
        known = ", ".join(list(sizes)[:8]) or "none"
        raise FormatError(f"{who} is not a weight of this Program; it has {known}. Use a file made for it.")
    if nbytes is not None and nbytes != size:
        raise FormatError(f"{who} has {nbytes} bytes; accepted are {size}. Use a file made for it.")
    return size
