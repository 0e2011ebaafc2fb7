"""Dispatches -> command buffers: worked out once for a set of buffers, then recorded again for each run."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

__all__ = ["Batch", "Dispatch", "Tape", "recorder"]

FIRST, BATCH = 24, 250  # dispatches of the first command buffer, and at most: the device starts before all is recorded

Batch = list[tuple[Any, Any, int, int, int]]  # pipeline, group, workgroups in each direction


class Dispatch(NamedTuple):
    """One step: a pipeline, a bind group, and workgroups in each direction."""

    pipeline: Any
    group: Any
    x: int
    y: int
    z: int


class Tape:
    """Dispatches in batches, with the pipelines and groups that are already set left out as None."""

    def __init__(self, dispatches: Sequence[Dispatch], handle: Callable[[Any], Any]) -> None:
        self.keep = dispatches  # the handles below own nothing
        self.batches = [_thin(batch, handle) for batch in _batches(dispatches)]


def _batches(dispatches: Sequence[Dispatch]) -> Iterator[Sequence[Dispatch]]:
    """The dispatches in pieces, each twice as long as the one before, up to the longest."""
    start, size = 0, FIRST
    while start < len(dispatches):
        yield dispatches[start : start + size]
        start, size = start + size, min(2 * size, BATCH)


def _thin(dispatches: Sequence[Dispatch], handle: Callable[[Any], Any]) -> Batch:
    rows: Batch = []
    pipeline = group = None
    for step in dispatches:
        rows.append(
            (
                None if step.pipeline is pipeline else handle(step.pipeline),
                None if step.group is group else handle(step.group),
                step.x,
                step.y,
                step.z,
            )
        )
        pipeline, group = step.pipeline, step.group
    return rows


Write = Callable[[Any, Batch], None]


def recorder() -> tuple[Callable[[Any], Any], Write]:
    """(what turns a pipeline or group into what the tape holds, what writes a batch into a compute pass).

    The quick one calls the C library directly: 2 us a dispatch instead of 5. Without it the public interface does.
    """
    try:
        from wgpu.backends.wgpu_native._ffi import ffi, lib

        return (lambda thing: thing._internal), _quick(ffi, lib)
    except (ImportError, AttributeError):
        return (lambda thing: thing), _plain


def _plain(compute: Any, batch: Batch) -> None:
    for pipeline, group, x, y, z in batch:
        if pipeline is not None:
            compute.set_pipeline(pipeline)
        if group is not None:
            compute.set_bind_group(0, group)
        compute.dispatch_workgroups(x, y, z)


def _quick(ffi: Any, lib: Any) -> Write:
    set_pipeline = lib.wgpuComputePassEncoderSetPipeline
    set_group = lib.wgpuComputePassEncoderSetBindGroup
    dispatch = lib.wgpuComputePassEncoderDispatchWorkgroups
    none = ffi.NULL

    def write(compute: Any, batch: Batch) -> None:
        raw = compute._internal
        for pipeline, group, x, y, z in batch:
            if pipeline is not None:
                set_pipeline(raw, pipeline)
            if group is not None:
                set_group(raw, 0, group, 0, none)
            dispatch(raw, x, y, z)

    return write
