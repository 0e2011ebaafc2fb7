"""From a drawing to the probabilities of ten digits: what the page runs, Tensor functions in one exported model."""

import nearfield as nf
from nearfield import nn
from train import Digits

CANVAS = 64  # pixels of the page's drawing, each way
SMALLEST = 24  # a drawing smaller than this is not made larger


class Reader(nn.Module):
    """A drawing, 0 where the paper is empty and 1 where there is ink, as a Digits network likes it; what that says."""

    def __init__(self, network: Digits) -> None:
        self.network = network

    def __call__(self, drawing: nf.Tensor) -> dict[str, nf.Tensor]:
        """drawing[1, 64, 64, 1] -> probabilities[1, 10], and what the network sees[1, 8, 8, 1]"""
        seen = fitted(nf.reshape(drawing, (CANVAS, CANVAS)))
        x = nf.reshape(seen, (1, 8, 8, 1))
        return {"probabilities": nn.softmax(self.network(x)), "seen": x / 16}


def fitted(ink: nf.Tensor) -> nf.Tensor:
    """The drawing, moved to the middle and scaled to fill 8 × 8 cells; each holds its share of ink, from 0 to 16.

    The writers of the training examples filled a box of 32 × 32 pixels, of which 4 × 4 are one cell.
    """
    left, right = _extent(nf.max(ink, axis=0))
    top, bottom = _extent(nf.max(ink, axis=1))
    size = nf.maximum(nf.maximum(right - left, bottom - top), SMALLEST) / 8
    return _cells((top + bottom) / 2, size) @ ink @ nf.matrix_transpose(_cells((left + right) / 2, size)) * 16


def _extent(line: nf.Tensor) -> tuple[nf.Tensor, nf.Tensor]:
    """Where the first inked pixel of a line begins, and where the last ends."""
    place = nf.arange(CANVAS, dtype=nf.float32)
    return nf.min(nf.where(line > 0.25, place, CANVAS)), nf.max(nf.where(line > 0.25, place + 1, 0))


def _cells(centre: nf.Tensor, size: nf.Tensor) -> nf.Tensor:
    """[8, 64]: how much of each cell each pixel covers; the cells lie side by side, four on each side of the centre."""
    pixel = nf.arange(CANVAS, dtype=nf.float32)
    start = nf.reshape(centre + (nf.arange(8, dtype=nf.float32) - 4) * size, (8, 1))
    return nf.maximum(nf.minimum(pixel + 1, start + size) - nf.maximum(pixel, start), 0) / size


def varied(x: nf.Tensor, y: nf.Tensor) -> tuple[nf.Tensor, nf.Tensor]:
    """Examples as other hands would write them: moved, scaled, slanted, with other pens."""
    n = x.shape[0]
    draw = nf.random.default_generator()
    place = nf.arange(8, dtype=nf.float32) - 3.5

    def one(low: float, high: float) -> nf.Tensor:
        return draw.uniform((n, 1, 1), low, high)

    rows = place * one(0.85, 1.2) + one(-0.7, 0.7)  # [n, 1, 8]: which row of the example each new row shows
    columns = place * one(0.85, 1.2) + one(-0.7, 0.7) + nf.reshape(place, (8, 1)) * one(-0.25, 0.25)  # [n, 8, 8]
    taken = nf.maximum(1 - nf.abs(nf.reshape(rows, (n, 8, 1)) - place), 0) @ nf.reshape(x, (n, 8, 8))
    across = nf.maximum(1 - nf.abs(nf.reshape(columns, (n, 8, 8, 1)) - place), 0)  # [n, row, new column, column]
    moved = nf.sum(across * nf.reshape(taken, (n, 8, 1, 8)), axis=3)
    inked = nf.minimum(nf.maximum(moved * one(0.8, 1.5) - one(0, 2), 0), 16)
    return nf.reshape(inked, x.shape), y
