"""The devices of a web page, in Pyodide: the JavaScript runner does the work, one call into it for each run.

Only a page's WebGPU must be waited for, when it is opened and when it is read. Python can stop and wait where the
browser has JSPI (`can_run_sync`), else it must say `await`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any

from pyodide.code import run_js
from pyodide.ffi import JsException, can_run_sync, run_sync

from ..dtype import DTYPES
from ..errors import DeviceError, FormatError, NearfieldError
from ..program.codec import encode
from ..program.program import Program
from .browser_cache import restore, restore_at_once
from .device import (
    Data,
    Device,
    Memory,
    Session,
    Stats,
    check_read,
    check_target,
    check_weight,
    check_write,
    next_serial,
    octets,
    room_of,
    weight_sizes,
)

__all__ = ["BrowserDevice", "describe", "open_async", "open_device"]

ON_WEBGPU = frozenset({"bool", "int8", "uint8", "int32", "uint32", "float16", "float32"})
STRINGS = ("features", "adapter")  # of what the runner calls limits, these are not numbers


# Numbers go in and text comes out: turning lists into one another would take longer than all else in a call. Of the
# inputs only those go in that are not what they were in the call before, and only new memory comes out: a step of
# training has hundreds of parameters, and they stay where they are.
RUN = """bridge => (device, session, entry, fresh) => {
  const inputs = [], wanted = JSON.parse(fresh);
  return (...changes) => {
    for (let i = 0; i < changes.length; i += 2) inputs[changes[i]] = changes[i + 1];
    const outputs = bridge.run(device, session, entry, [...inputs]);
    return wanted.map(n => outputs[n]).join();
  };
}"""


class _Runner:
    """The runner's functions for Python, each looked up once: a look-up costs as much as a call."""

    def __init__(self, bridge: Any) -> None:
        self.devices = bridge.devices
        self.open = bridge.open
        self.open_at_once = bridge.openSync
        self.close = bridge.close
        self.limits = bridge.limits
        self.stats = bridge.stats
        self.alloc = bridge.alloc
        self.free = bridge.free
        self.write = bridge.write
        self.read = bridge.read
        self.read_at_once = bridge.readSync
        self.load = bridge.load
        self.load_async = bridge.loadAsync
        self.unload = bridge.unload
        self.weight = bridge.weight
        self.caller = run_js(RUN)(bridge)


@cache
def _runner() -> _Runner:
    """The runner, evaluated from its text in this package at the first use."""
    text = files("nearfield").joinpath("web", "nearfield.js").read_text(encoding="utf-8")
    return _Runner(run_js(text[: text.index("\nexport")] + ";nearfield").bridge)


def _told(error: Any, device: "BrowserDevice | None" = None) -> NearfieldError:
    """The runner's error as Python's of the same name; the device is noted as lost if it is."""
    text = str(error.message)
    if device is not None and "the device is lost" in text:
        device.is_lost = True
    elif device is not None and device.is_lost:  # closed: the runner no longer knows its number
        text = f"{device.name}: the device is lost or closed; what it held is gone. Open it again."
    return FormatError(text) if error.name == "FormatError" else DeviceError(text)


def _wait(what: str, start: Callable[[], Awaitable[Any]], way_out: str, device: "BrowserDevice | None" = None) -> Any:
    if not can_run_sync():
        raise DeviceError(f"webgpu: {what}: this page cannot stop Python to wait for the GPU. Use {way_out}.")
    try:
        return run_sync(start())
    except JsException as error:
        raise _told(error, device) from None


def describe(name: str) -> str:
    """What the device is, as far as that is known without waiting; DeviceError if it is missing."""
    if name == "wasm":
        return "WebAssembly SIMD"
    if not run_js("!!globalThis.navigator?.gpu"):
        raise DeviceError("webgpu: this browser has no WebGPU. Use a newer one, or device 'wasm'.")
    if not can_run_sync():
        return "WebGPU of this browser"
    rows = _wait("devices", _runner().devices, "device 'wasm'").to_py()
    found = [row["adapter"] for row in rows if row["name"] == name]
    if not found:
        raise DeviceError("webgpu: this machine has no adapter for WebGPU. Use device 'wasm'.")
    return str(found[0])


def open_device(name: str) -> "BrowserDevice":
    """A device, opened while Python waits if need be; DeviceError if it is missing or cannot be waited for."""
    if can_run_sync():
        restore_at_once()
    if name == "wasm":
        try:
            return BrowserDevice(name, _runner().open_at_once(name), is_hardware=False)
        except JsException as error:
            raise _told(error) from None
    device: BrowserDevice = _wait("open", lambda: open_async(name), "`await nf.init()` first, or device 'wasm'")
    return device


