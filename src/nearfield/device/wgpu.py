"""The "webgpu" device, natively: WGSL through wgpu-py on Vulkan, Metal or DirectX."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from threading import Lock
from typing import Any
from weakref import WeakSet

import wgpu

from ..errors import DeviceError
from ..program.program import Kernel, Program
from ..program.verify import verify
from .device import (
    Data,
    Device,
    Memory,
    Stats,
    check_read,
    check_target,
    check_write,
    next_serial,
    octets,
    room_of,
)
from .interruption import Uninterrupted
from .wgpu_pipeline import Access, Pipelines
from .wgpu_pool import Block, Pool
from .wgpu_record import Batch, Dispatch, Tape, recorder
from .wgpu_session import WgpuSession
from .wgpu_types import hasten

__all__ = ["WgpuDevice", "describe"]

DTYPES = frozenset({"bool", "int8", "uint8", "int32", "uint32", "float16", "float32"})
FEATURES = {"shader-f16": "shader-f16", "subgroup": "subgroups", "timestamp-query": "timestamp-query"}
LIMITS = (
    "maxBufferSize",
    "maxComputeInvocationsPerWorkgroup",
    "maxComputeWorkgroupSizeX",
    "maxComputeWorkgroupSizeY",
    "maxComputeWorkgroupSizeZ",
    "maxComputeWorkgroupStorageSize",
    "maxComputeWorkgroupsPerDimension",
    "maxStorageBufferBindingSize",
    "maxStorageBuffersPerShaderStage",
)
STAGING = 16 << 20  # bytes read at a time
FAILURES = (wgpu.GPUError, RuntimeError)


def describe() -> str:
    """The adapter's name; DeviceError if there is none."""
    return _name(_adapter())


def _adapter() -> Any:
    hasten()
    try:
        return wgpu.gpu.request_adapter_sync(power_preference="high-performance")
    except RuntimeError as error:
        raise DeviceError(
            f"webgpu: no adapter was found: {error}. "
            f"Install a Vulkan, Metal or DirectX 12 driver, or use device 'wasm'."
        ) from None


def _name(adapter: Any) -> str:
    info = adapter.info
    parts = (info.get("device"), info.get("description"), info.get("backend_type"))
    return ", ".join(str(part) for part in parts if part) or "unknown adapter"


def _kebab(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)


