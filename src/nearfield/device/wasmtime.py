"""The "wasm" device, natively: WebAssembly with SIMD and threads through wasmtime.

All Sessions share one linear memory, which grows and never moves. Thread 0 is the caller's; the others wait in a Crew.
"""

import asyncio
import atexit
import ctypes
import os
import platform
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.metadata import version
from struct import pack_into
from threading import Lock
from time import perf_counter
from typing import Any
from weakref import WeakSet

import wasmtime

from ..dtype import DTYPES
from ..errors import DeviceError, FormatError
from ..program.cache import cache
from ..program.program import PREPARE, Buffer, Program
from ..program.verify import verify
from .allocator import Allocator
from .call import Call, arrange, arrange_again, calls, find
from .crew import Crew
from .device import (
    Data,
    Device,
    Memory,
    NativeSession,
    Stats,
    check_read,
    check_target,
    check_write,
    next_serial,
    octets,
    room_of,
    weight_sizes,
)
from .wasmtime_call import SharedMemory, Team, caller

__all__ = ["WasmDevice", "describe"]

PAGE = 65536
PAGES = 65536
TICKETS = 1024  # address of 64 bytes for each thread; nothing lives near address 0, so that a wrong 0 harms nobody
MOST_THREADS = 512
RESERVED = TICKETS + 64 * MOST_THREADS
MODULES = 64  # compiled modules remembered
WORTH_A_THREAD = 100_000  # operations: below this, waking a thread costs more than it brings
HEADER = 5  # words in front of the addresses in a block of arguments


_devices: "WeakSet[WasmDevice]" = WeakSet()


@atexit.register
def _release() -> None:
    """Give back what outlives wasmtime's own functions when Python takes its modules apart."""
    for device in _devices:
        device.engine.close()
        device.memory.close()


def describe() -> str:
    """The driver and its version."""
    return f"wasmtime {version('wasmtime')}, {_threads()} threads"


def _threads() -> int:
    text = os.environ.get("NEARFIELD_THREADS", "")
    if not text:
        return min(os.cpu_count() or 1, MOST_THREADS)
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise DeviceError(f"wasm: NEARFIELD_THREADS is {text!r}; accepted are 1 to {MOST_THREADS}.")
    return int(text)


def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.wasm_simd = True
    config.wasm_relaxed_simd = True
    config.wasm_threads = True
    config.shared_memory = True
    config.cranelift_opt_level = "speed"
    return wasmtime.Engine(config)


