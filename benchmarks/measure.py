"""Times that mean something: rounds in turn, only in moments when nothing else uses the machine."""

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

__all__ = ["Calm", "go_first", "processor", "quantile", "summarised"]

TICKS = os.sysconf("SC_CLK_TCK")
MOST_FOREIGN = 0.15  # processor cores that others may use during a round


def _busy() -> int:
    words = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
    return words[0] + words[1] + words[2] + words[5] + words[6]


def _own() -> dict[int, int]:
    """This process and all below it: process -> ticks of processor time."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = file.read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended
        children.setdefault(int(words[1]), []).append(int(file.parent.name))
        ticks[int(file.parent.name)] = sum(map(int, words[11:15]))
    todo, found = [os.getpid()], {}
    while todo:
        process_id = todo.pop()
        found[process_id] = ticks.get(process_id, 0)
        todo += children.get(process_id, [])
    return found


def go_first() -> None:
    """Run all threads of this process and of those below it ahead of every other program; needs the right to do so.

    Chromium gives its threads the ordinary priority when they begin, so that this is for each round.
    """
    for process_id in _own():
        for thread in Path(f"/proc/{process_id}/task").glob("*"):
            try:
                os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(5))
            except ProcessLookupError:
                continue  # it has ended


class Calm:
    """Waits for moments without other work, and tells afterwards how much there was."""

    def wait(self, limit: float) -> None:
        """Until less than a quarter of a core is in use, or the limit in seconds is over."""
        start = time.monotonic()
        time.sleep(0.05)  # threads of the last peer may still spin
        while time.monotonic() - start < limit:
            before, began = _busy(), time.monotonic()
            time.sleep(0.1)
            if (_busy() - before) / TICKS / (time.monotonic() - began) < 0.25:
                return

    def begin(self) -> None:
        """A round begins."""
        self._before = _busy(), sum(_own().values()), time.monotonic()

    def foreign(self) -> float:
        """Cores that other processes used since `begin`."""
        busy, own, began = self._before
        return max(0.0, (_busy() - busy) - (sum(_own().values()) - own)) / TICKS / (time.monotonic() - began)


def processor() -> str:
    """The processor's name, or its kind."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.machine()


def quantile(values: list[float], q: float) -> float:
    """The value below which the part q lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def summarised(rounds: list[tuple[float, list[float]]]) -> dict[str, Any]:
    """Rounds of (foreign cores, milliseconds): those with other work are left out if two remain."""
    calm = [times for foreign, times in rounds if foreign <= MOST_FOREIGN]
    used = calm if len(calm) >= 2 else [times for _, times in rounds]
    values = [value for times in used for value in times]
    return {
        "median": statistics.median(values),
        "low": quantile(values, 0.1),
        "high": quantile(values, 0.9),
        "least": min(values),
        "runs": len(values),
        "rounds": len(rounds),
        "calm": len(calm),
    }
