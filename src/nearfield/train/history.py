"""History: what was measured in each epoch; a dict of lists that draws itself."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from math import isnan
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from ..formats.safetensors import replacing
from .chart import Chart

__all__ = ["History"]

BARS = "▁▂▃▄▅▆▇█"


class History(Mapping[str, list[float]]):
    """history["loss"], history["val_accuracy"]: one number per epoch. `plot()` draws, `print` shows the course.

    stopped   why the run ended early; empty if it did not
    """

    def __init__(self, numbers: Mapping[str, list[float]] | None = None) -> None:
        self.numbers: dict[str, list[float]] = {name: list(values) for name, values in (numbers or {}).items()}
        self.stopped = ""

    def __getitem__(self, name: str) -> list[float]:
        return self.numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def epochs(self) -> int:
        """The number of epochs measured."""
        return max(map(len, self.numbers.values()), default=0)

    def add(self, numbers: Mapping[str, float]) -> None:
        """One more epoch; a number that was not there before is NaN for the epochs before."""
        count = self.epochs
        for name in numbers.keys() - self.numbers.keys():
            self.numbers[name] = [float("nan")] * count
        self.numbers = {name: self.numbers[name] for name in [*numbers, *(n for n in self.numbers if n not in numbers)]}
        for name, values in self.numbers.items():
            values.append(float(numbers.get(name, float("nan"))))

    def plot(self) -> Chart:
        """Curves, a panel for each measure with training and validation in it: notebooks show SVG, `print` text."""
        panels: dict[str, dict[str, list[float]]] = {}
        for name, values in self.numbers.items():
            panels.setdefault(name.removeprefix("val_"), {})[
                "validation" if name.startswith("val_") else "training"
            ] = values
        return Chart(panels, x_label="epoch")

    def to_dict(self) -> dict[str, list[float]]:
        """A plain dict of lists."""
        return {name: list(values) for name, values in self.numbers.items()}

    def set_dict(self, numbers: Mapping[str, Any]) -> None:
        """The numbers of another history."""
        self.numbers = {str(name): [float(v) for v in values] for name, values in numbers.items()}

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """The numbers as CSV text, one line per epoch; also written to the path, if one is given."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *self.numbers])
        writer.writerows([i + 1, *row] for i, row in enumerate(zip(*self.numbers.values(), strict=True)))
        if path is not None:
            Path(path).write_text(text.getvalue(), encoding="utf-8")
        return text.getvalue()

    def save(self, path: str | PathLike[str]) -> None:
        """Write the numbers as JSON."""
        data = json.dumps({"stopped": self.stopped, "numbers": self.numbers}, indent=1).encode()

        def write(file: BinaryIO) -> None:
            file.write(data)

        with replacing(path) as writer:
            writer(write)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "History":
        """The numbers that `save` wrote."""
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        history = cls()
        history.set_dict(found["numbers"])
        history.stopped = str(found["stopped"])
        return history

    def __str__(self) -> str:
        if not self.numbers:
            return "History of no epoch"
        wide = max(map(len, self.numbers))
        lines = [
            f"{name:<{wide}}  {_spark(values)}  {_first(values):.4g} → {values[-1]:.4g}, best {_best(name, values)}"
            for name, values in self.numbers.items()
        ]
        plural = "" if self.epochs == 1 else "s"
        return "\n".join(
            [f"{self.epochs} epoch{plural}" + (f", stopped: {self.stopped}" if self.stopped else ""), *lines]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.plot().svg


def _first(values: list[float]) -> float:
    return next((v for v in values if not isnan(v)), float("nan"))


def _best(name: str, values: list[float]) -> str:
    finite = [v for v in values if not isnan(v)]
    if not finite:
        return "–"
    grows = any(word in name for word in ("accuracy", "f1", "top_"))
    best = max(finite) if grows else min(finite)
    return f"{best:.4g} in epoch {values.index(best) + 1}"


def _spark(values: list[float], width: int = 40) -> str:
    """A line of bars; of more values than fit, the last of each group."""
    if len(values) > width:
        values = [values[(i + 1) * len(values) // width - 1] for i in range(width)]
    finite = [v for v in values if abs(v) < float("inf")]
    if not finite:
        return " " * len(values)
    low, span = min(finite), max(finite) - min(finite) or 1.0
    return "".join(BARS[min(int((v - low) / span * 8), 7)] if abs(v) < float("inf") else " " for v in values)
