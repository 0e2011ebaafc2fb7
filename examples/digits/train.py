"""Train a small convolutional network to read digits: as it is in Python and in a web page (Pyodide), on every device.

    python train.py digits.bin          on the best device; `python demo.py --data digits.bin` writes the file

The file holds 65 bytes for each example: 8 × 8 intensities from 0 to 16, row by row, and the digit.
"""

import sys
from pathlib import Path

import nearfield as nf
from nearfield import nn, optim
from nearfield.data import Dataset
from nearfield.train import Chart, evaluate

EXAMPLE = 8 * 8 + 1
HELD_OUT = 360  # examples at the end of the file, for measuring


class Digits(nn.Module):
    """What network there is: intensities in, ten logits out."""

    def __init__(self) -> None:
        self.conv1 = nn.Conv2d(1, 8, 3, padding="same")
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding="same")
        self.out = nn.Linear(4 * 4 * 16, 10)

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        """x[n, 8, 8, 1] from 0 to 16 -> [n, 10]"""
        x = nn.silu(self.conv1(x / 16))  # smooth: devices round differently, and a kink would make that grow
        x = nn.silu(self.conv2(x))
        return self.out(nf.reshape(x, (x.shape[0], -1)))


def read(data: bytes) -> tuple[Dataset, Dataset]:
    """The examples for training and those for measuring, from the bytes of a file."""
    n = len(data) // EXAMPLE
    images = b"".join(data[EXAMPLE * i : EXAMPLE * i + 64] for i in range(n))
    x = nf.astype(nf.reshape(nf.asarray(images), (n, 8, 8, 1)), nf.float32)
    y = nf.astype(nf.asarray(data[64::EXAMPLE]), nf.int32)
    cut = n - HELD_OUT
    return Dataset(x[:cut], y[:cut]), Dataset(x[cut:], y[cut:])


def train(
    examples: Dataset, *, epochs: int = 10, batch_size: int = 128, rate: float = 3e-2, steps: int | None = None
) -> tuple[Digits, list[float]]:
    """The trained network, and the loss of every step; `steps` ends it early."""
    nf.random.seed(1)
    falling = optim.cosine(rate, epochs * examples.count(batch_size, drop_last=True))
    model, optimizer = Digits(), optim.Adam(falling)
    optimizer.init(model)

    def loss(x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        return nf.mean(nn.losses.cross_entropy(model(x), y))

    loss_and_gradients = nn.value_and_grad(model, loss)

    @nf.jit
    def step(x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
        value, gradients = loss_and_gradients(x, y)
        optimizer.update(model, gradients)
        return value

    losses: list[nf.Tensor] = []
    for epoch in range(epochs):
        for x, y in examples.batches(batch_size, shuffle=True, epoch=epoch, drop_last=True):
            if steps is None or len(losses) < steps:
                losses.append(step(x, y))
    return model, [value.item() for value in losses]


def main(data: bytes, *, epochs: int = 10, steps: int | None = None) -> tuple[list[float], float]:
    """Train, print the learning curve, measure: the loss of every step, and the accuracy on examples never seen."""
    examples, held_out = read(data)
    model, losses = train(examples, epochs=epochs, steps=steps)
    print(Chart({"loss": {"training": losses}}))
    accuracy = evaluate(model, held_out, metrics=["accuracy"], batch_size=HELD_OUT)["accuracy"]
    print(f"{accuracy:.1%} of {len(held_out)} held-out digits are read right.")
    return losses, accuracy


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_bytes())
