"""fit: the training loop. One compiled step holds forward pass, gradients, optimiser and sums; no step waits.

The loop reads the sums back at most four times a second, and at the end of each epoch.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from typing import Any

from .. import random
from ..argument import callables, instance, whole
from ..data.dataset import Batch, Dataset, as_dataset
from ..errors import ArgumentError
from ..functional.statistics import mean
from ..jit import jit as compile_step
from ..nn.gradient import value_and_grad
from ..nn.module import Module
from ..optim.clip import clip_by_norm
from ..optim.optimizer import Optimizer
from ..runtime import evaluate as compute
from ..tensor import Tensor, call
from .callback import Callback
from .checkpoint import restore
from .history import History
from .metric import Metric, metric_of
from .progress import Progress
from .tally import Tally

__all__ = ["Run", "evaluate", "fit", "predict"]

Loss = Callable[[Any, Any], Tensor]


class Run:
    """A training in progress, as callbacks see it.

    epoch      from 0
    batch      steps made in this epoch
    step       steps made in all
    history    the numbers of the epochs so far
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        epochs: int,
        callbacks: Sequence[Callback],
        seed: int,
        batch_size: int,
    ) -> None:
        self.model, self.optimizer, self.epochs, self.callbacks = model, optimizer, epochs, tuple(callbacks)
        self.seed, self.batch_size = seed, batch_size
        self.epoch, self.batch, self.step = 0, 0, 0
        self.history = History()
        self.tally = Tally((), {})
        self.later: list[Callable[[], None]] = []

    def stop(self, reason: str) -> None:
        """End after this step or epoch; the history remembers why."""
        self.history.stopped = reason

    def tell(self, event: str) -> None:
        """Call the callbacks."""
        for callback in self.callbacks:
            getattr(callback, event)(self)

    def next_epoch(self) -> None:
        """Count on, then do what callbacks put off until then."""
        self.epoch, self.batch = self.epoch + 1, 0
        while self.later:
            self.later.pop(0)()


def fit(
    model: Module, data: Any, *, loss: Loss, optimizer: Optimizer, epochs: int = 1, batch_size: int = 32,
    validation: Any = None,
    metrics: Sequence[Any] = (), callbacks: Sequence[Callback] = (), seed: int = 0, verbose: bool = True,
    resume: str | PathLike[str] | None = None, clip_norm: float | None = None, compiled: bool = True,
) -> History:  # fmt: skip
    """Train the model in place; returns what was measured, epoch by epoch. Ctrl-C ends it early.

    data         (inputs, targets), a Dataset, or an iterable of such batches; the last array is the target
    loss         (prediction, target) -> one number per example, or one number
    validation   data to measure on after each epoch, or the fraction of `data` to keep for that
    metrics      names ("accuracy", "f1", "mae", "mse", "rmse", "top_5") or functions (prediction, target) -> one number
                 per example
    callbacks    Checkpoint, EarlyStopping, ReduceOnPlateau, LearningRate, or classes of yours
    seed         decides the order of the examples in each epoch
    resume       a file of Checkpoint: continue from there, to the same bits as without the break
    clip_norm    longest gradient: see nf.optim.clip_by_norm
    compiled     False runs the model's Python in every step, for models that look at values
    errors       GradError if no parameter is trainable; FormatError if `resume` is damaged or of another run
    """
    _check_arguments(model, optimizer, loss, callbacks)
    whole("fit", 0, epochs=epochs)
    whole("fit", batch_size=batch_size)
    source, held_out = _sources(data, validation, seed)
    run = Run(model, optimizer, epochs, callbacks, seed, batch_size)
    measures = tuple(metric_of(m) for m in metrics)
    progress = Progress(epochs, verbose=verbose)
    model.train()
    if resume is None or not optimizer.slots:
        optimizer.init(model)
    run.tally = Tally(measures, _measure_shapes(model, source, measures, batch_size))
    if resume is not None:
        restore(run, resume)
    step = _training_step(run, loss, clip_norm, compiled)
    check = _Check(model, loss, measures, run.tally.shapes, compiled=compiled) if held_out is not None else None
    run.history.stopped = ""
    run.tell("on_fit_begin")
    try:
        while run.epoch < epochs and not run.history.stopped:
            _epoch(run, source, held_out, step, check, progress)
    except KeyboardInterrupt:
        run.stop(f"interrupted in epoch {run.epoch + 1} after step {run.step}")
    run.tell("on_fit_end")
    if run.history.stopped:
        progress.say(f"stopped: {run.history.stopped}")
    model.eval()
    return run.history