async def open_async(name: str) -> "BrowserDevice":
    """A device; DeviceError if it is missing."""
    await restore()
    runner = _runner()
    try:
        rows = (await runner.devices()).to_py()
        number = await runner.open(name)
    except JsException as error:
        raise _told(error) from None
    hard = any(row["name"] == name == "webgpu" and not row["software"] for row in rows)
    return BrowserDevice(name, number, is_hardware=hard)


class BrowserDevice(Device):
    """A device that the runner has opened, known by its number."""

    def __init__(self, name: str, number: int, *, is_hardware: bool) -> None:
        found = _runner().limits(number).to_py()
        self.name = name
        self.description = str(found["adapter"])
        self.dtypes = frozenset(DTYPES) if name == "wasm" else ON_WEBGPU
        self.limits = {key: int(value) for key, value in found.items() if key not in STRINGS}
        self.features = frozenset(found["features"])
        self.is_hardware = is_hardware
        self.number = number

    def alloc(self, nbytes: int) -> Memory:
        try:
            return Memory(self, _runner().alloc(self.number, nbytes), nbytes, room_of(nbytes))
        except JsException as error:
            raise _told(error, self) from None

    def write(self, memory: Memory, data: Data) -> None:
        source = octets(data)
        check_write(memory, len(source))
        memory.serial = next_serial()
        try:
            _runner().write(self.number, memory.key, source)
        except JsException as error:
            raise _told(error, self) from None

    def read(self, memory: Memory, nbytes: int) -> bytearray:
        check_read(memory, nbytes)
        return self.fetch(memory.key, nbytes)

    def fetch(self, key: int, nbytes: int) -> bytearray:
        """The first bytes behind the runner's handle of a block or of a weight."""
        runner = _runner()
        try:
            if self.name == "wasm":
                return _copied(runner.read_at_once(self.number, key, nbytes), nbytes)
            found = _wait("read", lambda: runner.read(self.number, key, nbytes), "`await tensor.data()`", self)
            return _copied(found, nbytes)
        except JsException as error:
            raise _told(error, self) from None

    async def read_async(self, memory: Memory, nbytes: int) -> bytearray:
        check_read(memory, nbytes)
        try:
            return _copied(await _runner().read(self.number, memory.key, nbytes), nbytes)
        except JsException as error:
            raise _told(error, self) from None

    def load(self, program: Program) -> "BrowserSession":
        data = encode(program)
        check_target(self, program)
        try:
            return BrowserSession(self, program, _runner().load(self.number, data))
        except JsException as error:
            raise _told(error, self) from None

    async def load_async(self, program: Program) -> "BrowserSession":
        data = encode(program)
        check_target(self, program)
        try:
            return BrowserSession(self, program, await _runner().load_async(self.number, data))
        except JsException as error:
            raise _told(error, self) from None

    def stats(self) -> Stats:
        found = _runner().stats(self.number).to_py()
        used = found["bytes"] + found["programs"]
        return Stats(used, max(found["peak"], used), found["buffers"], found["pooled"])

    def close(self) -> None:
        self.is_lost = True
        try:
            _runner().close(self.number)
        except JsException as error:
            raise _told(error) from None

    def _free(self, key: int, room: int) -> None:
        if not self.is_lost:
            _runner().free(self.number, key)


def _copied(source: Any, nbytes: int) -> bytearray:
    result = bytearray(nbytes)
    if nbytes:
        source.assign_to(result)
    return result


