"""Read handwritten digits in a web page: train a network, export it, serve a page that needs no Python.

    python demo.py --serve      train, write the page to examples/digits/site, and serve it on this machine
    python demo.py --check      train, and let a headless browser draw digits on the page
    python demo.py --data FILE  write the examples as train.py reads them

The examples are scikit-learn's (UCI ML hand-written digits: 1797 images of 8 × 8 pixels, from 43 people).
"""

import argparse
import sys
from pathlib import Path

import nearfield as nf
from nearfield import nn, optim
from nearfield.data import Dataset
from nearfield.deploy import Server, Spec, copy_page, export
from nearfield.train import ConfusionTable, confusion_matrix, evaluate, fit, predict
from reader import CANVAS, Reader, varied
from train import Digits, read

HERE = Path(__file__).resolve().parent
SITE = HERE / "site"
LEAST_ACCURACY = 0.97


def digits() -> bytes:
    """The examples in an order that mixes the writers, 65 bytes each."""
    import numpy
    from sklearn.datasets import load_digits

    found = load_digits()
    rows = numpy.concatenate([found.data, found.target[:, None]], axis=1).astype("uint8")
    return numpy.random.RandomState(0).permutation(rows).tobytes()


def trained(data: bytes) -> tuple[Digits, Dataset]:
    """A network that has learned from the examples, and the examples that it has not seen."""
    examples, held_out = read(data)
    nf.random.seed(1)
    network, epochs = Digits(), 40
    rate = optim.cosine(1e-2, epochs * examples.count(64))
    history = fit(
        network, examples.map(varied), loss=nn.losses.cross_entropy, optimizer=optim.AdamW(rate), epochs=epochs,
        batch_size=64, validation=held_out, metrics=["accuracy"],
    )  # fmt: skip
    print(history)
    return network, held_out


def measured(network: Digits, held_out: Dataset) -> float:
    """The accuracy on examples that were not used for training; prints which digits are taken for which."""
    images, labels = held_out.arrays
    print(ConfusionTable(confusion_matrix(predict(network, images), labels)))
    accuracy = evaluate(network, held_out, metrics=["accuracy"])["accuracy"]
    print(f"{accuracy:.1%} of {len(held_out)} held-out digits are read right.")
    return accuracy


def publish(network: Digits) -> None:
    """The site: static files, for any web server."""
    drawing = Spec((1, CANVAS, CANVAS, 1))
    about = {"description": "Reads one handwritten digit", "parameters": network.num_parameters}
    copy_page(HERE / "page", SITE)
    export(Reader(network), SITE / "model", inputs={"drawing": drawing}, labels=list("0123456789"), metadata=about)
    sizes = {p.relative_to(SITE).as_posix(): p.stat().st_size for p in sorted(SITE.rglob("*")) if p.is_file()}
    print("\n".join(f"{size:>9,} bytes  {name}" for name, size in sizes.items()))
    print(f"{sum(sizes.values()):>9,} bytes  in all: {SITE}")


def main() -> int:
    """0, or 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(description="Digits in a web page")
    parser.add_argument("--serve", action="store_true", help="serve the page on this machine until Ctrl-C")
    parser.add_argument("--check", action="store_true", help="let a headless browser draw on the page, and compare")
    parser.add_argument("--data", type=Path, metavar="FILE", help="only write the examples")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args()
    data = digits()
    if asked.data:
        asked.data.write_bytes(data)
        return 0
    if asked.check:
        from check import has_browser

        if not has_browser():
            return 1
    network, held_out = trained(data)
    accuracy = measured(network, held_out)
    publish(network)
    if accuracy < LEAST_ACCURACY:
        print(f"That is less than {LEAST_ACCURACY:.0%}.", file=sys.stderr)
        return 1
    if asked.check:
        from check import check

        return check(SITE, network, held_out)
    if asked.serve:
        with Server(SITE, asked.port) as server:
            print(f"\nDraw a digit: {server.url}    (Ctrl-C ends it)", flush=True)
            server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
