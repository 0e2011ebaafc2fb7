"""Nearfield: machine learning that runs, is retrained and is written where the user is."""

from .functional.conversion import *  # noqa: F403
from .functional.creation import *  # noqa: F403
from .functional.indexing import *  # noqa: F403
from .functional.joining import *  # noqa: F403
from .functional.manipulation import *  # noqa: F403
from .functional.scan import *  # noqa: F403
from .functional.statistics import *  # noqa: F403
from .grad import grad, stop_gradient, value_and_grad, vjp
from .ops import contraction, indexing, movement, reduce, source
from .ops.arithmetic import *  # noqa: F403
from .runtime import devices, init, memory_stats, synchronize, to_device, use
from .tensor import Tensor