class _Call:
    """One entry: what was last given to it, and which outputs take over which inputs."""

    def __init__(self, session: "BrowserSession", index: int) -> None:
        buffers, entry = session.program.buffers, session.program.entries[index]
        position = {buffer: place for place, buffer in enumerate(entry.inputs)}
        places = [position.get(buffers[output].alias, -1) for output in entry.outputs]
        self._taken = [place for place in places if place >= 0]
        self._places = [max(0, place) for place in places]  # of outputs that take over none, any
        fresh = [at for at, place in enumerate(places) if place < 0]
        self._fresh = [(at, buffers[entry.outputs[at]].nbytes) for at in fresh]
        self._entry = entry
        self._keys: list[int] = []
        self.token = 0  # of the last call, if that was one of `repeat`; 0 if not
        self._start = _runner().caller(session.device.number, session.number, index, str(fresh))

    def run(self, device: BrowserDevice, inputs: Sequence[Memory]) -> list[Memory]:
        """The outputs; JsException if the runner has an error to tell."""
        keys = [memory.key for memory in inputs]
        if len(keys) != len(self._entry.inputs):
            name, accepted = self._entry.name, len(self._entry.inputs)
            raise DeviceError(
                f"{name}: takes {accepted} inputs, not {len(keys)}. Pass one for each input of the entry."
            )
        outputs: list[Any] = [inputs[place] for place in self._places] if inputs else [None] * len(self._places)
        fresh = self._begin(device, keys, _others(keys, self._keys))
        for (at, _), memory in zip(self._fresh, fresh, strict=True):
            outputs[at] = memory
        for place in self._taken:
            inputs[place].serial = next_serial()
        return outputs

    def repeat(
        self, device: BrowserDevice, inputs: Sequence[Memory], others: Sequence[int], token: int
    ) -> list[Memory]:
        """The outputs that take over no input; JsException if the runner has an error to tell."""
        if self.token != token:
            outputs = self.run(device, inputs)
            self.token = token
            return [outputs[at] for at, _ in self._fresh]
        keys = self._keys
        changed = [n for n in others if inputs[n].key != keys[n]]
        for n in changed:
            keys[n] = inputs[n].key
        fresh = self._begin(device, keys, changed)
        self.token = token
        return fresh

    def _begin(self, device: BrowserDevice, keys: list[int], others: Iterable[int]) -> list[Memory]:
        """Run with these keys of inputs, of which the runner has all but some; the new memories."""
        changes = [n for place in others for n in (place, keys[place])]
        self._keys, self.token = [], 0  # unless the runner has taken them
        text = self._start(*changes)
        self._keys = keys
        numbers = map(int, text.split(",") if text else ())
        return [
            Memory(device, number, nbytes, room_of(nbytes))
            for (_, nbytes), number in zip(self._fresh, numbers, strict=True)
        ]


def _others(keys: list[int], known: list[int]) -> Iterable[int]:
    """The places where the keys are not the known ones: all of the first few, as a rule, and none of hundreds."""
    if len(known) != len(keys):
        return range(len(keys))
    first = 0
    while first < len(keys) and keys[first] != known[first]:
        first += 1
    if keys[first:] == known[first:]:
        return range(first)
    return [place for place, (key, before) in enumerate(zip(keys, known, strict=True)) if key != before]


class BrowserSession(Session):
    """A Program that the runner has loaded, known by its number."""

    def __init__(self, device: BrowserDevice, program: Program, number: int) -> None:
        self.device: BrowserDevice = device
        self.program = program
        self.number = number
        self._calls = {entry.name: _Call(self, index) for index, entry in enumerate(program.entries)}
        self._sizes = weight_sizes(program)

    def run(self, entry: str, inputs: Sequence[Memory]) -> list[Memory]:
        call = self._call(entry)
        self._check(entry, inputs)
        try:
            return call.run(self.device, inputs)
        except JsException as error:
            raise _told(error, self.device) from None

    def repeat(self, entry: str, inputs: Sequence[Memory], others: Sequence[int], token: int) -> list[Memory]:
        call = self._call(entry)
        self._check(entry, [inputs[n] for n in others] if call.token == token else inputs)
        try:
            return call.repeat(self.device, inputs, others, token)
        except JsException as error:
            raise _told(error, self.device) from None

    def _call(self, entry: str) -> _Call:
        call = self._calls.get(entry)
        if call is None:
            raise DeviceError(f"run: there is no entry {entry!r}; accepted are {', '.join(self._calls) or 'none'}.")
        return call

    def _check(self, entry: str, inputs: Sequence[Memory]) -> None:
        if [memory.device for memory in inputs].count(self.device) < len(inputs):
            raise DeviceError(f"{entry}: an input is memory of another device. Move it to {self.device.name}.")

    def load_weights(self, values: Mapping[str, Data]) -> None:
        sources = {name: octets(data) for name, data in values.items()}
        for name, source in sources.items():  # all are looked at before the first is changed
            check_weight(self._sizes, name, len(source))
        try:
            for name, source in sources.items():
                _runner().write(self.device.number, self._weight(name), source)
        except JsException as error:
            raise _told(error, self.device) from None

    def read_weight(self, name: str) -> bytes:
        nbytes = check_weight(self._sizes, name)
        try:
            return bytes(self.device.fetch(self._weight(name), nbytes))
        except JsException as error:
            raise _told(error, self.device) from None

    def close(self) -> None:
        if self._calls and not self.device.is_lost:
            _runner().unload(self.device.number, self.number)
        self._calls = {}

    def __del__(self) -> None:
        # when Python shuts down, parts of the device may be gone before its Sessions are
        with suppress(AttributeError, TypeError, JsException):
            self.close()

    def _weight(self, name: str) -> int:
        return int(_runner().weight(self.device.number, self.number, name))
