"""Optimisers: from gradients to better parameters; learning rates that change; limits for gradients."""

from .adam import Adam, AdamW
from .clip import clip_by_norm, clip_by_value, global_norm
from .lion import Lion
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .schedule import Schedule, constant, cosine, exponential, join, linear, step_decay, warm_up
from .sgd import SGD

__all__ = [
    "SGD", "Adam", "AdamW", "Lion", "Optimizer", "RMSprop", "Schedule", "clip_by_norm", "clip_by_value", "constant",
    "cosine", "exponential", "global_norm", "join", "linear", "step_decay", "warm_up",
]  # fmt: skip
