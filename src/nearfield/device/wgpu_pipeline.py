"""WGSL text -> pipelines: each text compiled once for a device, several at the same time."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import FormatError
from ..program.program import Kernel

__all__ = ["Pipelines"]

COMPILERS = 16  # threads; the driver lets go of Python's lock while it compiles
STORAGE = {"type": "storage"}
COMPUTE_STAGE = 4
REMEMBERED = 4096


class Pipelines:
    """Compiled kernels of one device, by text and number of arguments."""

    def __init__(self, gpu: Any, errors: tuple[type[Exception], ...]) -> None:
        self._gpu = gpu
        self._errors = errors
        self._layouts: dict[int, tuple[Any, Any]] = {}
        self._ready: dict[tuple[int, str], Any] = {}

    def layout(self, bindings: int) -> Any:
        """The bind group layout of kernels with so many arguments: the same for all, so that groups can be shared."""
        return self._layout(bindings)[0]

    def compile(self, kernels: Sequence[Kernel]) -> list[Any]:
        """One pipeline for each kernel.

        errors   FormatError with the kernel's name and the compiler's words
        """
        texts = [(kernel.bindings, kernel.code.replace("enable subgroups;", "")) for kernel in kernels]
        todo = {key: kernel for key, kernel in zip(texts, kernels, strict=True) if key not in self._ready}
        for bindings, _ in todo:
            self._layout(bindings)
        if len(todo) > 1:
            with ThreadPoolExecutor(min(COMPILERS, len(todo), os.cpu_count() or 1)) as threads:
                made = list(threads.map(self._compile, todo.items()))
        else:
            made = [self._compile(item) for item in todo.items()]
        fresh = dict(zip(todo, made, strict=True))
        found = [fresh[key] if key in fresh else self._ready[key] for key in texts]
        self._remember(fresh)
        return found

    def _remember(self, fresh: dict[tuple[int, str], Any]) -> None:
        self._ready.update(fresh)
        while len(self._ready) > REMEMBERED:
            del self._ready[next(iter(self._ready))]

    def _layout(self, bindings: int) -> tuple[Any, Any]:
        known = self._layouts.get(bindings)
        if known is None:
            entries = [{"binding": i, "visibility": COMPUTE_STAGE, "buffer": STORAGE} for i in range(bindings)]
            group = self._gpu.create_bind_group_layout(entries=entries)
            known = group, self._gpu.create_pipeline_layout(bind_group_layouts=[group])
            self._layouts[bindings] = known
        return known

    def _compile(self, item: tuple[tuple[int, str], Kernel]) -> Any:
        (bindings, text), kernel = item
        try:
            module = self._gpu.create_shader_module(code=text)
            stage = {"module": module, "entry_point": "main"}
            return self._gpu.create_compute_pipeline(layout=self._layouts[bindings][1], compute=stage)
        except self._errors as error:
            if "lost" in str(error):
                raise  # the device's fault, which the device reports
            said = " ".join(str(error).split())[:400]
            who = f"program: kernel {kernel.name!r}"
            raise FormatError(f"{who}: its WGSL is refused: {said}. Export it again.") from None
