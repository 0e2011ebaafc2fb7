"""Quantised weights: whole numbers of 8 or 4 bits, and for each group of neighbours the real number they are times.

Everything here is composed of other operations, so it has a meaning on every device. Compilers widen the numbers where
a product reads them: in memory they stay as small as they are.
"""

from typing import Any

from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops.arithmetic import abs as magnitude
from ..ops.arithmetic import bitwise_left_shift, bitwise_or, bitwise_right_shift, minimum, where
from ..ops.arithmetic import round as rounded
from ..tensor import Tensor, apply
from .conversion import asarray, astype
from .creation import arange
from .einsum import einsum
from .elementwise import clip
from .manipulation import expand_dims, reshape
from .statistics import max as largest
from .statistics import sum as total

__all__ = ["dequantize", "quantize", "quantized_matmul"]

GROUPS = (32, 64, 128)
PAIRED = 8  # numbers of 4 bits that four bytes hold: the first four in their low halves, the others in the high ones
FEW = 8  # rows that are multiplied as whole numbers, group by group
LARGEST = 65504.0  # of float16


def quantize(w: Any, /, *, bits: int = 8, group_size: int = 32) -> tuple[Tensor, Tensor]:
    """Whole numbers and scales, so that w is nearly number · scale: off by half a scale at most.

    w           reals [..., n], n a multiple of group_size
    bits        8 for numbers from -127 to 127, 4 for -7 to 7
    group_size  32, 64 or 128 neighbours along the last axis, which have one scale: (the largest magnitude) / 127 or 7
    returns     (numbers, int8 [..., n · bits / 8]; scales, float16 [..., n / group_size]). Of 4 bits, byte j of four
                has number j of eight in its low half, and number j + 4 in its high half, as two's complement
    errors      DTypeError if w is not real, ShapeError if n is no multiple; ArgumentError for other bits and groups

    Magnitudes above 65504 · 127 (or · 7) are limited to that; NaN makes NaN of its group. Scales are 2⁻²⁴ at the least,
    so numbers below 6e-8 · 127 (or · 7) have fewer bits.
    """
    w = asarray(w)
    check_setting("quantize", bits, group_size)
    if w.dtype.kind != "f":
        raise DTypeError(f"quantize: w has dtype {w.dtype.name}; accepted are reals. Convert with nf.astype.")
    if not w.ndim or w.shape[-1] % group_size:
        raise ShapeError(
            f"quantize: w has shape {w.shape}; accepted is a last axis that is a multiple of group_size, {group_size}. "
            f"Pad it, or give another group_size: {', '.join(map(str, GROUPS))}."
        )
    *outer, n = w.shape
    most = 2 ** (bits - 1) - 1
    groups = reshape(astype(w, "float32"), (*outer, n // group_size, group_size))
    exact = _largest(groups) / most
    above = minimum(exact * (1 + 2**-10) + 2**-24, LARGEST)  # a scale rounded down would cut the largest number
    scale = astype(where(exact > 0, above, exact), "float16")
    numbers = reshape(_numbers(groups, astype(scale, "float32"), most), (*outer, n))
    return (_paired(numbers) if bits == 4 else numbers), reshape(scale, (*outer, n // group_size))


def dequantize(numbers: Any, scale: Any, /, *, bits: int = 8) -> Tensor:
    """The reals that `quantize` has made numbers and scales of, nearly: float32 [..., n].

    numbers   int8 [..., n · bits / 8]
    scale     real [..., n / group_size]
    errors    ShapeError if the two do not fit each other
    """
    numbers, scale = asarray(numbers), asarray(scale)
    whole = _unpaired(_checked("dequantize", numbers, scale, bits), bits)
    *outer, groups = scale.shape
    n = whole.shape[-1]
    wide = astype(reshape(whole, (*outer, groups, n // max(groups, 1))), "float32")
    return reshape(wide * astype(expand_dims(scale, axis=-1), "float32"), (*outer, n))


def quantized_matmul(x: Any, numbers: Any, scale: Any, /, *, bits: int = 8, activations: str | None = None) -> Tensor:
    """x @ dequantize(numbers, scale)ᵀ, without those reals in memory.

    x            real [..., n]
    numbers      int8 [m, n · bits / 8], as `quantize` gives them
    scale        real [m, n / group_size]
    activations  None, or "int8": x is rounded too, to 8 bits with a scale for each group of a row (off by 0.4 %), and
                 then whole numbers are multiplied, which is faster for few rows. No gradient passes through that
    returns      [..., m], of x's dtype
    """
    x, numbers, scale = asarray(x), asarray(numbers), asarray(scale)
    numbers = _checked("quantized_matmul", numbers, scale, bits)
    if numbers.ndim != 2:
        raise ShapeError(f"quantized_matmul: numbers have shape {numbers.shape}; accepted are two axes, [m, bytes].")
    if activations not in (None, "int8"):
        raise ArgumentError(f"quantized_matmul: activations is {activations!r}; accepted are None and 'int8'.")
    if x.dtype.kind != "f" or x.shape[-1:] != (numbers.shape[-1] * 8 // bits,):
        raise ShapeError(
            f"quantized_matmul: x is {x.dtype.name}{list(x.shape)}, for numbers {list(numbers.shape)} of {bits} bits; "
            f"accepted are reals [..., {numbers.shape[-1] * 8 // bits}]."
        )
    wide = astype(x, "float32")
    if activations is None:
        y = einsum("...k,nk->...n", wide, dequantize(numbers, scale, bits=bits))
    else:
        y = _rounded_product(apply("stop_gradient", wide), numbers, scale, bits)
    return astype(y, x.dtype)


def check_setting(who: str, bits: Any, group_size: Any) -> None:
    """ArgumentError unless there are numbers of so many bits, in groups of this size."""
    if bits not in (4, 8):
        raise ArgumentError(f"{who}: bits is {bits!r}; accepted are 4 and 8.")
    if group_size not in GROUPS:
        raise ArgumentError(f"{who}: group_size is {group_size!r}; accepted are {', '.join(map(str, GROUPS))}.")


def _checked(who: str, numbers: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The numbers, if they fit the scales."""
    check_setting(who, bits, GROUPS[0])
    if numbers.dtype.name != "int8" or scale.dtype.kind != "f":
        raise DTypeError(
            f"{who}: numbers are {numbers.dtype.name} and scales {scale.dtype.name}; accepted are int8 and a real "
            "type, as nf.quantize gives them."
        )
    sizes = [size * bits // 8 for size in GROUPS]
    fits = numbers.ndim == scale.ndim > 0 and numbers.shape[:-1] == scale.shape[:-1]
    if not fits or numbers.shape[-1] not in [scale.shape[-1] * size for size in sizes]:
        raise ShapeError(
            f"{who}: numbers have shape {numbers.shape} and scales {scale.shape}; accepted is one scale for "
            f"{', '.join(map(str, sizes))} bytes along the last axis (numbers of {bits} bits). Are bits as they were?"
        )
    return numbers


def _largest(groups: Tensor) -> Tensor:
    """The largest magnitude of each group: [..., groups, 1]"""
    return largest(magnitude(groups), axis=-1, keepdims=True)


def _numbers(groups: Tensor, scale: Tensor, most: int) -> Tensor:
    """The nearest multiples of the scales, as int8; of a group of zeros, zeros."""
    ratio = groups / where(scale > 0, scale, 1.0)
    return astype(clip(rounded(ratio), -most, most), "int8")


def _paired(numbers: Tensor) -> Tensor:
    """Numbers of 4 bits, two in a byte: [..., n] -> [..., n / 2]"""
    *outer, n = numbers.shape
    halves = reshape(numbers, (*outer, n // PAIRED, 2, PAIRED // 2))
    low, high = (halves[..., half, :] for half in range(2))
    return reshape(bitwise_or(low & 15, bitwise_left_shift(high, 4)), (*outer, n // 2))


def _unpaired(packed: Tensor, bits: int) -> Tensor:
    """The numbers, int32 [..., n]: each half of a byte is moved to the top, and from there down, with its sign."""
    wide = astype(packed, "int32")
    if bits == 8:
        return wide
    *outer, n = packed.shape
    quads = reshape(wide, (*outer, 2 * n // PAIRED, 1, PAIRED // 2))
    up = reshape(2**28 - arange(2, dtype="int32") * (2**28 - 2**24), (2, 1))
    return reshape(bitwise_right_shift(quads * up, 28), (*outer, 2 * n))


def _rounded_product(x: Tensor, numbers: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The product of x, rounded to 8 bits in groups, and the weights.

    Few rows: whole numbers, summed exactly in each group, then scaled and summed. More rows: the same rounded values
    as reals, since sums of all groups would take more memory than the weights.
    """
    groups = scale.shape[-1]
    *outer, n = x.shape
    x = reshape(x, (*outer, groups, n // groups))
    steps = _largest(x) / 127
    whole_x = _numbers(x, steps, 127)
    rows = x.size // max(n, 1)
    if rows > FEW:
        wide = reshape(astype(whole_x, "float32") * steps, (*outer, n))
        return einsum("...k,nk->...n", wide, dequantize(numbers, scale, bits=bits))
    whole = reshape(_unpaired(numbers, bits), (-1, groups, n // groups))
    sums = einsum("...gk,ngk->...ng", astype(whole_x, "int32"), whole)
    steps = reshape(steps, (*outer, 1, groups))
    return total(astype(sums, "float32") * (steps * astype(scale, "float32")), axis=-1)
