"""Initial values of parameters.

Each takes a shape and a generator; without one, the default generator of `nf.random`. The last axis counts the
outputs and the others the inputs, as in weight[n_in, n_out] and weight[kh, kw, ci, co].
"""

from math import prod, sqrt

from .. import random
from ..tensor import Tensor, call

__all__ = [
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "uniform",
]

Shape = tuple[int, ...]
Generator = random.Generator | None


def uniform(shape: Shape, limit: float, *, generator: Generator = None) -> Tensor:
    """Uniform in -limit … limit."""
    return (generator or random.default_generator()).uniform(shape, low=-limit, high=limit)


def normal(shape: Shape, deviation: float = 1.0, *, generator: Generator = None) -> Tensor:
    """Normal with mean 0 and this standard deviation."""
    return (generator or random.default_generator()).normal(shape) * deviation


def _fans(shape: Shape) -> tuple[int, int]:
    """The number of inputs of one output, and of outputs that one input reaches."""
    window = prod(shape[:-2])
    return (window * shape[-2], window * shape[-1]) if len(shape) > 1 else (shape[0], shape[0])


def lecun_uniform(shape: Shape, *, generator: Generator = None) -> Tensor:
    """Uniform in ±1/√n_in: outputs stay about as small as inputs. What Linear and the convolutions use.

    source  LeCun et al. 1998, "Efficient BackProp", section 4.6 (there with √3)
    """
    return uniform(shape, 1 / sqrt(max(_fans(shape)[0], 1)), generator=generator)


def lecun_normal(shape: Shape, *, generator: Generator = None) -> Tensor:
    """Normal with variance 1 / n_in.

    source  LeCun et al. 1998, "Efficient BackProp", section 4.6
    """
    return normal(shape, 1 / sqrt(max(_fans(shape)[0], 1)), generator=generator)


def glorot_uniform(shape: Shape, *, generator: Generator = None) -> Tensor:
    """Uniform in ±√(6 / (n_in + n_out)), for tanh and sigmoid.

    source  Glorot & Bengio 2010, equation 16
    """
    return uniform(shape, sqrt(6 / max(sum(_fans(shape)), 1)), generator=generator)


def glorot_normal(shape: Shape, *, generator: Generator = None) -> Tensor:
    """Normal with variance 2 / (n_in + n_out), for tanh and sigmoid.

    source  Glorot & Bengio 2010, equation 12
    """
    return normal(shape, sqrt(2 / max(sum(_fans(shape)), 1)), generator=generator)


def he_uniform(shape: Shape, *, generator: Generator = None) -> Tensor:
    """Uniform in ±√(6 / n_in), for relu.

    source  He et al. 2015, arXiv:1502.01852, equation 10
    """
    return uniform(shape, sqrt(6 / max(_fans(shape)[0], 1)), generator=generator)


def he_normal(shape: Shape, *, generator: Generator = None) -> Tensor:
    """Normal with variance 2 / n_in, for relu.

    source  He et al. 2015, arXiv:1502.01852, equation 10
    """
    return normal(shape, sqrt(2 / max(_fans(shape)[0], 1)), generator=generator)


def orthogonal(shape: Shape, gain: float = 1.0, *, generator: Generator = None) -> Tensor:
    """A matrix with orthonormal rows or columns (whichever are fewer), times gain; leading axes count as rows.

    source  Saxe et al. 2013, arXiv:1312.6120; Newton-Schulz iteration, Björck & Bowie 1971
    """
    rows, columns = prod(shape[:-1]), shape[-1]
    q = normal((max(rows, columns), min(rows, columns)), generator=generator)
    q = q / call("sqrt", call("sum", q * q))  # singular values are now at most 1
    for _ in range(40):
        q = q * 1.5 - q @ (call("matrix_transpose", q) @ q) * 0.5
    q = q if rows >= columns else call("matrix_transpose", q)
    return call("reshape", q, shape) * gain