class WasmDevice(Device):
    """The processor, through WebAssembly."""

    def __init__(self) -> None:
        self.name = "wasm"
        self.description = describe()
        self.dtypes = frozenset(DTYPES)
        self.features = frozenset({"relaxed-simd"})
        self.is_hardware = False
        self.code_generator = "cranelift"
        self.limits = {"memory": PAGE * PAGES, "threads": _threads()}
        self.engine = _engine()
        self.memory = SharedMemory(self.engine, wasmtime.MemoryType(wasmtime.Limits(1, PAGES), shared=True))
        self.base = ctypes.addressof(self.memory.data_ptr().contents)
        # a view of all that the memory can ever be; only addresses below its present size are used
        self.view = memoryview((ctypes.c_ubyte * (PAGE * PAGES)).from_address(self.base)).cast("B")
        self.running = Lock()
        self.crew = Crew()
        self._guard = Lock()
        self._blocks = Allocator(RESERVED, PAGE * PAGES)
        self._size = PAGE
        self._given: deque[tuple[int, int]] = deque()
        self._bytes = self._peak = self._count = 0
        self._modules: dict[bytes, wasmtime.Module] = {}
        _devices.add(self)

    def alloc(self, nbytes: int) -> Memory:
        room = room_of(nbytes)
        with self._guard:
            self._collect()
            address = self._blocks.take(room)
            if address < 0 or (self._blocks.end > self._size and not self._grow()):
                if address >= 0:
                    self._blocks.give(address)
                    self._blocks.join()  # `end` is where it was, so that smaller blocks are still found
                raise self._full(room)
            self._bytes += room
            self._count += 1
            self._peak = max(self._peak, self._bytes)
        return Memory(self, address, nbytes, room)

    def write(self, memory: Memory, data: Data) -> None:
        source = octets(data)
        check_write(memory, len(source))
        memory.serial = next_serial()
        self.view[memory.key : memory.key + len(source)] = source

    def read(self, memory: Memory, nbytes: int) -> bytearray:
        check_read(memory, nbytes)
        return bytearray(self.view[memory.key : memory.key + nbytes])

    async def read_async(self, memory: Memory, nbytes: int) -> bytearray:
        return self.read(memory, nbytes)  # whatever ran has ended, so there is nothing to wait for

    def load(self, program: Program) -> "WasmSession":
        verify(program)
        check_target(self, program)
        return WasmSession(self, program)

    async def load_async(self, program: Program) -> "WasmSession":
        return await asyncio.to_thread(self.load, program)

    def copy(self, source: Memory, target: Memory) -> None:
        """Copy one block to another."""
        target.serial = next_serial()
        ctypes.memmove(self.base + target.key, self.base + source.key, min(source.room, target.room))

    def stats(self) -> Stats:
        with self._guard:
            self._collect()
            return Stats(self._bytes, self._peak, self._count, self._blocks.freed)

    def close(self) -> None:
        self.is_lost = True
        self.crew.dismiss()
        self._modules.clear()

    def compiled(self, code: bytes) -> wasmtime.Module:
        """The module as machine code, compiled at most once.

        errors   FormatError if it is not WebAssembly, or not of the form that the specification asks for
        """
        key = sha256(code).digest()
        module = self._modules.get(key)
        if module is None:
            module = _compile(self.engine, code)
            while len(self._modules) >= MODULES:
                del self._modules[next(iter(self._modules))]
            self._modules[key] = module
        return module

    def _free(self, key: int, room: int) -> None:
        # only noted here: the guard may be held by this very thread, when Python frees things inside `alloc`
        self._given.append((key, room))

    def _collect(self) -> None:
        while self._given:
            address, room = self._given.popleft()
            self._blocks.give(address)
            self._bytes -= room
            self._count -= 1

    def _grow(self) -> bool:
        missing = -(-(self._blocks.end - self._size) // PAGE)
        # an eighth more than asked for, so that many small blocks do not grow it many times
        for pages in (min(max(missing, self._size // PAGE // 8), PAGES - self._size // PAGE), missing):
            try:
                self.memory.grow(pages)
            except wasmtime.WasmtimeError:
                continue
            self._size += pages * PAGE
            return True
        return False

    def _full(self, room: int) -> DeviceError:
        return DeviceError(
            f"wasm: out of memory: a block of {room:,} bytes does not fit; {self._bytes:,} of {PAGE * PAGES:,} bytes "
            f"are in use. Let go of tensors, use dtype='float16', or use device 'webgpu'."
        )


def _compile(engine: wasmtime.Engine, code: bytes) -> wasmtime.Module:
    module = _machine_code(engine, code)
    imports = [(row.module, row.name, type(row.type)) for row in module.imports]
    if imports != [("env", "memory", wasmtime.MemoryType)]:
        raise FormatError(f"program: module: imports {imports[:4]}; accepted is env.memory alone. Export it again.")
    return module


def _machine_code(engine: wasmtime.Engine, code: bytes) -> wasmtime.Module:
    """The module compiled, or from a file that this process's user alone can have written."""
    key = f"wasmtime {version('wasmtime')} {platform.machine()} {sha256(code).hexdigest()}"
    found = cache().get("code", key)
    if found is not None:
        try:
            return wasmtime.Module.deserialize(engine, found)
        except wasmtime.WasmtimeError:
            pass  # made for another processor; it is replaced
    try:
        module = wasmtime.Module(engine, code)
    except wasmtime.WasmtimeError as error:
        raise FormatError(f"program: module: is not WebAssembly: {_first_line(error)}. Export it again.") from None
    cache().put("code", key, bytes(module.serialize()))
    return module


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


class WasmSession(NativeSession):
    """A Program in the device's memory, with one instance of its module for each thread that has run it."""

    def __init__(self, device: WasmDevice, program: Program) -> None:
        self.device: WasmDevice = device
        self.program = program
        self._calls = calls(program)
        self._module = device.compiled(program.module)
        self._exports()
        self._instances: list[tuple[wasmtime.Store, wasmtime.Instance]] = []
        self._callers: dict[tuple[str, int, int], Callable[[], str | None]] = {}
        self._sizes = weight_sizes(program)
        self._weights: dict[str, Memory] = {}
        self._stale = program.prepares
        self._kept: list[Memory] = []
        self._args = device.alloc(4 * (HEADER + len(program.buffers)))
        words = ctypes.c_uint32 * (HEADER + len(program.buffers))
        self._words: Any = words.from_address(device.base + self._args.key)
        self._place()
        self._instance(0)

    def run(self, entry: str, inputs: Sequence[Memory]) -> list[Memory]:
        device = self.device
        with device.running:
            self._check_open()
            call = find(self._calls, entry)
            self._made_ready()
            with call:
                inputs, outputs, others = arrange(device, call, inputs, device.copy)
                self._address(call, inputs, [outputs[at] for at in call.fresh], others)
            self._execute(call)
        return outputs

    def repeat(self, entry: str, inputs: Sequence[Memory], others: Sequence[int], token: int) -> list[Memory]:
        device = self.device
        with device.running:
            self._check_open()
            call = find(self._calls, entry)
            self._made_ready()
            with call:
                inputs, fresh, changed = arrange_again(device, call, inputs, others, token, device.copy)
                self._address(call, inputs, fresh, changed)
            self._execute(call)
        return fresh

    def step_times(self, entry: str, inputs: Sequence[Memory]) -> list[float]:
        device, times = self.device, []
        self.run(entry, inputs)  # also what has to be prepared
        with device.running:
            call = find(self._calls, entry)
            inputs, outputs, others = arrange(device, call, inputs, device.copy)
            self._address(call, inputs, [outputs[at] for at in call.fresh], others)
            store, instance = self._instance(0)
            exports = instance.exports(store)
            for step in self.program.steps[call.entry.start : call.entry.stop]:
                addresses = [int(self._words[HEADER + number]) for number in step.buffers]
                kernel = self.program.kernels[step.kernel].code
                run = caller(store, exports[kernel], (*addresses, 0, step.size[0]))
                began = perf_counter()
                run()
                times.append(perf_counter() - began)
        return times

    def close(self) -> None:
        with self.device.running:
            self._calls = {}
            self._callers.clear()
            self._instances.clear()
            self._weights.clear()
            self._kept.clear()

    def _prepare(self) -> None:
        with self.device.running:
            self._check_open()
            self._made_ready()

    def _made_ready(self) -> None:
        if self._stale:
            self._execute(self._calls[PREPARE])
            self._stale = False

    def _execute(self, call: Call) -> None:
        entry = call.entry.name
        threads = min(self.device.limits["threads"], call.cost // WORTH_A_THREAD)
        error = self._caller(entry, 0, 1)() if threads < 2 else self._together(entry, threads)
        if error is not None:
            self.device.view[TICKETS:RESERVED] = bytes(RESERVED - TICKETS)
            raise DeviceError(f"wasm: {entry}: {error}. The outputs are not valid; other tensors still are.")

    def _address(
        self, call: Call, inputs: Sequence[Memory], fresh: Sequence[Memory], others: Sequence[int] | None
    ) -> None:
        """Write the addresses of inputs and new outputs into the arguments, where they are not what they were."""
        words, numbers, first = self._words, call.numbers, len(inputs)
        if others is None:
            taken = [inputs[place].key for place in call.places] if call.taken else [0] * len(call.outputs)
            addresses = [*[memory.key for memory in inputs], *taken]
            if call.in_a_row:
                pack_into(f"<{len(addresses)}I", words, 4 * (HEADER + numbers[0]), *addresses)
            else:
                for number, address in zip(numbers, addresses, strict=True):
                    words[HEADER + number] = address
        for place in others or ():
            words[HEADER + numbers[place]] = inputs[place].key
        for place, memory in zip(call.fresh, fresh, strict=True):
            words[HEADER + numbers[first + place]] = memory.key

    def _check_open(self) -> None:
        if self.device.is_lost or not self._calls:
            raise DeviceError("wasm: run: this Session or its device is closed. Load the Program again.")

    def _exports(self) -> None:
        kinds = {row.name: row.type for row in self._module.exports}
        wanted = [wasmtime.ValType.i32()] * 3
        for name in self._calls:
            kind = kinds.get(f"run_{name}")
            if not isinstance(kind, wasmtime.FuncType) or kind.params != wanted or kind.results:
                raise FormatError(f"program: module: no function run_{name}(args, thread, threads). Export it again.")

    def _place(self) -> None:
        """Reserve all memory but the callers', and write its addresses into the arguments, for good."""
        program, words = self.program, self._words
        ctypes.memset(ctypes.addressof(words), 0, ctypes.sizeof(words))
        words[2] = 1  # thread 0 may block: this is no browser's page
        words[4] = TICKETS
        arena = self._keep(program.arena) if program.arena else 0
        for number, buffer in enumerate(program.buffers):
            if buffer.kind == "scratch":
                words[HEADER + number] = arena + buffer.offset
            elif buffer.kind == "constant":
                words[HEADER + number] = self._constant(buffer)
            elif buffer.kind == "prepared":
                words[HEADER + number] = self._keep(buffer.nbytes)
            elif buffer.kind == "weight":
                words[HEADER + number] = self._weight(buffer)

    def _keep(self, nbytes: int) -> int:
        memory = self.device.alloc(nbytes)
        self._kept.append(memory)
        return int(memory.key)

    def _constant(self, buffer: Buffer) -> int:
        address = self._keep(buffer.nbytes)
        self.device.view[address : address + buffer.nbytes] = self.program.data[buffer.offset :][: buffer.nbytes]
        return address

    def _weight(self, buffer: Buffer) -> int:
        memory = self.device.alloc(buffer.nbytes)
        self._weights[buffer.name] = memory
        return int(memory.key)

    def _caller(self, entry: str, thread: int, threads: int) -> Callable[[], str | None]:
        """What runs one thread's share, prepared at the first use."""
        key = entry, thread, threads
        ready = self._callers.get(key)
        if ready is None:
            store, instance = self._instance(thread)
            function = instance.exports(store)[f"run_{entry}"]
            ready = self._callers[key] = caller(store, function, (int(self._args.key), thread, threads))
        return ready

    def _instance(self, thread: int) -> tuple[wasmtime.Store, wasmtime.Instance]:
        while len(self._instances) <= thread:
            store = wasmtime.Store(self.device.engine)
            try:
                instance = wasmtime.Instance(store, self._module, [self.device.memory])
            except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
                raise FormatError(f"program: module: cannot start: {_first_line(error)}. Export it again.") from None
            self._instances.append((store, instance))
        return self._instances[thread]

    def _together(self, entry: str, threads: int) -> str | None:
        shares = [self._caller(entry, thread, threads) for thread in range(threads)]
        team = Team(self.device.engine, self.device.memory, int(self._args.key), self._words, threads)
        self.device.crew.run([team.share(call) for call in shares])
        return team.error
