"""Calling a Program's run function: quickly on one thread, and on several so that a trap in one hangs no other."""

import ctypes
import time
from collections.abc import Callable
from threading import Lock
from typing import Any

import wasmtime

__all__ = ["SharedMemory", "Team", "caller"]

WAKE = """(module (import "env" "memory" (memory 1 65536 shared))
  (func (export "wake") (param i32) (drop (memory.atomic.notify (local.get 0) (i32.const -1)))))"""


class SharedMemory(wasmtime.SharedMemory):
    """wasmtime's, made fit to be imported by an instance: wasmtime 50 hands over a pointer to its pointer."""

    def _as_extern(self) -> Any:
        from wasmtime import _ffi as ffi

        return ffi.wasmtime_extern_t(
            ffi.WASMTIME_EXTERN_SHAREDMEMORY, ffi.wasmtime_extern_union(sharedmemory=self.ptr())
        )


def caller(store: wasmtime.Store, function: Any, numbers: tuple[int, ...]) -> Callable[[], str | None]:
    """A function that calls `function` with these 32-bit numbers; it gives None, or why the call trapped."""
    signed = tuple(number - 2**32 if number >= 2**31 else number for number in numbers)
    try:
        return _quick(store, function, signed)
    except (ImportError, AttributeError):
        return _plain(store, function, signed)


def _plain(store: wasmtime.Store, function: Any, numbers: tuple[int, ...]) -> Callable[[], str | None]:
    def call() -> str | None:
        try:
            function(store, *numbers)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            return reason(error)
        return None

    return call


def _quick(store: wasmtime.Store, function: Any, numbers: tuple[int, ...]) -> Callable[[], str | None]:
    """As `_plain`, past wasmtime's Python layer, which looks up the function's type and converts values at each call.

    cost   about 2 us a call, instead of 20
    """
    from wasmtime import _bindings as ffi

    invoke = _UNCHECKED(ctypes.cast(ffi._wasmtime_func_call_unchecked, ctypes.c_void_p).value)
    values = (ffi.wasmtime_val_raw_t * len(numbers))()
    trap = ctypes.c_void_p()
    context, target = ctypes.cast(store._context(), ctypes.c_void_p).value, ctypes.addressof(function._func)
    place, out, count = ctypes.addressof(values), ctypes.addressof(trap), len(numbers)
    for slot, number in zip(values, numbers, strict=True):
        slot.i32 = number
    fresh, move = bytes(values), ctypes.memmove

    def call() -> str | None:
        move(place, fresh, len(fresh))  # since the callee may use this place for its results
        error = invoke(context, target, place, count, out)
        if error:
            return reason(wasmtime.WasmtimeError._from_ptr(_pointer(error, ffi.wasmtime_error_t)))
        if trap.value:
            owned, trap.value = _pointer(trap.value, ffi.wasm_trap_t), None
            return reason(wasmtime.Trap._from_ptr(owned))
        return None

    call.keep = store, function, values  # type: ignore[attr-defined]
    return call


# error, from: the store, the function, arguments, their number, where to put a trap; addresses as plain integers
_UNCHECKED: Any = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
)


def _pointer(address: int, kind: Any) -> Any:
    return ctypes.cast(ctypes.c_void_p(address), ctypes.POINTER(kind))


def reason(error: Exception) -> str:
    """Why the WebAssembly stopped, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "wasm trap" in line] or lines or ["no reason given"]
    return told[0].removeprefix("Caused by:").strip()


class Team:
    """One run on several threads. A thread that trapped never reaches the next barrier, where the others would wait for
    it for ever; so it stands at the barrier for them until all have ended.

    error  why the first thread that trapped did so, or None
    """

    def __init__(
        self, engine: wasmtime.Engine, memory: wasmtime.SharedMemory, args: int, words: Any, threads: int
    ) -> None:
        self.error: str | None = None
        self._engine = engine
        self._memory = memory
        self._args = args
        self._words = words
        self._left = threads
        self._lock = Lock()

    def share(self, call: Callable[[], str | None]) -> Callable[[], None]:
        """`call` as a task for the Crew."""

        def task() -> None:
            error = call()
            with self._lock:
                self._left -= 1
                self.error = self.error or error
            if error is not None:
                self._stand_in()

        return task

    def _stand_in(self) -> None:
        store = wasmtime.Store(self._engine)
        module = wasmtime.Module(self._engine, WAKE)
        wake: Any = wasmtime.Instance(store, module, [self._memory]).exports(store)["wake"]
        while self._left:
            with self._lock:
                if self._left and self._words[0] == self._left:  # all that are left have arrived
                    self._words[0] = 0
                    self._words[1] += 1
                    wake(store, self._args + 4 - (2**32 if self._args >= 2**31 else 0))
            time.sleep(0.0005)
        self._words[0] = 0
