"""Nearfield: machine learning that runs, is retrained and is written where the user is."""

from . import random, show
from .dtype import DTYPES as _DTYPES
from .dtype import DType
from .errors import *  # noqa: F403
from .functional import linalg as _linalg
from .functional.constants import *  # noqa: F403
from .functional.conversion import *  # noqa: F403
from .functional.creation import *  # noqa: F403
from .functional.einsum import *  # noqa: F403
from .functional.elementwise import *  # noqa: F403
from .functional.gather import *  # noqa: F403
from .functional.indexing import *  # noqa: F403
from .functional.inspection import *  # noqa: F403
from .functional.joining import *  # noqa: F403
from .functional.linalg import *  # noqa: F403
from .functional.manipulation import *  # noqa: F403
from .functional.quantize import *  # noqa: F403
from .functional.scan import *  # noqa: F403
from .functional.sets import *  # noqa: F403
from .functional.sorting import *  # noqa: F403
from .functional.statistics import *  # noqa: F403
from .grad import grad, stop_gradient, value_and_grad, vjp
from .jit import jit
from .ops.arithmetic import *  # noqa: F403
from .ops.mathematics import *  # noqa: F403
from .runtime import devices, forget_programs, init, memory_stats, synchronize, to_device, use
from .tensor import Tensor

bool, int8, uint8, int32, uint32, int64, float16, float32, float64 = _DTYPES.values()
trace = _linalg.trace  # again: importing the module of this name, which the runtime does, has hidden it
__array_api_version__ = "2024.12"
__version__ = "0.1.0"

_LATER = {
    "data": ".data", "deploy": ".deploy", "nn": ".nn", "optim": ".optim", "train": ".train",
    "History": ".train.history", "evaluate": ".train.fit", "fit": ".train.fit", "predict": ".train.fit",
    "export": ".deploy.export", "load": ".deploy.model", "tune": ".deploy.tune",
}  # fmt: skip
_ROOMS = {
    "argument", "cli", "data", "device", "dtype", "errors", "functional", "graph", "holding", "index", "nn", "op",
    "ops", "optim", "program", "replay", "runtime", "scalar", "shape", "show", "state", "steady", "surroundings",
    "tensor", "tree",
}  # fmt: skip
# Rows of the operation tables are public by being there, so this list is made and not written.
__all__ = sorted(
    {n for n in globals() if not n.startswith("_") and n not in _ROOMS}
    | {*_LATER, "__array_api_version__", "__version__"}
)


def __getattr__(name: str) -> object:
    """What is loaded when it is first used: a page that only runs models does not wait for training."""
    if name not in _LATER:
        raise AttributeError(f"module 'nearfield' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LATER[name], __name__)
    found = globals()[name] = module if _LATER[name] == f".{name}" else getattr(module, name)
    return found
