"""The command line: `nearfield info | run | bench | doctor`, also as `python -m nearfield`."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, runtime
from .device import available, open_device
from .errors import DeviceError, NearfieldError
from .functional.conversion import asarray
from .functional.statistics import sum as total
from .program.cache import cache

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did what was asked, 1 if not, 2 if it was not understood."""
    options = _parser().parse_args(words)
    try:
        return int(options.command(options))
    except (NearfieldError, KeyError, OSError, ValueError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"nearfield {options.name}: {text}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nearfield", description="Machine learning where the user is.")
    parser.add_argument("--version", action="version", version=f"nearfield {__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="command")

    def add(name: str, command: Any, doc: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=doc, description=doc)
        made.set_defaults(command=command)
        return made

    add("info", _info, "What is installed, the devices that are here, and where files are kept.")
    run = add("run", _run, "Run an exported model once and print its outputs.")
    run.add_argument("model", help="a folder that nf.export wrote")
    run.add_argument("inputs", nargs="*", help="name=file.npy or name=number; those not given are made up")
    run.add_argument("--device", help="webgpu or wasm; otherwise the one that nearfield chooses")
    run.add_argument("--save", metavar="FOLDER", help="write each output there, as name.npy")
    bench = add("bench", _bench, "Time an exported model on the devices that are here.")
    bench.add_argument("model", help="a folder that nf.export wrote")
    bench.add_argument("--device", action="append", help="only this one; may be given again")
    bench.add_argument("--rounds", type=_count, default=15, help="how many times are taken (15)")
    bench.add_argument("--json", metavar="FILE", help="write the figures there, too")
    add("doctor", _doctor, "Compute something small on each device, and say what is wrong and what to do.")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted are 1 to 10000")
    return int(text)


# -- info --------------------------------------------------------------------------------------------------------------


def _kept() -> str:
    folder = cache().folder
    if folder is None:
        return "off"
    files = list(folder.glob("*.*")) if folder.is_dir() else []
    return f"{folder}  {len(files)} files, {sum(f.stat().st_size for f in files):,} bytes"


def _info(options: argparse.Namespace) -> int:
    print(f"nearfield  {__version__}\npython     {platform.python_version()} on {platform.platform()}")
    print(f"cache      {_kept()}")
    print(f"chosen     {runtime.current_device().name}")
    for found in available():
        print(f"\n{open_device(found.name)}" if not found.reason else f"\n{found.name}: missing: {found.reason}")
    return 0


# -- run ---------------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    import numpy

    from .deploy.measure import examples
    from .deploy.model import load

    if options.device:
        runtime.use(options.device)
    model = load(options.model)
    known = {value.name: x for value, x in zip(model.inputs, examples(model), strict=True)}
    given = dict(_given(word) for word in options.inputs)
    outputs = model.run(known | given)
    for name in known.keys() - given.keys():
        print(f"{name}: made up", file=sys.stderr)
    for name, y in outputs.items():
        print(f"{name}  {y.dtype}{list(y.shape)}\n{numpy.array2string(y, threshold=64, precision=5)}")
        if model.labels and y.shape and y.shape[-1] == len(model.labels):
            _print_best(y.reshape(-1, len(model.labels))[0], model.labels)
    if options.save:
        folder = Path(options.save)
        folder.mkdir(parents=True, exist_ok=True)
        for name, y in outputs.items():
            numpy.save(folder / f"{Path(name).name}.npy", y)
    return 0


def _given(word: str) -> tuple[str, Any]:
    import numpy

    name, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"{word!r} is no input; accepted are name=file.npy and name=number.")
    try:
        if text.endswith(".npy"):
            return name, numpy.load(text, allow_pickle=False)
        return name, numpy.asarray(json.loads(text), "float32" if "." in text else "int32")
    except (ValueError, EOFError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{word!r} is no input: {reason}; accepted are name=file.npy and name=number.") from None


def _print_best(scores: Any, labels: Sequence[str]) -> None:
    for at in scores.argsort()[::-1][:5]:
        print(f"  {scores[at]:10.5f}  {labels[at]}")


# -- bench -------------------------------------------------------------------------------------------------------------


def _bench(options: argparse.Namespace) -> int:
    from .deploy.measure import Measured, measure
    from .deploy.model import load

    model, rows, reasons = load(options.model), list[Measured](), dict[str, str]()
    for name in options.device or [found.name for found in available()]:
        try:
            rows.append(measure(model, name, options.rounds))
        except DeviceError as error:
            reasons[name] = str(error)
    print(f"{'device':8} {'median ms':>10} {'spread':>7} {'first ms':>9} {'memory MB':>10}  what")
    for row in rows:
        times = f"{row.median * 1e3:10.3f} {row.spread:7.1%} {row.first * 1e3:9.1f} {row.memory / 1e6:10.1f}"
        print(f"{row.device:8} {times}  {row.description}")
    for name, reason in reasons.items():
        print(f"{name:8} {'missing':>10}  {reason}")
    for row in rows:
        print(f"\n{row.device}: the kernels that take longest, {row.told}")
        for kernel, share in row.shares[:8]:
            print(f"  {share:6.1%}  {kernel}")
    if not rows:
        return 1
    print(f"\nfastest: {min(rows, key=lambda row: row.median).device}; chosen here: {model.device.name}")
    if options.json:
        found = [{key: getattr(row, key) for key in row.__slots__} for row in rows]
        Path(options.json).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


# -- doctor ------------------------------------------------------------------------------------------------------------


def _doctor(options: argparse.Namespace) -> int:
    checks = [("python", _check_python), ("cache", _check_cache)]
    checks += [(found.name, lambda name=found.name: _check_device(name)) for found in available()]  # type: ignore[misc]
    wrong = 0
    for name, check in checks:
        try:
            print(f"ok     {name:8} {check()}")
        except (NearfieldError, OSError) as error:
            print(f"wrong  {name:8} {error}")
            wrong += 1
    return 1 if wrong else 0


def _check_python() -> str:
    import numpy

    return f"{platform.python_version()}, numpy {numpy.__version__}, nearfield {__version__}"


def _check_cache() -> str:
    kept = cache()
    if os.environ.get("NEARFIELD_CACHE") == "off":
        return "off: each process compiles anew"
    before = kept.folder
    kept.put("check", "doctor", b"1")
    if kept.get("check", "doctor") != b"1":
        raise OSError(f"{before} cannot be written, or others may write it; set NEARFIELD_CACHE to a folder of yours.")
    return _kept()


def _check_device(name: str) -> str:
    with runtime.use(name) as device:
        x = asarray([float(n) for n in range(1000)])
        found = total(x * 2.0 + 1.0).item()
    if found != 1e6:  # each sum on the way is a whole number, and exact
        raise DeviceError(f"computes 1000000 as {found}; install a newer driver, or use another device.")
    return f"{device.description}, computes"


if __name__ == "__main__":
    sys.exit(main())
