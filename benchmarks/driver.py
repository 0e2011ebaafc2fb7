"""Nearfield beside its peers: one Chromium, a page or process for each, rounds in turn.

    python -m benchmarks.driver bench [--suite wasm] [--peers a,b] [--workloads x,y] [--rounds 5]
    python -m benchmarks.driver cold  [--suite wasm] [--peers a,b] [--workloads mobilenet_v2] [--rounds 5]
    python -m benchmarks.driver limits               what the machine can do in WebAssembly

Results go into benchmarks/results/SUITE.json, beside those of other workloads and peers that are there; report.py makes
docs/performance.md of them. Peers that are not installed (peers/setup.sh) are left out, and named.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from . import exported
from .measure import MOST_FOREIGN, Calm, go_first, processor, summarised
from .pages import PEERS as INSTALLED
from .pages import PagePeer, Site, chromium, renderers
from .processes import ProcessPeer
from .workloads import WORKLOADS

RESULTS = Path(__file__).resolve().parent / "results"
Handle = PagePeer | ProcessPeer


@dataclass(frozen=True)
class Peer:
    """A library on a backend with so many threads; `cores`: what its page is told that the machine has."""

    library: str
    backend: str
    threads: int
    cores: int

    @property
    def native(self) -> bool:
        """Whether it is a process and not a page."""
        return self.backend == "native"

    @property
    def installed(self) -> bool:
        """Whether what it needs is there."""
        return self.library in ("nearfield", "limits") or (INSTALLED / "models" / "stamp").exists()


def _peers() -> dict[str, Peer]:
    found: dict[str, Peer] = {}
    for threads in (1, 2):
        for library in ("nearfield", "litert", "ort", "tfjs", "jaxjs"):
            # tfjs takes at most half of the machine's cores, whatever it is told
            cores = 2 * threads if library == "tfjs" and threads > 1 else threads
            found[f"{library}-wasm-{threads}"] = Peer(library, "wasm", threads, cores)
        for library in ("onnxruntime", "torch"):
            found[f"{library}-native-{threads}"] = Peer(library, "native", threads, threads)
    found["nearfield-native-2"] = Peer("nearfield", "native", 2, 2)  # as many threads as there are cores
    for library in ("nearfield", "litert", "ort", "tfjs", "jaxjs"):
        found[f"{library}-webgpu"] = Peer(library, "webgpu", 1, 1)
    return found


ALL = _peers()
SUITES: dict[str, list[str]] = {
    "wasm": [name for name, peer in ALL.items() if peer.backend == "wasm"]
    + ["nearfield-native-2", "onnxruntime-native-2", "torch-native-2"],
    "webgpu": [name for name, peer in ALL.items() if peer.backend == "webgpu"],
}


class Stage:
    """Chromium, the server, and the peers that are open."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self.browser, self.site = browser, site
        self.open: dict[str, Handle] = {}

    def start(self, name: str, query: str = "") -> Handle:
        """A peer's page or process."""
        peer = ALL[name]
        if peer.native:
            return ProcessPeer(peer.library, peer.threads)
        return PagePeer(self.browser, self.site, peer.library, peer.backend, peer.threads, peer.cores, query)

    def get(self, name: str) -> Handle:
        """The peer, started if it is not."""
        if name not in self.open:
            self.open[name] = self.start(name)
        return self.open[name]

    def drop(self, name: str) -> None:
        """Close a peer, also one that no longer answers."""
        peer = self.open.pop(name, None)
        if peer is not None:
            _tried(peer.close)


def _tried(action: Callable[..., Any], *values: Any) -> str:
    """Do it; what went wrong, or nothing. A peer may fail in any way, and the others go on."""
    try:
        action(*values)
    except Exception as error:  # noqa: BLE001
        return str(error).split("\n", 1)[0][:300] or type(error).__name__
    return ""


