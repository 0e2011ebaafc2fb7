"""A line of progress on stderr: rewritten where the terminal can, one line per epoch elsewhere."""

import sys
import time
from typing import TextIO

__all__ = ["Progress", "numbers_text"]

REDRAW_S = 0.25
WIDTH = 24


def numbers_text(numbers: dict[str, float]) -> str:
    """loss 0.4312 · accuracy 0.871"""
    return " · ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Progress:
    """One epoch after the other; silent with `verbose=False`.

    epochs  the number of epochs
    """

    def __init__(self, epochs: int, *, verbose: bool, file: TextIO | None = None) -> None:
        self.epochs, self.file = epochs, file or sys.stderr
        self.verbose = verbose
        self.live = verbose and (self.file.isatty() or "ipykernel" in sys.modules)
        self.label, self.total, self.drawn, self.began, self.first, self.width = "", 0, 0.0, 0.0, 0, 0

    def begin(self, epoch: int, total: int, first: int = 0) -> None:
        """A new epoch of so many steps (0 if that is not known), of which `first` were done before."""
        self.label = f"epoch {epoch + 1}/{self.epochs}"
        self.total, self.first, self.began, self.drawn = total, first, time.monotonic(), 0.0

    def is_due(self) -> bool:
        """Whether it is time to show something again."""
        return time.monotonic() - self.drawn >= REDRAW_S

    def show(self, done: int, numbers: dict[str, float]) -> None:
        """Redraw the line after so many steps."""
        self.drawn = time.monotonic()
        if not self.live:
            return
        rate = (done - self.first) / max(self.drawn - self.began, 1e-9)
        parts = [f"{rate:.3g} steps/s", numbers_text(numbers)]
        if self.total:
            full = round(WIDTH * done / self.total)
            bar = "━" * full + "─" * (WIDTH - full)
            parts = [f"{done:,}/{self.total:,}", f"{_duration((self.total - done) / max(rate, 1e-9))} left", *parts]
            self._write(f"{self.label} {bar} {' · '.join(parts)}")
        else:
            self._write(f"{self.label} {done:,} · {' · '.join(parts)}")

    def end(self, numbers: dict[str, float]) -> None:
        """The epoch's line, which stays."""
        if self.verbose:
            self._write(
                f"{self.label} · {_duration(time.monotonic() - self.began)} · {numbers_text(numbers)}", last=True
            )

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.verbose:
            self._write(text, last=True)

    def _write(self, text: str, *, last: bool = False) -> None:
        if self.live:
            text = "\r" + text.ljust(self.width)
            self.width = 0 if last else len(text) - 1
        self.file.write(text + ("\n" if last else ""))
        self.file.flush()
