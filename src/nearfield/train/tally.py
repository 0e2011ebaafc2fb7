"""Tally: sums over the batches of an epoch, kept on the device so that no step waits for them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..dtype import DTYPES
from ..ops.arithmetic import isfinite, where
from ..state import Place, Stateful
from ..tensor import Tensor, call, leaf
from .metric import Metric

__all__ = ["Tally"]


class Tally(Stateful):
    """Sums of loss and metrics, numbers of examples and steps, and the first step with a loss that is not finite."""

    def __init__(self, metrics: Sequence[Metric], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.metrics, self.shapes = tuple(metrics), dict(shapes)
        self.tensors: dict[str, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Everything to 0 (the first bad step to -1)."""
        made = {"loss": (), "count": ()} | {f"metric.{m.name}": self.shapes[m.name] for m in self.metrics}
        self.tensors = {name: _zeros(shape, "float32") for name, shape in made.items()}
        self.tensors["steps"] = _zeros((), "int32")
        self.tensors["bad"] = leaf(b"\xff\xff\xff\xff", (), DTYPES["int32"])

    def add(self, loss: Tensor, prediction: Tensor, target: Tensor) -> None:
        """One batch; `loss` is its average."""
        count, held = prediction.shape[0], self.tensors
        new = {
            "loss": held["loss"] + call("astype", loss, "float32") * count,
            "count": held["count"] + count,
            "steps": held["steps"] + 1,
        }
        new["bad"] = where(
            isfinite(call("astype", loss, "float32")), held["bad"], where(held["bad"] < 0, held["steps"], held["bad"])
        )
        for m in self.metrics:
            new[f"metric.{m.name}"] = held[f"metric.{m.name}"] + call("stopped", m.measure(prediction, target))
        self.tensors = new

    def read(self) -> dict[str, float]:
        """Loss and metrics so far; waits for the device."""
        count = self.tensors["count"].item() or 1
        found = {"loss": self.tensors["loss"].item() / count}
        return found | {m.name: float(m.finish(self.tensors[f"metric.{m.name}"].tolist(), count)) for m in self.metrics}

    def first_bad(self) -> int:
        """The number (from 0) of the first step whose loss was not finite, or -1; waits for the device."""
        return int(self.tensors["bad"].item())

    def state_tensors(self) -> dict[str, Tensor]:
        """The sums by name."""
        return dict(self.tensors)

    def set_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put sums in place of those named."""
        self.tensors |= tensors

    def state_places(self) -> tuple[list[Place], list[Place]]:
        """Where the sums are."""
        return [Place(name, self, ("tensors", name)) for name in self.tensors], [Place("tensors", self, ("tensors",))]


def _zeros(shape: tuple[int, ...], dtype: str) -> Any:
    size = 4
    for n in shape:
        size *= n
    return leaf(bytes(bytearray(size)), shape, DTYPES[dtype])