def _check_arguments(model: Any, optimizer: Any, loss: Any, callbacks: Any) -> None:
    instance("fit", Module, "a Module", model=model)
    instance("fit", Optimizer, "an optimiser, such as nf.optim.Adam(1e-3)", optimizer=optimizer)
    callables("fit", "a function (prediction, target) -> numbers, such as nf.nn.losses.mse", loss=loss)
    instance("fit", Iterable, "a list of callbacks", callbacks=callbacks)
    for callback in callbacks:
        instance("fit", Callback, "a Callback, such as nf.train.EarlyStopping()", callback=callback)


def _sources(data: Any, validation: Any, seed: int) -> tuple[Any, Any]:
    source: Any = as_dataset(data)
    if isinstance(validation, float):
        if source is None:
            raise ArgumentError(
                "fit: validation is a fraction but data is an iterable of batches; give validation data of its own."
            )
        return source.split(validation, seed=seed)
    if source is None:
        if isinstance(data, Iterator):
            raise ArgumentError(
                "fit: data is an iterator, which is used up after one epoch; accepted are arrays, a Dataset, or an "
                "iterable such as a list or a class with __iter__."
            )
        instance("fit", Iterable, "arrays, as (inputs, targets), a Dataset, or an iterable of batches", data=data)
        source = data
    return source, validation if validation is None else as_dataset(validation) or validation


def _batches(
    source: Any, size: int, *, seed: int = 0, epoch: int = 0, shuffle: bool = False, skip: int = 0
) -> Iterable[Batch]:
    if isinstance(source, Dataset):
        return source.batches(size, shuffle=shuffle, seed=seed, epoch=epoch, skip=skip)
    return _prepared(source, skip)


def _prepared(source: Iterable[Any], skip: int) -> Iterator[Batch]:
    for n, batch in enumerate(source):
        if n >= skip:
            yield tuple(call("asarray", part) for part in batch)


