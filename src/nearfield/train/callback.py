"""Callbacks: what happens between steps and epochs."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..argument import callables, instance, real, whole
from ..errors import ArgumentError
from ..tensor import Tensor

if TYPE_CHECKING:
    from .fit import Run

__all__ = ["Callback", "EarlyStopping", "LearningRate", "ReduceOnPlateau"]


class Callback:
    """What `fit` calls; override what you want to know. `run` holds model, optimizer, history, epoch and step."""

    def on_fit_begin(self, run: "Run") -> None:
        """Before the first step."""

    def on_epoch_begin(self, run: "Run") -> None:
        """Before the first step of each epoch."""

    def on_batch_end(self, run: "Run") -> None:
        """After each step; reading a Tensor here makes every step wait for the device."""

    def on_epoch_end(self, run: "Run") -> None:
        """After each epoch, when `run.history` has its numbers."""

    def on_fit_end(self, run: "Run") -> None:
        """At the end, also of a run that was interrupted."""

    def numbers(self) -> dict[str, Any]:
        """What a checkpoint should remember of this callback, as JSON can hold it."""
        return {}

    def set_numbers(self, numbers: dict[str, Any]) -> None:
        """What a checkpoint remembered."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint should remember."""
        return {}

    def set_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Tensors that a checkpoint remembered."""


class _Watch:
    """The best of a number so far: smaller is better, except for accuracies and the like."""

    def __init__(self, who: str, monitor: str, mode: str, min_delta: float) -> None:
        instance(who, str, "a name in the history, such as 'val_loss'", monitor=monitor)
        real(who, 0, min_delta=min_delta)
        if mode not in ("min", "max", "auto"):
            raise ArgumentError(f"{who}: mode is {mode!r}; accepted are 'min', 'max' and 'auto'.")
        grows = any(word in monitor for word in ("accuracy", "f1", "top_", "auc", "precision", "recall"))
        self.monitor, self.sign, self.min_delta = (
            monitor,
            -1.0 if mode == "max" or (mode == "auto" and grows) else 1.0,
            min_delta,
        )
        self.best: float | None = None
        self.waited = 0

    def is_better(self, who: str, run: "Run") -> bool:
        """Take the last epoch's number in; whether it is the best so far."""
        values = run.history.get(self.monitor)
        if not values:
            raise KeyError(
                f"{who}: there is no {self.monitor!r} to watch; accepted are {', '.join(run.history)}. Give fit "
                "validation=."
            )
        value = values[-1]
        if self.best is None or self.sign * (self.best - value) > self.min_delta:
            self.best, self.waited = value, 0
            return True
        self.waited += 1
        return False

    def numbers(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def set_numbers(self, numbers: dict[str, Any]) -> None:
        self.best, self.waited = numbers["best"], int(numbers["waited"])


class EarlyStopping(Callback):
    """Stop when a number has not become better for `patience` epochs.

    monitor       a name in the history
    mode          "min", "max", or "auto": accuracies grow, all else shrinks
    restore_best  put the parameters of the best epoch back at the end
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = True,
    ) -> None:
        watch = _Watch("EarlyStopping", monitor, mode, min_delta)
        whole("EarlyStopping", patience=patience)
        self.watch, self.patience, self.restore_best = watch, patience, restore_best
        self.kept: dict[str, Tensor] = {}

    def on_epoch_end(self, run: "Run") -> None:
        """Compare, keep the best parameters, stop."""
        if self.watch.is_better("EarlyStopping", run):
            self.kept = run.model.state() if self.restore_best else {}
        elif self.watch.waited >= self.patience:
            run.stop(
                f"{self.watch.monitor} has not become better for {self.patience} epochs; best {self.watch.best:.4g}"
            )

    def on_fit_end(self, run: "Run") -> None:
        """Put the best parameters back."""
        if self.kept:
            run.model.update(self.kept)

    def numbers(self) -> dict[str, Any]:
        """The best so far, and for how long."""
        return self.watch.numbers()

    def set_numbers(self, numbers: dict[str, Any]) -> None:
        """What a checkpoint remembered."""
        self.watch.set_numbers(numbers)

    def state_tensors(self) -> dict[str, Tensor]:
        """The best parameters."""
        return dict(self.kept)

    def set_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The best parameters."""
        self.kept = dict(tensors)


class ReduceOnPlateau(Callback):
    """Multiply the learning rate by `factor` when a number has not become better for `patience` epochs."""

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.5,
        patience: int = 2,
        smallest: float = 1e-6,
        mode: str = "auto",
        min_delta: float = 0.0,
    ) -> None:
        whole("ReduceOnPlateau", patience=patience)
        real("ReduceOnPlateau", 0, 1, below=True, factor=factor)
        real("ReduceOnPlateau", 0, smallest=smallest)
        self.watch, self.factor, self.patience, self.smallest = (
            _Watch("ReduceOnPlateau", monitor, mode, min_delta),
            factor,
            patience,
            smallest,
        )

    def on_epoch_end(self, run: "Run") -> None:
        """Compare, and lower the rate."""
        if not self.watch.is_better("ReduceOnPlateau", run) and self.watch.waited >= self.patience:
            rate = run.optimizer.learning_rate.item()
            run.optimizer.learning_rate = max(rate * self.factor, self.smallest)
            self.watch.waited = 0

    def numbers(self) -> dict[str, Any]:
        """The best so far, and for how long."""
        return self.watch.numbers()

    def set_numbers(self, numbers: dict[str, Any]) -> None:
        """What a checkpoint remembered."""
        self.watch.set_numbers(numbers)


class LearningRate(Callback):
    """Set the learning rate at the start of each epoch: `rate(epoch)`, from 0. For rates per step see nf.optim."""

    def __init__(self, rate: Callable[[int], float]) -> None:
        callables("LearningRate", "a function of the epoch, which counts from 0", rate=rate)
        self.rate = rate

    def on_epoch_begin(self, run: "Run") -> None:
        """Set the epoch's rate."""
        run.optimizer.learning_rate = float(self.rate(run.epoch))
