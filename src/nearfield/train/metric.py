"""Metrics: how good predictions are, as Tensor functions; their sums stay on the device until they are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ..errors import ArgumentError, ShapeError
from ..functional.loss import mae, mse
from ..functional.statistics import mean
from ..functional.statistics import sum as total
from ..tensor import Tensor, apply, call

__all__ = [
    "METRICS",
    "ConfusionTable",
    "Metric",
    "accuracy",
    "confusion_matrix",
    "f1",
    "mae",
    "metric_of",
    "mse",
    "top_k",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure over many batches: what is added up for each, and the number that follows from the sum.

    measure  (prediction, target) -> Tensor to add up
    finish   (sum as nested lists, number of examples) -> number
    """

    name: str
    measure: Callable[[Tensor, Tensor], Tensor]
    finish: Callable[[Any, float], float]


def _labels(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both as whole numbers of one shape: of classes, or 0 and 1 for scores of one class (positive means 1)."""
    if prediction.ndim == target.ndim + 1 and prediction.shape[-1] == 1:
        prediction = call("reshape", prediction, prediction.shape[:-1])
    if prediction.ndim == target.ndim + 1:
        return call("argmax", prediction, axis=-1), call("astype", target, "int32")
    if prediction.shape != target.shape:
        raise ShapeError(
            f"accuracy: prediction has shape {prediction.shape} beside target {target.shape}; accepted are scores [n, "
            "c] with labels [n], or equal shapes."
        )
    if prediction.ndim > 1 and prediction.shape[-1] > 1:
        return call("argmax", prediction, axis=-1), call("argmax", target, axis=-1)
    return call("astype", prediction > 0, "int32"), call("astype", target > 0.5, "int32")


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """1 where the largest score is the target's, else 0; per example.

    prediction  [n, ..., c] with target [n, ...] of labels or [n, ..., c] of probabilities; or logits [n] or [n, 1]
                with target [n] or [n, 1] of 0 and 1
    returns     [n], the average where an example has several targets
    """
    guess, truth = _labels(prediction, target)
    right = call("astype", guess == truth, "float32")
    return mean(right, axis=tuple(range(1, right.ndim))) if right.ndim > 1 else right


def top_k(prediction: Tensor, target: Tensor, k: int = 5) -> Tensor:
    """1 where fewer than k scores are larger than the target's, else 0; per example: prediction [n, c], target [n]."""
    places = call("reshape", call("astype", target, "int32"), (*target.shape, 1))
    own = apply("take_along", prediction, places, axis=prediction.ndim - 1)
    return call("astype", total(call("astype", prediction > own, "int32"), axis=-1) < k, "float32")


def confusion_matrix(prediction: Tensor, target: Tensor, n_classes: int | None = None) -> Tensor:
    """How often each class (row) was taken for each class (column), float32.

    prediction  [n, c] of scores, or [n] of labels
    target      [n] of labels
    """
    guess, truth = (prediction, target) if prediction.dtype.kind in "iu" else _labels(prediction, target)
    if n_classes is None:
        if prediction.dtype.kind in "iu":
            raise ArgumentError(
                "confusion_matrix: predictions are labels, so their number is not known; give n_classes."
            )
        n_classes = (
            prediction.shape[-1]
            if prediction.ndim > 1 and prediction.shape[-1] > 1 and prediction.ndim >= target.ndim
            else 2
        )
    classes = apply("iota", n=n_classes)
    rows, columns = (
        call("astype", call("reshape", call("astype", t, "int32"), (-1, 1)) == classes, "float32")
        for t in (truth, guess)
    )
    return call("matrix_transpose", rows) @ columns


def _f1(matrix: Sequence[Sequence[float]]) -> float:
    scores = []
    for i, row in enumerate(matrix):
        shown, there = sum(r[i] for r in matrix), sum(row)
        if shown + there:
            scores.append(2 * row[i] / (shown + there))
    return sum(scores) / len(scores) if scores else float("nan")


def f1(prediction: Tensor, target: Tensor) -> float:
    """2 · hits / (shown + there), averaged over the classes that occur; of two classes, that of the second."""
    return _f1_of(confusion_matrix(prediction, target).tolist(), 0)


def _f1_of(matrix: Any, _count: float) -> float:
    if len(matrix) == 2:
        hits, wrong = matrix[1][1], matrix[0][1] + matrix[1][0]
        return 2 * hits / (2 * hits + wrong) if hits + wrong else float("nan")
    return _f1(matrix)


def _average(name: str, function: Callable[..., Tensor]) -> Metric:
    return Metric(name, lambda p, t: total(call("astype", function(p, t), "float32")), lambda s, n: s / n)


METRICS: dict[str, Metric] = {
    "accuracy": _average("accuracy", accuracy),
    "f1": Metric("f1", confusion_matrix, _f1_of),
    "mae": _average("mae", mae),
    "mse": _average("mse", mse),
    "rmse": Metric("rmse", lambda p, t: total(mse(p, t)), lambda s, n: (s / n) ** 0.5),
    "top_5": _average("top_5", top_k),
}


def metric_of(metric: Any) -> Metric:
    """A Metric from its name, or from a function (prediction, target) -> one number per example."""
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return _average(getattr(metric, "__name__", type(metric).__name__), metric)
    if metric not in METRICS:
        raise ArgumentError(
            f"fit: there is no metric {metric!r}; accepted are {', '.join(METRICS)}, functions of (prediction, "
            "target), and nf.train.Metric."
        )
    return METRICS[metric]


class ConfusionTable:
    """A confusion matrix to look at: text with `str`, a coloured table in notebooks.

    matrix  [c, c], rows are what it was, columns what it was taken for
    labels  names of the classes; their numbers unless given
    """

    def __init__(self, matrix: Any, labels: Sequence[str] | None = None) -> None:
        self.matrix = [[round(v) for v in row] for row in (matrix.tolist() if hasattr(matrix, "tolist") else matrix)]
        self.labels = (
            [str(name) for name in labels] if labels is not None else [str(i) for i in range(len(self.matrix))]
        )
        if len(self.labels) != len(self.matrix):
            raise ShapeError(
                f"ConfusionTable: {len(self.labels)} labels for {len(self.matrix)} classes; the numbers must be equal."
            )

    def __str__(self) -> str:
        share = [row[i] / sum(row) if sum(row) else 0.0 for i, row in enumerate(self.matrix)]
        head = ["was \\ seen as", *self.labels, "right"]
        lines = [
            [name, *map(str, row), f"{part:.1%}"]
            for name, row, part in zip(self.labels, self.matrix, share, strict=True)
        ]
        wide = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        text = [
            " │ ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, wide, strict=True))
            )
            for line in [head, *lines]
        ]
        rule = "─┼─".join("─" * w for w in wide)
        return "\n".join([text[0], rule, *text[1:]])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cell = "padding:3px 10px;text-align:right"
        head = "".join(f"<th style='{cell}'>{escape(name)}</th>" for name in self.labels)
        rows = []
        for i, (name, row) in enumerate(zip(self.labels, self.matrix, strict=True)):
            most = sum(row) or 1
            tints = [f"rgba({'56,142,60' if i == j else '211,84,60'},{0.65 * v / most:.2f})" for j, v in enumerate(row)]
            cells = "".join(
                f"<td style='{cell};background:{tint}'>{v:,}</td>" for v, tint in zip(row, tints, strict=True)
            )
            rows.append(f"<tr><th style='{cell}'>{escape(name)}</th>{cells}</tr>")
        first = f"<tr><th style='{cell}'>was \\ seen as</th>{head}</tr>"
        return f"<table style='border-collapse:collapse'>{first}{''.join(rows)}</table>"
