"""Ctrl-C in the middle of what has to be done as a whole: it is heard when that is done."""

from types import FrameType, TracebackType
from typing import Any

try:  # without the enumerations of `signal`, whose conversions take longer than a small step
    from _signal import SIGINT, getsignal, signal  # type: ignore[import-not-found]
except ImportError:
    from signal import SIGINT, getsignal, signal

__all__ = ["Uninterrupted"]


class Uninterrupted:
    """A block that an interruption comes after, not into; then it is handled as it would have been.

    Only Python's main thread is ever interrupted; in others this does nothing.
    """

    __slots__ = ("_before", "_heard")

    def __init__(self) -> None:
        self._before: Any = None
        self._heard: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        before = getsignal(SIGINT)
        if callable(before):
            try:
                signal(SIGINT, self._hear)
            except ValueError:  # another thread
                return
            self._before = before

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = number, frame

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal(SIGINT, self._before)
            if self._heard is not None:
                self._before(*self._heard)
