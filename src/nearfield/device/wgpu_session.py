"""A Program loaded on the native WebGPU device."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..program.program import PREPARE, Program, Step
from .call import Call, arrange, arrange_again, calls, find
from .device import Memory, NativeSession, weight_sizes
from .wgpu_pipeline import Access, access_of
from .wgpu_pool import Block
from .wgpu_record import Dispatch, Tape

if TYPE_CHECKING:
    from .wgpu import WgpuDevice

__all__ = ["WgpuSession"]

ALIGNMENT = 256  # of offsets into a buffer
TAPES = 64  # sets of buffers remembered
GROUPS = 4096  # bind groups remembered
CONSTANTS = 128 << 20  # bytes of constants in one buffer, unless one alone is larger


class WgpuSession(NativeSession):
    """Pipelines, the Program's own buffers, and what was recorded for the callers' buffers seen so far."""

    def __init__(self, device: "WgpuDevice", program: Program) -> None:
        self.device: WgpuDevice = device
        self.program = program
        self._calls = calls(program)
        device.pipelines.begin(program.kernels)
        self._sizes = weight_sizes(program)
        self._weights: dict[str, Memory] = {}
        self._stale = program.prepares
        self._kept: list[Memory] = []
        self._placed: dict[int, tuple[Block, int]] = {}
        self._groups: OrderedDict[tuple[Access, tuple[tuple[int, int, int], ...]], Any] = OrderedDict()
        self._access = [access_of(kernel) for kernel in program.kernels]
        self._tapes: OrderedDict[tuple[str, tuple[int, ...]], Tape] = OrderedDict()
        self._repeated: dict[tuple[int, ...], Tape] = {}  # for the token `_token`, by the buffers that are others
        self._token = 0
        self._place()
        self._pipelines = device.pipelines.compile(program.kernels)

    def run(self, entry: str, inputs: Sequence[Memory]) -> list[Memory]:
        device = self.device
        with device.running:
            device.check_open(self._calls)
            call = find(self._calls, entry)
            self._made_ready()
            inputs, outputs, _ = arrange(device, call, inputs, device.copy)
            device.submit(self._taped(call, inputs, outputs))
        return outputs

    def repeat(self, entry: str, inputs: Sequence[Memory], others: Sequence[int], token: int) -> list[Memory]:
        device = self.device
        with device.running:
            device.check_open(self._calls)
            call = find(self._calls, entry)
            self._made_ready()
            inputs, fresh, changed = arrange_again(device, call, inputs, others, token, device.copy)
            if self._token != token or changed is not others:
                self._repeated.clear()
                self._token = token
            key = tuple([inputs[n].key.number for n in others] + [memory.key.number for memory in fresh])
            tape = self._repeated.get(key)
            if tape is None:
                outputs = [inputs[place] for place in call.places] if call.taken else [*fresh]
                for at, memory in zip(call.fresh, fresh, strict=True):
                    outputs[at] = memory
                tape = self._taped(call, inputs, outputs)
                if len(self._repeated) >= TAPES:
                    self._repeated.clear()
                self._repeated[key] = tape
            device.submit(tape)
        return fresh

    def _taped(self, call: Call, inputs: Sequence[Memory], outputs: Sequence[Memory]) -> Tape:
        """The entry's commands for these buffers, recorded once."""
        blocks = [memory.key for memory in (*inputs, *outputs)]
        key = call.entry.name, tuple([block.number for block in blocks])
        tape = self._tapes.get(key)
        if tape is None:
            tape = self._tape(call, blocks)
            self._tapes[key] = tape
            if len(self._tapes) > TAPES:
                self._tapes.popitem(last=False)
        return tape

    def close(self) -> None:
        with self.device.running:
            self._calls = {}
            self._weights.clear()
            self._placed.clear()
            self._groups.clear()
            self._tapes.clear()
            self._repeated.clear()
            self._kept.clear()

    def _prepare(self) -> None:
        with self.device.running:
            self.device.check_open(self._calls)
            self._made_ready()

    def _made_ready(self) -> None:
        if self._stale:
            self.device.submit(self._tape(self._calls[PREPARE], ()))
            self._stale = False

    def forget(self, numbers: set[int]) -> None:
        """Drop what was recorded for buffers that are no more."""
        self._repeated.clear()
        for key in [key for key in self._tapes if not numbers.isdisjoint(key[1])]:
            del self._tapes[key]
        for group in [key for key in self._groups if any(number in numbers for number, _, _ in key[1])]:
            del self._groups[group]

    def _place(self) -> None:
        """Reserve all memory but the callers', and fill the constants."""
        arena = self._keep(self.program.arena) if self.program.arena else None
        for number, buffer in enumerate(self.program.buffers):
            if buffer.kind == "scratch" and arena is not None:
                self._placed[number] = (arena, buffer.offset)
            elif buffer.kind == "prepared":
                self._placed[number] = (self._keep(buffer.nbytes), 0)
            elif buffer.kind == "weight":
                memory = self.device.alloc(buffer.nbytes)
                self._weights[buffer.name] = memory
                self._placed[number] = (memory.key, 0)
        self._constants()

    def _keep(self, nbytes: int) -> Block:
        memory = self.device.reserve(nbytes)
        self._kept.append(memory)
        block: Block = memory.key
        return block

    def _constants(self) -> None:
        """Pack the constants into few buffers: the file aligns them to 16 bytes, and WebGPU wants 256."""
        shelf: list[tuple[int, int]] = []
        used = 0
        for number, buffer in enumerate(self.program.buffers):
            if buffer.kind != "constant":
                continue
            if shelf and used + buffer.room > CONSTANTS:
                self._shelve(shelf, used)
                shelf, used = [], 0
            shelf.append((number, used))
            used += -(-buffer.room // ALIGNMENT) * ALIGNMENT
        if shelf:
            self._shelve(shelf, used)

    def _shelve(self, shelf: list[tuple[int, int]], size: int) -> None:
        block = self._keep(size)
        data = memoryview(self.program.data)
        for number, offset in shelf:
            buffer = self.program.buffers[number]
            self.device.put(block, offset, data[buffer.offset : buffer.offset + buffer.nbytes])
            self._placed[number] = (block, offset)

    def _tape(self, call: Call, blocks: Sequence[Block]) -> Tape:
        outside = (*call.entry.inputs, *call.entry.outputs)
        where = {number: (block, 0) for number, block in zip(outside, blocks, strict=True)}
        steps = self.program.steps[call.entry.start : call.entry.stop]
        dispatches = [Dispatch(self._pipelines[step.kernel], self._group(step, where), *step.size) for step in steps]
        return self.device.tape(dispatches)

    def _group(self, step: Step, where: Mapping[int, tuple[Block, int]]) -> Any:
        buffers, access = self.program.buffers, self._access[step.kernel]
        spots = [(where.get(n) or self._placed[n], buffers[n].room) for n in step.buffers]
        key = access, tuple((block.number, offset, room) for (block, offset), room in spots)
        group = self._groups.get(key)
        if group is None:
            parts = [(block.buffer, offset, room) for (block, offset), room in spots]
            group = self._groups[key] = self.device.bind(access, parts)
            if len(self._groups) > GROUPS:
                self._groups.popitem(last=False)
        return group