def _measure_shapes(model: Module, source: Any, measures: Sequence[Metric], size: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the metrics' sums: the model is called once, and nothing is computed."""
    if not measures:
        return {}
    batch = next(iter(_batches(source, size)), None)
    if batch is None:
        return {m.name: () for m in measures}
    before = model.state_tensors()
    try:
        prediction = model(*batch[:-1])  # type: ignore[operator]
        return {m.name: m.measure(prediction, batch[-1]).shape for m in measures}
    finally:
        model.set_state_tensors(before)


def _scalar(values: Tensor) -> Tensor:
    return mean(values) if values.ndim else values


def _training_step(run: Run, loss: Loss, clip_norm: float | None, compiled: bool) -> Callable[..., None]:
    model, optimizer, tally, generator = run.model, run.optimizer, run.tally, random.default_generator()

    def objective(*batch: Tensor) -> tuple[Tensor, Tensor]:
        prediction = model(*batch[:-1])  # type: ignore[operator]
        return _scalar(loss(prediction, batch[-1])), prediction

    differentiated = value_and_grad(model, objective, has_aux=True)

    def step(*batch: Tensor) -> None:
        (value, prediction), grads = differentiated(*batch)
        optimizer.update(model, grads if clip_norm is None else clip_by_norm(grads, clip_norm))
        tally.add(value, prediction, batch[-1])

    return compile_step(step, state=[model, optimizer, tally, generator]) if compiled else _evaluated(step, tally)


def _evaluated(step: Callable[..., None], tally: Tally) -> Callable[..., None]:
    """The step, computed before it returns, so that expressions do not grow."""

    def stepped(*batch: Tensor) -> None:
        step(*batch)
        compute(tally.tensors["loss"].node)

    return stepped


class _Check:
    """Loss and metrics on other data, in use mode."""

    def __init__(
        self,
        model: Module,
        loss: Loss,
        measures: Sequence[Metric],
        shapes: dict[str, tuple[int, ...]],
        *,
        compiled: bool,
    ) -> None:
        self.model, tally = model, Tally(measures, shapes)
        self.tally = tally

        def step(*batch: Tensor) -> None:
            prediction = model(*batch[:-1])  # type: ignore[operator]
            tally.add(_scalar(loss(prediction, batch[-1])), prediction, batch[-1])

        self.step = compile_step(step, state=[model, tally]) if compiled else _evaluated(step, tally)

    def __call__(self, source: Any, batch_size: int) -> dict[str, float]:
        self.tally.reset()
        modes = {part: part.training for part in self.model.modules().values()}
        self.model.eval()
        try:
            for batch in _batches(source, batch_size):
                self.step(*batch)
            return self.tally.read()
        finally:
            for part, training in modes.items():
                part.training = training


def _epoch(
    run: Run, source: Any, held_out: Any, step: Callable[..., None], check: _Check | None, progress: Progress
) -> None:
    """The rest of one epoch, from `run.batch` on."""
    if run.batch == 0:
        run.tally.reset()
        run.tell("on_epoch_begin")
    total = source.count(run.batch_size) if isinstance(source, Dataset) else getattr(source, "__len__", lambda: 0)()
    progress.begin(run.epoch, total, run.batch)
    for batch in _batches(source, run.batch_size, seed=run.seed, epoch=run.epoch, shuffle=True, skip=run.batch):
        step(*batch)
        run.batch, run.step = run.batch + 1, run.step + 1
        run.tell("on_batch_end")
        if progress.is_due():
            if _is_bad(run):
                break
            progress.show(run.batch, run.tally.read() if progress.live else {})
        if run.history.stopped:
            return
    if run.batch == 0:
        raise ArgumentError(
            "fit: the data has no batch; accepted is at least one example, and an iterable that can be walked through "
            "again in every epoch."
        )
    numbers = run.tally.read()
    if not _is_bad(run) and check is not None:
        numbers |= {f"val_{name}": value for name, value in check(held_out, run.batch_size).items()}
    run.history.add(numbers)
    progress.end(numbers)
    run.tell("on_epoch_end")
    run.next_epoch()


def _is_bad(run: Run) -> bool:
    """Whether a loss was not finite; then say which, and stop."""
    first = run.tally.first_bad()
    if first < 0:
        return False
    if not run.history.stopped:
        text = f"the loss is not finite since step {first + 1} of epoch {run.epoch + 1}"
        rate = run.optimizer.learning_rate.item()
        advice = f"Lower the learning rate (now {rate:.3g}), give clip_norm=1.0, or look for NaN in the data."
        warnings.warn(f"fit: {text}; training stops. {advice}", RuntimeWarning, stacklevel=4)
        run.stop(text)
    return True


def evaluate(
    model: Module, data: Any, *, loss: Loss | None = None, metrics: Sequence[Any] = (), batch_size: int = 256
) -> dict[str, float]:
    """Loss and metrics of the model on data, in use mode: {"loss": …, "accuracy": …}."""
    instance("evaluate", Module, "a Module", model=model)
    source = as_dataset(data) or data
    instance("evaluate", (Dataset, Iterable), "arrays, as (inputs, targets), a Dataset, or batches", data=data)
    measures = tuple(metric_of(m) for m in metrics)
    nothing: Loss = lambda prediction, target: mean(prediction) * 0  # noqa: E731
    found = _Check(
        model, loss or nothing, measures, _measure_shapes(model, source, measures, batch_size), compiled=True
    )(source, batch_size)
    return found if loss is not None else {name: value for name, value in found.items() if name != "loss"}


def predict(model: Module, inputs: Any, *, batch_size: int = 256) -> Tensor:
    """What the model returns for all inputs, computed batch by batch, in use mode."""
    instance("predict", Module, "a Module", model=model)
    arrays = inputs if isinstance(inputs, tuple) else (inputs,)
    modes = {part: part.training for part in model.modules().values()}
    model.eval()
    forward = compile_step(lambda *batch: model(*batch), state=[model])  # type: ignore[operator]
    try:
        parts = [forward(*batch) for batch in Dataset(*arrays).batches(batch_size)]
    finally:
        for part, training in modes.items():
            part.training = training
    return call("concat", parts, axis=0)
