"""What Python costs: tracing an operation, a compiled step's call, and compiling a model's training step.

    python -m benchmarks.python_cost [--rounds 40] [--out file.json]

Natively, and functions and steps in Pyodide too. Beside each round a loop of plain Python is timed. A figure is the
median of the rounds' times in units of that loop, times the loop at its fastest in all of the run: what slows a core
down for a while slows both, and falls out. Native clocks count the time of this thread alone.
"""

import argparse
import functools
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import nearfield as nf
from nearfield import nn, runtime
from nearfield.compiler.build import build, build_steady

from .measure import processor
from .models import MobileNetV2
from .pages import Site, chromium, folders
from .python_rows import Clock, Rows, function_rows, step_rows, traced_row, training_step
from .workloads import WORKLOADS

HERE = Path(__file__).resolve().parent
PYODIDE = HERE.parent / ".cache" / "pyodide" / "node_modules" / "pyodide"  # as for the tests
MODELS = ("mobilenet_v2", "resnet50", "bert_mini", "minilm_l6", "gpt2_decode")
IN_PAGE = """
import json
import nearfield as nf
from python_rows import Clock, function_rows, step_rows
clock = Clock({rounds})
with nf.use("wasm"):
    found = {{"tracing": function_rows(clock, 100), "steps": step_rows(clock)}}
json.dumps([found, clock.fastest])
"""


def model_rows(clock: Clock) -> Rows:
    """Whole models, forward."""
    found: Rows = {}
    for name in MODELS:
        job = WORKLOADS[name].make()
        inputs = [nf.asarray(value) for value in job.inputs.values()]
        found[WORKLOADS[name].title] = traced_row(clock, functools.partial(job.function, *inputs), 1)
    return found


def forget() -> None:
    """Everything that was remembered of earlier compilations."""
    for found in gc.get_objects():
        if isinstance(found, functools._lru_cache_wrapper) and str(found.__module__).startswith("nearfield"):
            found.cache_clear()
    runtime.forget_programs()
    gc.collect()


def compile_rows(clock: Clock) -> Rows:
    """From the call of MobileNetV2's training step to its Program: traced, and compiled for a device."""
    model, x, y = MobileNetV2(), nf.zeros((1, 224, 224, 3)), nf.zeros((1,), dtype="int32")
    found: Rows = {}
    for device in ("wasm", "webgpu"):
        with nf.use(device) as used:
            target = runtime.target_of(used)

            def compiled(target: Any = target) -> None:
                forget()
                step = training_step(model, lambda x, y: nf.mean(nn.losses.cross_entropy(model(x), y)))
                recording, _ = step.recorded(x, y)
                kept = frozenset(recording.first + n for n in recording.changed)
                steady = recording.steady()
                if steady:
                    build_steady(recording.graph, target, kept, steady)
                else:
                    build(recording.graph, target, kept)

            found[device] = {"time": clock.measure(compiled, 1, 5)}
    return found


def native(rounds: int) -> dict[str, Rows]:
    """All parts, here."""
    clock = Clock(rounds)
    with nf.use("wasm"):
        found = {
            "tracing": function_rows(clock) | model_rows(clock), "steps": step_rows(clock),
            "compile": compile_rows(clock),
        }  # fmt: skip
    return in_microseconds(found, clock.fastest)


def in_pyodide(rounds: int) -> dict[str, Rows]:
    """Functions and steps, in a page."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*command, "-w", folder, str(HERE.parent)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        served = folders() | {"/pyodide/": PYODIDE, "/wheel/": Path(folder)}
        with Site(served) as site, chromium(playwright) as browser:
            page = browser.new_page()
            page.goto(f"{site.url}/web/pyodide.html")
            page.wait_for_function("window.run !== undefined")
            module = (HERE / "python_rows.py").read_text(encoding="utf-8")
            values = [f"/wheel/{wheel.name}", module, IN_PAGE.format(rounds=rounds)]
            found, fastest = json.loads(page.evaluate("values => run(...values)", values))
    return in_microseconds(found, fastest)


def in_microseconds(found: dict[str, Rows], loop: float) -> dict[str, Rows]:
    """Times that were in units of the loop."""
    for row in (row for rows in found.values() for row in rows.values()):
        row["us"] = row.pop("time") * loop / 1e3
    return found


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/python.json"))
    options = parser.parse_args()
    os.environ["NEARFIELD_CACHE"] = "off"
    data: dict[str, Any] = {"machine": {"python": platform.python_version(), "processor": processor()}}
    for place, measure in (("native", native), ("pyodide", in_pyodide)):
        data[place] = measure(options.rounds)
        for part, rows in data[place].items():
            for title, row in rows.items():
                each = f"{row['us'] / row['operations']:6.2f} µs an operation" if "operations" in row else ""
                print(f"{place:8} {part:8} {title:40} {row['us']:12.2f} µs  {each}", flush=True)
    options.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
