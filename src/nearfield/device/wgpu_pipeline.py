"""WGSL text -> pipelines: each text compiled once for a device, several at the same time."""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

from ..errors import DeviceError, FormatError
from ..program.program import Kernel

__all__ = ["Access", "Pipelines", "access_of"]

COMPILERS = 16  # threads; the driver lets go of Python's lock while it compiles
ONLY_READ = re.compile(r"@binding\((\d+)\)\s*var<storage,\s*read>")
COMPUTE_STAGE = 4
REMEMBERED = 4096

Access = tuple[str, ...]  # how each argument is used, in WebGPU's words
Key = tuple[Access, str]  # and the text


def access_of(kernel: Kernel) -> Access:
    """How the kernel's text uses its arguments: what it only reads, other steps may read at the same time."""
    reads = {int(number) for number in ONLY_READ.findall(kernel.code)}
    return tuple(["read-only-storage" if n in reads else "storage" for n in range(kernel.bindings)])


class Pipelines:
    """Compiled kernels of one device, by text and arguments."""

    def __init__(self, gpu: Any, errors: tuple[type[Exception], ...]) -> None:
        self._gpu = gpu
        self._errors = errors
        self._guard = Lock()
        self._threads = ThreadPoolExecutor(min(COMPILERS, os.cpu_count() or 1), "nearfield compiler")
        self._layouts: dict[Access, tuple[Any, Any]] = {}
        self._made: dict[Key, Future[Any]] = {}

    def layout(self, access: Access) -> Any:
        """The bind group layout of kernels with such arguments: the same for all, so that groups can be shared."""
        return self._layout(access)[0]

    def begin(self, kernels: Sequence[Kernel]) -> "list[tuple[Key, Future[Any]]]":
        """Start to compile those that are not there, and return at once what they are known by, and what will be."""
        keys = [(access_of(kernel), kernel.code.replace("enable subgroups;", "")) for kernel in kernels]
        with self._guard:
            for key, kernel in zip(keys, kernels, strict=True):
                if key not in self._made:
                    layout = self._layout(key[0])[1]
                    self._made[key] = self._threads.submit(self._compile, layout, key[1], kernel.name)
            return [(key, self._made[key]) for key in keys]

    def compile(self, kernels: Sequence[Kernel]) -> list[Any]:
        """One pipeline for each kernel.

        errors   FormatError with the kernel's name and the compiler's words
        """
        pending = self.begin(kernels)
        try:
            return [future.result() for _, future in pending]
        except CancelledError:
            raise DeviceError("webgpu: load: the device was closed meanwhile. Open it again.") from None
        finally:
            with self._guard:
                self._forget(dict(pending))

    def aside(self, function: Callable[[], Any]) -> "Future[Any]":
        """What the function will give, called in one of the threads."""
        return self._threads.submit(function)

    def close(self) -> None:
        """Start nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, recent: dict[Key, "Future[Any]"]) -> None:
        """Drop what was refused, which is asked again, and the oldest if there are too many."""
        for key, future in recent.items():
            if future.done() and (future.cancelled() or future.exception() is not None):
                self._made.pop(key, None)
        while len(self._made) > REMEMBERED:
            del self._made[next(iter(self._made))]

    def _layout(self, access: Access) -> tuple[Any, Any]:
        known = self._layouts.get(access)
        if known is None:
            types = enumerate(access)
            entries = [{"binding": i, "visibility": COMPUTE_STAGE, "buffer": {"type": type}} for i, type in types]
            group = self._gpu.create_bind_group_layout(entries=entries)
            known = group, self._gpu.create_pipeline_layout(bind_group_layouts=[group])
            self._layouts[access] = known
        return known

    def _compile(self, layout: Any, text: str, name: str) -> Any:
        try:
            module = self._gpu.create_shader_module(code=text)
            return self._gpu.create_compute_pipeline(layout=layout, compute={"module": module, "entry_point": "main"})
        except self._errors as error:
            if "lost" in str(error):
                raise  # the device's fault, which the device reports
            said = " ".join(str(error).split())[:400]
            who = f"program: kernel {name!r}"
            raise FormatError(f"{who}: its WGSL is refused: {said}. Export it again.") from None