class WgpuDevice(Device):
    """A graphics card, through WebGPU."""

    def __init__(self) -> None:
        adapter = _adapter()
        self.name = "webgpu"
        self.description = _name(adapter)
        self.dtypes = DTYPES
        self.is_hardware = adapter.info.get("adapter_type", "").upper() != "CPU"
        wanted = [feature for feature in FEATURES if feature in adapter.features]
        self.features = frozenset({"read-only-storage", *(FEATURES[feature] for feature in wanted)})
        self.limits = {name: int(adapter.limits[_kebab(name)]) for name in LIMITS}
        self.running = Lock()
        self._gpu = self._request(adapter, wanted)
        self.pipelines = Pipelines(self._gpu, FAILURES)
        self._handle, self._write_batch = recorder()
        self._guard = Lock()
        self._pool = Pool(self._make, self.limits["maxBufferSize"], self._dropped)
        self._given: deque[tuple[Block, int]] = deque()
        self._dead: set[int] = set()
        self._bytes = self._peak = self._count = 0
        self._sessions: WeakSet[WgpuSession] = WeakSet()
        self._reading = Lock()
        self._staging: Any = None
        self._coming: Future[Any] | None = None  # the first staging buffer

    def alloc(self, nbytes: int) -> Memory:
        if room_of(nbytes) > self.limits["maxStorageBufferBindingSize"]:
            raise self._too_large(nbytes, "maxStorageBufferBindingSize")
        return self.reserve(nbytes)

    def reserve(self, nbytes: int) -> Memory:
        """As `alloc`, for memory of which only parts are bound to a kernel at a time."""
        room = room_of(nbytes)
        if room > self.limits["maxBufferSize"]:
            raise self._too_large(nbytes, "maxBufferSize")
        with self._guard:
            self._collect()
            block = self._take(room)
            self._bytes += room
            self._count += 1
            self._peak = max(self._peak, self._bytes)
        return Memory(self, block, nbytes, room)

    def write(self, memory: Memory, data: Data) -> None:
        source = octets(data)
        check_write(memory, len(source))
        memory.serial = next_serial()
        self.put(memory.key, 0, source)

    def put(self, block: Block, offset: int, source: memoryview) -> None:
        """Copy bytes into a block."""
        if not len(source):
            return
        if len(source) % 4:  # WebGPU writes whole words; every block has room for the last one
            source = memoryview(bytes(source) + bytes(-len(source) % 4))
        try:
            self._gpu.queue.write_buffer(block.buffer, offset, source)
        except FAILURES as error:
            raise self._failed("write", error) from None

    def copy(self, source: Memory, target: Memory) -> None:
        """Copy one block to another, after what was started before."""
        target.serial = next_serial()
        try:
            encoder = self._gpu.create_command_encoder()
            size = min(source.room, target.room)
            encoder.copy_buffer_to_buffer(source.key.buffer, 0, target.key.buffer, 0, size)
            self._gpu.queue.submit([encoder.finish()])
        except FAILURES as error:
            raise self._failed("copy", error) from None

    def read(self, memory: Memory, nbytes: int) -> bytearray:
        check_read(memory, nbytes)
        result = bytearray(nbytes)
        with self._reading:
            if self.is_lost:
                raise DeviceError("webgpu: read: the device is lost or closed; what it held is gone. Open it again.")
            try:
                for start in range(0, nbytes, STAGING):
                    self._fetch(memory.key.buffer, start, memoryview(result)[start : start + STAGING])
            except (*FAILURES, CancelledError) as error:
                self._staging = self._coming = None
                raise self._failed("read", error) from None
        return result

    async def read_async(self, memory: Memory, nbytes: int) -> bytearray:
        return await asyncio.to_thread(self.read, memory, nbytes)

    def load(self, program: Program) -> WgpuSession:
        verify(program)
        check_target(self, program)
        self._check_limits(program)
        try:
            session = WgpuSession(self, program)
        except FAILURES as error:
            if isinstance(error, DeviceError):
                raise
            raise self._failed("load", error) from None
        self._sessions.add(session)
        return session

    async def load_async(self, program: Program) -> WgpuSession:
        return await asyncio.to_thread(self.load, program)

    def expect(self, kernel: Kernel) -> None:
        if self.is_lost or kernel.bindings > self.limits["maxStorageBuffersPerShaderStage"]:
            return
        with suppress(*FAILURES):  # `load` will say it
            self.pipelines.begin([kernel])
            if self._staging is None and self._coming is None:
                self._coming = self.pipelines.aside(self._make_staging)

    def stats(self) -> Stats:
        with self._guard:
            self._collect()
            return Stats(self._bytes, self._peak, self._count, self._pool.pooled)

    def close(self) -> None:
        self.is_lost = True
        self.pipelines.close()
        with self._guard:
            self._collect()
            self._pool.clear()
        self._gpu.destroy()

    def check_open(self, table: Mapping[str, Any]) -> None:
        """DeviceError if the device is lost, or the Session closed (its table of entries is then empty)."""
        if self.is_lost or not table:
            raise DeviceError("webgpu: run: this Session or its device is closed or lost. Load the Program again.")
        if self._dead:
            with self._guard:
                dead, self._dead = self._dead, set()
            for session in list(self._sessions):
                session.forget(dead)

    def tape(self, dispatches: Sequence[Dispatch]) -> Tape:
        """What `submit` takes."""
        return Tape(dispatches, self._handle)

    def bind(self, access: Access, parts: Sequence[tuple[Any, int, int]]) -> Any:
        """A bind group of (buffer, offset, bytes), for kernels that use them so."""
        entries = [
            {"binding": i, "resource": {"buffer": buffer, "offset": offset, "size": size}}
            for i, (buffer, offset, size) in enumerate(parts)
        ]
        try:
            return self._gpu.create_bind_group(layout=self.pipelines.layout(access), entries=entries)
        except FAILURES as error:
            raise self._failed("run", error) from None

    def submit(self, tape: Tape) -> None:
        """Record and start all dispatches; returns before they have ended."""
        try:
            with Uninterrupted():  # a step that ended half-way would leave state half new
                for batch in tape.batches:
                    self._submit(batch)
        except FAILURES as error:
            raise self._failed("run", error) from None

    def _submit(self, batch: Batch) -> None:
        gpu = self._gpu
        encoder = gpu.create_command_encoder()
        compute = encoder.begin_compute_pass()
        self._write_batch(compute, batch)
        compute.end()
        gpu.queue.submit([encoder.finish()])

    def _request(self, adapter: Any, features: list[str]) -> Any:
        try:
            return adapter.request_device_sync(
                required_features=features, required_limits={_kebab(name): self.limits[name] for name in LIMITS}
            )
        except FAILURES as error:
            raise DeviceError(
                f"webgpu: {self.description} gave no device: {error}. Update its driver, or use device 'wasm'."
            ) from None

    def _make(self, size: int) -> Any:
        usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
        return self._gpu.create_buffer(size=size, usage=usage)

    def _take(self, room: int) -> Block:
        if self.is_lost:
            raise DeviceError("webgpu: alloc: the device is lost or closed. Open it again.")
        try:
            return self._pool.take(room)
        except FAILURES as error:
            if not isinstance(error, wgpu.GPUOutOfMemoryError):
                raise self._failed("alloc", error) from None
        self._pool.clear()
        try:
            return self._pool.take(room)
        except FAILURES:
            raise DeviceError(
                f"webgpu: out of memory: a buffer of {room:,} bytes does not fit; {self._bytes:,} bytes are in use. "
                f"Let go of tensors, use dtype='float16', or use device 'wasm'."
            ) from None

    def _free(self, key: Block, room: int) -> None:
        # only noted here: the guard may be held by this very thread, when Python frees things inside `alloc`
        self._given.append((key, room))

    def _collect(self) -> None:
        while self._given:
            block, room = self._given.popleft()
            self._bytes -= room
            self._count -= 1
            if not self.is_lost:
                self._pool.give(block)

    def _dropped(self, number: int) -> None:
        self._dead.add(number)

    def _make_staging(self, size: int = 0) -> Any:
        """A buffer that the processor may map. The first takes a driver up to 30 ms, so it is made ahead."""
        usage = wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.MAP_READ
        return self._gpu.create_buffer(size=max(65536, size), usage=usage)

    def _fetch(self, buffer: Any, start: int, target: memoryview) -> None:
        """Copy bytes of a buffer from `start` into `target`, by way of a buffer that the processor may map."""
        size = -(-len(target) // 8) * 8
        if self._staging is None and self._coming is not None:
            self._staging, self._coming = self._coming.result(), None
        if self._staging is None or self._staging.size < size:
            self._staging = self._make_staging(size)
        encoder = self._gpu.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer, start, self._staging, 0, size)
        self._gpu.queue.submit([encoder.finish()])
        # wgpu's own thread waits for the device: a second one that waits for it takes 10 ms longer
        self._staging.map_async("READ_NOSYNC", 0, size).sync_wait()
        target[:] = self._staging.read_mapped(0, size, copy=False)[: len(target)]
        self._staging.unmap()

    def _check_limits(self, program: Program) -> None:
        most = self.limits["maxStorageBuffersPerShaderStage"]
        for kernel in program.kernels:
            if kernel.bindings > most:
                raise DeviceError(
                    f"webgpu: kernel {kernel.name!r} has {kernel.bindings} buffers, and this device allows {most} "
                    f"(maxStorageBuffersPerShaderStage). Compile it on this device, or use device 'wasm'."
                )
        for buffer in program.buffers:
            if buffer.room > self.limits["maxStorageBufferBindingSize"]:
                raise self._too_large(buffer.nbytes, "maxStorageBufferBindingSize")

    def _too_large(self, nbytes: int, limit: str) -> DeviceError:
        return DeviceError(
            f"webgpu: a buffer of {_size(nbytes)} exceeds this device's limit of {_size(self.limits[limit])} "
            f"({limit}). Use dtype='float16' or device 'wasm'."
        )

    def _failed(self, what: str, error: Exception) -> DeviceError:
        said = " ".join(str(error).split())[:300]
        if "lost" in said.lower() or "destroyed" in said.lower():
            self.is_lost = True
            return DeviceError(
                f"webgpu: {what}: the device is lost, and what it held is gone: {said}. Tensors of other devices are "
                f"unharmed. Open the device again, or use device 'wasm'."
            )
        return DeviceError(f"webgpu: {what}: {said}. Use device 'wasm' if this goes on.")


def _size(nbytes: int) -> str:
    return f"{nbytes:,} bytes" if nbytes < 10_000_000 else f"{nbytes / 1e6:.0f} MB"