def bench(stage: Stage, names: list[str], workload: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row: peer -> figures, or an error."""
    row: dict[str, Any] = {name: {} for name in names}

    def prepare(name: str) -> None:
        if WORKLOADS[workload].spec.get("own") and ALL[name].library != "nearfield":
            raise NotImplementedError("not offered: only Nearfield has this model")
        peer = stage.get(name)
        row[name]["first"] = peer.prepare(workload)
        if options.first:
            go_first()
        if not is_slow(row[name]):
            peer.run(options.warm, 1, 1000, True)  # the browser's second compiler takes over in this time

    def fail(name: str, error: str) -> None:
        row[name] = {"error": error}
        stage.drop(name)

    for name in names:
        if error := _tried(prepare, name):
            fail(name, error)
    _rounds(stage, row, fail, options)
    for name in names:
        if "error" not in row[name]:
            row[name]["memory"] = stage.open[name].memory()
            if error := _tried(stage.open[name].release):
                stage.drop(name)
    return row


def is_slow(entry: dict[str, Any]) -> bool:
    """Whether one run takes seconds: one round is enough then, and a copy of the output does not show."""
    return "first" in entry and entry["first"]["predict"] > 2500


def _rounds(stage: Stage, row: dict[str, Any], fail: Callable[[str, str], None], options: argparse.Namespace) -> None:
    calm, found = Calm(), {name: {"left": [], "read": []} for name in row}

    def take(name: str, mode: str) -> None:
        for _ in range(3 if options.calm else 1):
            calm.wait(options.calm)
            if options.first:
                go_first()
            calm.begin()
            budget = options.budget if mode == "left" else options.budget / 2
            times = stage.open[name].run(budget, 1, 300, mode == "left")
            found[name][mode].append((calm.foreign(), times))
            if found[name][mode][-1][0] <= MOST_FOREIGN:
                return

    for n in range(options.rounds):
        live = [name for name in row if "error" not in row[name]]
        turn = n % max(1, len(live))
        for name in live[turn:] + live[:turn]:
            for mode in ("left",) if is_slow(row[name]) else ("left", "read"):
                if "error" not in row[name] and not (n and is_slow(row[name])) and (error := _tried(take, name, mode)):
                    fail(name, error)
    for name, modes in found.items():
        if "error" not in row[name]:
            row[name] |= {mode: summarised(rounds or modes["left"]) for mode, rounds in modes.items()}


def cold(stage: Stage, names: list[str], workload: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fresh contexts, and so fresh processes without caches: from the navigation to the first output."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    row: dict[str, Any] = {}
    for _ in range(options.rounds):
        for name in names:
            Calm().wait(options.calm)
            if name not in row and (error := _tried(_start_cold, stage, name, workload, runs[name])):
                row[name] = {"error": error}
    for name, found in runs.items():
        if name not in row:
            numbers = [key for key, value in found[0].items() if isinstance(value, (int, float))]
            row[name] = {key: statistics.median(run[key] for run in found) for key in numbers}
            totals = [run["total"] for run in found]
            row[name] |= {"low": min(totals), "high": max(totals), "output": found[0]["output"]}
            row[name]["download"] = found[0]["download"]
    return row


def _start_cold(stage: Stage, name: str, workload: str, runs: list[dict[str, Any]]) -> None:
    before = renderers()
    peer = stage.start(name, f"first={workload}")
    assert isinstance(peer, PagePeer)
    run = peer.first()
    run["renderer_kib"] = max((size for process, size in renderers().items() if process not in before), default=0)
    run["download"] = downloads(peer)
    peer.close()
    runs.append(run)


OWN = ("/web/", "/models/")  # the benchmark's own files, and models


def downloads(peer: PagePeer) -> dict[str, list[int]]:
    """What a page must load beside the weights: file -> [bytes, bytes with gzip -9]."""
    found: dict[str, list[int]] = {}
    for url in dict.fromkeys(peer.requests):
        name = url.removeprefix(peer.site.url).split("?")[0]
        file = peer.site.file(url)
        if file is None or not file.is_file() or name.startswith(OWN):
            continue
        if name.startswith("/exports/") and not name.endswith((".nfp", "model.json")):
            continue
        data = file.read_bytes()
        found[name] = [len(data), len(gzip.compress(data, 9))]
    return found


def limits(stage: Stage) -> dict[str, dict[str, float]]:
    """Threads -> operations and bytes in a second that WebAssembly can do here (web/limits.js)."""
    script = "async ([threads, name]) => (await import('/web/limits.js')).measured(threads, name, 1000)"
    with stage.browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{stage.site.url}/web/tensors.js")
        return {
            str(threads): {name: page.evaluate(script, [threads, name]) for name in ("fma", "copy")}
            for threads in (1, 2)
        }


def machine(browser: Browser) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "chromium": browser.version,
    }


def save(path: Path, kind: str, name: str, row: dict[str, Any], about: dict[str, Any]) -> None:
    """Put a row beside what the file has; peers that were not measured now stay."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = known.setdefault(kind, {})
    for entry in row.values() if kind != "limits" else ():
        entry["date"] = time.strftime("%Y-%m-%d")
    rows[name] = rows.get(name, {}) | row
    known["machine"] = about
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _chosen(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    names = options.peers.split(",") if options.peers else SUITES[options.suite]
    if options.kind == "cold":
        names = [name for name in names if not ALL[name].native]
    missing = [name for name in names if not ALL[name].installed]
    if missing:
        print(f"not installed, and left out: {', '.join(missing)}. benchmarks/peers/setup.sh installs them.")
    default = ["mobilenet_v2"] if options.kind == "cold" else list(WORKLOADS)
    workloads = options.workloads.split(",") if options.workloads else default
    return [name for name in names if name not in missing], workloads


def _export(workloads: Iterable[str], again: bool) -> None:
    for name in workloads:
        if again or not (exported.FOLDER / name / "tensors.safetensors").exists():
            exported.FOLDER.mkdir(parents=True, exist_ok=True)
            exported.write_list({name: exported.export_workload(name)})


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["bench", "cold", "limits"])
    parser.add_argument("--suite", default="wasm", choices=list(SUITES))
    parser.add_argument("--peers", help=f"of {', '.join(ALL)}")
    parser.add_argument("--workloads", help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=200, help="milliseconds of a round")
    parser.add_argument("--warm", type=float, default=1000, help="milliseconds before the first round")
    parser.add_argument(
        "--calm", type=float, default=10, help="seconds to wait at most for a moment without other work"
    )
    parser.add_argument("--first", action="store_true", help="run ahead of all other programs (needs the right to)")
    parser.add_argument("--keep-exports", action="store_true", help="use the Programs of the last time")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names, workloads = ([], []) if options.kind == "limits" else _chosen(options)
    _export(workloads, not options.keep_exports)
    out = options.out or RESULTS / f"{options.suite}.json"
    measure = cold if options.kind == "cold" else bench
    gpu = options.suite == "webgpu"
    with (
        sync_playwright() as playwright,
        chromium(playwright, gpu) as browser,
        Site() as site,
    ):
        stage = Stage(browser, site)
        if options.kind == "limits":
            for threads, limit in limits(stage).items():
                save(out, "limits", threads, limit, machine(browser))
                print(f"{threads}: {limit['fma'] / 1e9:.1f} GFLOP/s, {limit['copy'] / 1e9:.1f} GB/s")
            return
        for workload in workloads:
            row = measure(stage, names, workload, options)
            save(out, options.kind, workload, row, machine(browser))
            print(line(workload, row, "total" if options.kind == "cold" else "left"), flush=True)
        for name in list(stage.open):
            stage.drop(name)


def line(workload: str, row: dict[str, Any], key: str) -> str:
    """A row in a line of text."""
    words = []
    for name, entry in row.items():
        value = entry.get(key)
        value = value["median"] if isinstance(value, dict) else value
        words.append(f"{name}={value:.3g}" if value is not None else f"{name}=({entry['error'][:80]})")
    return f"{workload}: {' '.join(words)}"


if __name__ == "__main__":
    main()
