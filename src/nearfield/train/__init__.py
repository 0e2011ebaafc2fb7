"""Training: the loop, what watches it, what it measured."""

from .callback import Callback, EarlyStopping, LearningRate, ReduceOnPlateau
from .chart import Chart
from .checkpoint import Checkpoint
from .fit import Run, evaluate, fit, predict
from .history import History
from .metric import METRICS, ConfusionTable, Metric, accuracy, confusion_matrix, f1, mae, mse, top_k

__all__ = [
    "METRICS", "Callback", "Chart", "Checkpoint", "ConfusionTable", "EarlyStopping", "History", "LearningRate",
    "Metric", "ReduceOnPlateau", "Run", "accuracy", "confusion_matrix", "evaluate", "f1", "fit", "mae",
    "mse", "predict", "top_k",
]  # fmt: skip
