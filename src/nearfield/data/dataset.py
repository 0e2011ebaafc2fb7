"""Dataset: arrays with one row per example, and batches of them."""

from collections.abc import Callable, Iterator, Sequence
from math import ceil, prod
from random import Random
from typing import Any

from ..argument import callables, real, whole
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor, apply, call, leaf

__all__ = ["Dataset", "as_dataset", "order"]

Batch = tuple[Tensor, ...]


def order(n: int, seed: int, epoch: int = 0) -> list[int]:
    """The numbers 0 … n - 1 in an order that depends on seed and epoch alone, on every machine."""
    numbers = list(range(n))
    Random(f"nearfield/{seed}/{epoch}").shuffle(numbers)  # noqa: S311 - shuffling, not secrets
    return numbers


class Dataset:
    """Arrays whose first axis counts examples, usually inputs and targets.

    arrays  NumPy arrays (batches are cut out in this process), Tensors (cut out where they are), or nested lists
    errors  ShapeError if the numbers of examples differ

    for x, y in Dataset(images, labels).batches(32, shuffle=True): ...
    """

    def __init__(self, *arrays: Any) -> None:
        self.arrays = tuple(
            a if isinstance(a, Tensor) or hasattr(a, "__array_interface__") else call("asarray", a) for a in arrays
        )
        self.transforms: tuple[Callable[..., Any], ...] = ()
        lengths = [a.shape[0] if a.shape else -1 for a in self.arrays]
        if not lengths or len(set(lengths)) > 1 or lengths[0] < 0:
            shapes = ", ".join(str(tuple(a.shape)) for a in self.arrays) or "no array"
            raise ShapeError(
                f"Dataset: the first axes of {shapes} count different numbers of examples; they must be equal."
            )

    def __len__(self) -> int:
        return int(self.arrays[0].shape[0])

    def __getitem__(self, rows: int | slice | Sequence[int]) -> Batch:
        """These rows of every array, as Tensors; of a number, one row without the axis of examples."""
        if isinstance(rows, int):
            return tuple(call("reshape", t, t.shape[1:]) for t in self[[rows % len(self)]])
        chosen = range(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        batch = tuple(_rows(a, chosen) for a in self.arrays)
        for transform in self.transforms:
            made = transform(*batch)
            batch = made if isinstance(made, tuple) else (made,)
        return batch

    def batches(
        self,
        size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        drop_last: bool = False,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """The examples, `size` at a time.

        shuffle    in the order that seed and epoch decide, otherwise from the first to the last
        drop_last  leave out the last batch if it is smaller
        skip       leave out so many batches at the start
        """
        whole("Dataset.batches", size=size)
        rows: Sequence[int] = order(len(self), seed, epoch) if shuffle else range(len(self))
        for n in range(skip, self.count(size, drop_last=drop_last)):
            yield self[rows[n * size : (n + 1) * size]]

    def count(self, size: int = 32, *, drop_last: bool = False) -> int:
        """The number of batches."""
        whole("Dataset.count", size=size)
        return len(self) // size if drop_last else ceil(len(self) / size)

    def map(self, function: Callable[..., Any]) -> "Dataset":
        """The same examples, with each batch passed through a function: noise, flips, casts."""
        callables("Dataset.map", "a function of a batch's arrays", function=function)
        made = Dataset(*self.arrays)
        made.transforms = (*self.transforms, function)
        return made

    def split(self, fraction: float, *, seed: int = 0) -> "tuple[Dataset, Dataset]":
        """Two parts without a common example, in shuffled order; the second has this fraction of the examples."""
        real("Dataset.split", fraction=fraction)
        if not 0 < fraction < 1:
            raise ArgumentError(f"Dataset.split: fraction is {fraction}; accepted are numbers between 0 and 1.")
        rows = order(len(self), seed, -1)
        cut = len(rows) - max(1, round(len(rows) * fraction))
        parts = []
        for chosen in (rows[:cut], rows[cut:]):
            part = Dataset(*(_kept(a, chosen) for a in self.arrays))
            part.transforms = self.transforms
            parts.append(part)
        return parts[0], parts[1]

    def __repr__(self) -> str:
        about = ", ".join(f"{getattr(a.dtype, 'name', a.dtype)}{list(a.shape[1:])}" for a in self.arrays)
        return f"Dataset({len(self):,} examples of {about})"


def _kept(array: Any, rows: Sequence[int]) -> Any:
    return _rows(array, rows) if isinstance(array, Tensor) else array[list(rows)]


def _rows(array: Any, rows: Sequence[int]) -> Tensor:
    if not isinstance(array, Tensor):
        chosen = (
            array[rows.start : rows.stop : rows.step]
            if isinstance(rows, range) and rows.stop >= 0
            else array[list(rows)]
        )
        return call("asarray", chosen)
    shape = (len(rows), *array.shape[1:])
    if array.device == "host":
        step = prod(array.shape[1:]) * array.dtype.itemsize
        view = memoryview(array._bytes())
        return leaf(b"".join([view[i * step : (i + 1) * step] for i in rows]), shape, array.dtype)
    return apply("take", array, call("asarray", list(rows), dtype="int32"), axis=0)


def as_dataset(data: Any) -> Dataset | None:
    """The Dataset that tuples of arrays stand for; None for an iterable of batches."""
    if isinstance(data, Dataset):
        return data
    arrays = (
        isinstance(data, (tuple, list))
        and len(data) > 0
        and all(hasattr(a, "shape") or isinstance(a, list) for a in data)
    )
    return Dataset(*data) if arrays else None
