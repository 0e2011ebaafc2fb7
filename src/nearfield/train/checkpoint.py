"""Checkpoints: a run on disk, from which it continues to the same bits."""

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import random
from ..argument import instance, whole
from ..errors import FormatError
from ..formats.safetensors import decode, save_tensors
from ..tensor import Tensor
from .callback import Callback, _Watch

if TYPE_CHECKING:
    from .fit import Run

__all__ = ["Checkpoint", "restore", "save"]

VERSION = 1


class Checkpoint(Callback):
    """Write the whole run to a file: parameters, optimiser, random generators, place in the data, history.

    path         a safetensors file, written anew each time; it appears whole or not at all. `fit(..., resume=path)`
                 continues
    every        epochs from one checkpoint to the next
    every_steps  also after so many steps
    best_only    only when `monitor` is the best so far
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        every: int = 1,
        every_steps: int | None = None,
        best_only: bool = False,
        monitor: str = "val_loss",
        mode: str = "auto",
    ) -> None:
        instance("Checkpoint", (str, PathLike), "a path", path=path)
        whole("Checkpoint", every=every)
        if every_steps is not None:
            whole("Checkpoint", every_steps=every_steps)
        self.path, self.every, self.every_steps = Path(path), every, every_steps
        self.watch = _Watch("Checkpoint", monitor, mode, 0.0) if best_only else None

    def on_batch_end(self, run: "Run") -> None:
        """Write after every so many steps."""
        if self.every_steps and run.step % self.every_steps == 0:
            save(run, self.path)

    def on_epoch_end(self, run: "Run") -> None:
        """Write after every so many epochs."""
        if self.watch is not None and not self.watch.is_better("Checkpoint", run):
            return
        if (run.epoch + 1) % self.every == 0:
            run.later.append(lambda: save(run, self.path))  # when all callbacks have seen this epoch

    def numbers(self) -> dict[str, Any]:
        """The best so far."""
        return self.watch.numbers() if self.watch else {}

    def set_numbers(self, numbers: dict[str, Any]) -> None:
        """What a checkpoint remembered."""
        if self.watch and numbers:
            self.watch.set_numbers(numbers)


def _owners(run: "Run") -> dict[str, Any]:
    named = {"model": run.model, "optimizer": run.optimizer, "random": random.default_generator(), "tally": run.tally}
    return named | {f"callback{i}": c for i, c in enumerate(run.callbacks)}


def save(run: "Run", path: str | PathLike[str]) -> None:
    """Write the run."""
    tensors = {f"{who}.{name}": t for who, owner in _owners(run).items() for name, t in owner.state_tensors().items()}
    about = {
        "version": VERSION, "epoch": run.epoch, "batch": run.batch, "step": run.step, "seed": run.seed,
        "batch_size": run.batch_size, "history": run.history.to_dict(),
        "callbacks": [c.numbers() for c in run.callbacks],
    }  # fmt: skip
    save_tensors(path, tensors, {"format": "nearfield", "fit": json.dumps(about)})


def restore(run: "Run", path: str | PathLike[str]) -> None:
    """Continue the run where the file says.

    errors  FormatError if the file is damaged, or of a run of another model, optimiser, seed or batch size
    """
    tensors, metadata = decode(Path(path).read_bytes(), str(path))
    try:
        about = json.loads(metadata["fit"])
        place = {name: int(about[name]) for name in ("version", "epoch", "batch", "step", "seed", "batch_size")}
        history, numbers = about["history"], about["callbacks"]
        if not isinstance(history, dict) or not isinstance(numbers, list):
            raise TypeError("history or callbacks")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: this is no checkpoint of fit: {error!r}; accepted is a file that nf.train.Checkpoint wrote."
        ) from None
    for name, here in (("version", VERSION), ("seed", run.seed), ("batch_size", run.batch_size)):
        if place[name] != here:
            raise FormatError(
                f"{path}: {name} was {place[name]} and is {here} now; accepted is the same, to continue to the same "
                "numbers."
            )
    for who, owner in _owners(run).items():
        part = {name.removeprefix(f"{who}."): t for name, t in tensors.items() if name.startswith(f"{who}.")}
        _give(f"{path}: {who}", owner, part, exact=not who.startswith("callback"))
    for callback, found in zip(run.callbacks, numbers, strict=False):
        callback.set_numbers(found)
    run.epoch, run.batch, run.step = place["epoch"], place["batch"], place["step"]
    run.history.set_dict(history)


def _give(where: str, owner: Any, found: dict[str, Tensor], *, exact: bool) -> None:
    here = owner.state_tensors()
    if exact:
        different = sorted(here.keys() ^ found.keys())
        if different:
            side = "the file lacks" if different[0] in here else "there is no place for"
            raise FormatError(
                f"{where}: {side} {different[0]!r}; accepted is a checkpoint of the same model and optimiser."
            )
        for name, t in found.items():
            if t.shape != here[name].shape or t.dtype is not here[name].dtype:
                raise FormatError(
                    f"{where}: {name!r} is {t.dtype.name}{list(t.shape)} in the file and "
                    f"{here[name].dtype.name}{list(here[name].shape)} here; they must be equal."
                )
    owner.set_state_tensors(found)
