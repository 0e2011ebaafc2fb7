"""docs/performance.md and its charts, from benchmarks/results/*.json.

python -m benchmarks.report            write them
python -m benchmarks.report --check    fail if they are not what the results give
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .chart import Bar, chart
from .workloads import WORKLOADS, Workload

__all__ = ["documents"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = "docs/performance.md"
TITLES = {
    "nearfield": "Nearfield",
    "litert": "LiteRT.js",
    "ort": "ONNX Runtime Web",
    "tfjs": "TensorFlow.js",
    "jaxjs": "jax-js",
    "onnxruntime": "onnxruntime",
    "torch": "PyTorch",
}
Row = dict[str, Any]


def number(x: float) -> str:
    """Three digits that count."""
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if x < limit:
            return f"{x:.{digits}f}"
    return f"{x:,.0f}"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Markdown; all columns but the first to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


class Results:
    """What was measured of a suite: one file."""

    def __init__(self, path: Path) -> None:
        self.data = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def rows(self, kind: str = "bench") -> dict[str, Row]:
        """Workload -> peer -> figures, in the order of the table."""
        found = self.data.get(kind, {})
        return {name: found[name] for name in WORKLOADS if name in found}

    def limit(self, threads: int) -> dict[str, float]:
        """Operations and bytes in a second that the machine can do."""
        return self.data.get("limits", {}).get(str(threads), {})


def value(row: Row, peer: str, key: str) -> float | None:
    """A median, or None if there is none."""
    entry = row.get(peer, {}).get(key)
    return entry["median"] if isinstance(entry, dict) else entry


def best(row: Row, peers: list[str], key: str) -> float | None:
    """The fastest of the peers."""
    return min((x for peer in peers if (x := value(row, peer, key)) is not None), default=None)


def floor(workload: Workload, limit: dict[str, float]) -> float:
    """Milliseconds in which the machine could do the arithmetic and move the bytes."""
    rate = limit["fma"] * workload.spec.get("at_once", 1)
    return max(workload.flops / rate, workload.bytes / limit["copy"]) * 1e3


def cell(row: Row, peer: str, key: str) -> str:
    """A figure; – for what is not offered, nothing for what was not measured."""
    found = value(row, peer, key)
    if found is not None:
        return number(found)
    error = row.get(peer, {}).get("error", "")
    return error and ("–" if "not offered" in error else "fails")


def comparison(results: Results, threads: int, key: str) -> str:
    """Nearfield beside the others: a row for each workload."""
    own = f"nearfield-wasm-{threads}"
    peers = [f"{library}-wasm-{threads}" for library in ("litert", "ort", "tfjs", "jaxjs")]
    limit = results.limit(threads)
    head = ["milliseconds", *(TITLES[peer.split("-")[0]] for peer in [own, *peers]), "Nearfield / best", "of the limit"]
    rows = []
    for name, row in results.rows().items():
        mine, other = value(row, own, key), best(row, peers, key)
        if mine is None and other is None:
            continue
        ratio = f"{mine / other:.2f}" if mine and other else ""
        part = f"{floor(WORKLOADS[name], limit) / mine:.0%}" if mine and limit else ""
        rows.append([WORKLOADS[name].title, *(cell(row, peer, key) for peer in [own, *peers]), ratio, part])
    return table(head, rows)


def native(results: Results) -> str:
    """Native libraries, and Nearfield through wasmtime."""
    peers = ["nearfield-native-2", "onnxruntime-native-2", "torch-native-2"]
    head = ["milliseconds, two threads", "Nearfield in Chromium", "Nearfield, wasmtime", "onnxruntime", "PyTorch"]
    shown = [(name, row) for name, row in results.rows().items() if best(row, peers, "read") is not None]
    return table(
        head,
        ([WORKLOADS[n].title, *(cell(row, p, "read") for p in ["nearfield-wasm-2", *peers])] for n, row in shown),
    )


def starts(results: Results) -> str:
    """Cold starts: navigation to the first output."""
    text = []
    for name, row in results.rows("cold").items():
        head = ["", "first output, ms", "lowest – highest", "download, kB (gzip)", "WebAssembly, MiB", "process, MiB"]
        rows = []
        for peer, entry in row.items():
            if "total" not in entry:
                continue
            kilobytes = sum(size for _, size in entry["download"].values()) / 1e3
            library, backend, *threads = peer.split("-")
            count = {"1": ", 1 thread", "2": ", 2 threads"}.get("".join(threads), "")
            rows.append([
                f"{TITLES[library]}, {backend}{count}", number(entry["total"]),
                f"{number(entry['low'])} – {number(entry['high'])}", number(kilobytes),
                number(entry["wasm_bytes"] / 2**20), number(entry["renderer_kib"] / 1024),
            ])  # fmt: skip
        rows.sort(key=lambda cells: float(cells[1].replace(",", "")))
        text.append(f"{WORKLOADS[name].title}:\n\n{table(head, rows)}")
    return "\n".join(text)


def memory(results: Results) -> str:
    """What Nearfield's buffers take, beside the whole of the peers' memories."""
    peers = [f"{library}-wasm-1" for library in ("nearfield", "litert", "ort", "tfjs", "jaxjs")]
    head = ["MiB", "weights and arena", "most in use", *(f"{TITLES[p.split('-')[0]]}: WebAssembly" for p in peers)]
    rows = []
    for name, row in results.rows().items():
        if WORKLOADS[name].group == "operator" or "memory" not in row.get(peers[0], {}):
            continue
        own = row[peers[0]]["memory"]
        sizes = [own.get("programs", 0), own.get("peak", 0)]
        sizes += [row.get(peer, {}).get("memory", {}).get("wasm_bytes", 0) for peer in peers]
        rows.append([WORKLOADS[name].title, *(number(size / 2**20) if size else "–" for size in sizes)])
    return table(head, rows)


def agreement(results: Results) -> str:
    """How far outputs differ: the largest relative difference of their root mean square."""
    worst, where = 0.0, ""
    for name, row in results.rows().items():
        found = [entry["first"]["output"]["rms"] for entry in row.values() if "first" in entry]
        if found and (max(found) - min(found)) / max(found) > worst:
            worst, where = (max(found) - min(found)) / max(found), WORKLOADS[name].title
    return f"{worst:.0e} ({where})" if where else "not measured"


def graphics(path: Path) -> str:
    """One machine with a graphics card: a table of all libraries that were measured there."""
    data = json.loads(path.read_text(encoding="utf-8"))
    names = sorted({peer for row in data["bench"].values() for peer in row})
    rows = []
    for name, row in data["bench"].items():
        mine, other = value(row, "nearfield", "left"), best(row, [p for p in names if p != "nearfield"], "left")
        title = data.get("titles", {}).get(name) or WORKLOADS[name].title
        rows.append([title, *(cell(row, p, "left") for p in names), f"{mine / other:.2f}" if mine and other else ""])
    return f"{data['machine']['gpu']}:\n\n" + table(
        ["milliseconds", *(TITLES[name] for name in names), "Nearfield / best"], rows
    )


def dawn(path: Path) -> str:
    """The runner through Dawn for Node, on one machine (web/dawn.mjs)."""
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [
            WORKLOADS[name].title,
            number(row["call"]),
            number(row["first"]),
            number(row["again"]) if "again" in row else "",
        ]
        for name, row in data["bench"].items()
    ]
    head = ["milliseconds", "a call", "first run, no caches", "first run, the driver's cache warm"]
    return f"The runner in Node, through Dawn (Chromium's WebGPU), {data['machine']['gpu']}:\n\n" + table(head, rows)


def python(path: Path) -> str:
    """What Python costs: operations traced, steps called, a model compiled."""
    if not path.exists():
        return "Not measured yet.\n"
    data = json.loads(path.read_text(encoding="utf-8"))
    native, page = data["native"], data["pyodide"]
    models = {workload.title for workload in WORKLOADS.values()}
    rows = []
    for title, row in native["tracing"].items():
        count = row["operations"]
        each = [
            number(found["us"] / count) if (found := place["tracing"].get(title)) else "" for place in (native, page)
        ]
        rows.append([title if title in models else f"`{title}`", f"{count:,}", number(row["us"]), *each])
    whole = [
        [f"A compiled training step's call: {title}", f"{row['us']:.0f} µs", f"{page['steps'][title]['us']:.0f} µs"]
        for title, row in native["steps"].items()
    ]
    whole += [
        [f"MobileNetV2's training step, traced and compiled for {title}", f"{row['us'] / 1e6:.2f} s", ""]
        for title, row in native["compile"].items()
    ]
    head = ["traced", "operations", "µs natively", "µs for each", "µs for each in Pyodide"]
    where = f"CPython {data['machine']['python']}, {data['machine']['processor']}"
    return f"{where}.\n\n{table(head, rows)}\n{table(['', 'natively', 'in Pyodide'], whole)}"


def bars(results: Results, threads: int, group: str) -> list[Bar]:
    """Each workload's bars: time relative to the best peer."""
    found = []
    own = f"nearfield-wasm-{threads}"
    peers = [f"{library}-wasm-{threads}" for library in ("litert", "ort", "tfjs", "jaxjs")]
    for name, row in results.rows().items():
        mine, other = value(row, own, "left"), best(row, peers, "left")
        if WORKLOADS[name].group == group and mine and other:
            values = {TITLES[p.split("-")[0]]: x for p in [own, *peers] if (x := value(row, p, "left")) is not None}
            found.append(Bar(WORKLOADS[name].title, values, other))
    return found


def documents() -> dict[str, str]:
    """Every file that is made here: its path from the root, and its text."""
    wasm = Results(RESULTS / "wasm.json")
    found = {}
    for group in ("model", "operator", "training"):
        what = {"model": "Models", "operator": "Operators", "training": "Training steps"}[group]
        title = f"{what} in Chromium, two threads: time of one run, relative to the fastest of the others"
        found[f"docs/images/performance_{group}.svg"] = chart(title, bars(wasm, 2, group))
    cards = [graphics(path) for path in sorted(RESULTS.glob("gpu*.json"))]
    cards += [dawn(path) for path in sorted(RESULTS.glob("dawn*.json"))]
    parts: dict[str, Callable[[], str]] = {
        "two threads": lambda: comparison(wasm, 2, "left"),
        "one thread": lambda: comparison(wasm, 1, "left"),
        "read": lambda: comparison(wasm, 2, "read"),
        "native": lambda: native(wasm),
        "cold": lambda: starts(wasm),
        "memory": lambda: memory(wasm),
        "agreement": lambda: agreement(wasm),
        "machine": lambda: about(wasm),
        "python": lambda: python(RESULTS / "python.json"),
        "graphics": lambda: "\n".join(cards) or "Not measured yet.\n",
    }
    text = (ROOT / "benchmarks" / "performance.md.in").read_text(encoding="utf-8")
    for name, make in parts.items():
        text = text.replace(f"{{{{{name}}}}}", make().rstrip("\n"))
    return {PAGE: text} | found


def about(results: Results) -> str:
    """The machine, in a line."""
    machine = results.data.get("machine", {})
    limits = ", ".join(
        f"{threads} thread{'s' * (threads > 1)}: {limit['fma'] / 1e9:.0f} GFLOP/s and {limit['copy'] / 1e9:.1f} GB/s"
        for threads in (1, 2)
        if (limit := results.limit(threads))
    )
    words = f"{machine.get('processor', 'unknown')}, {machine.get('cores')} cores, Chromium {machine.get('chromium')}"
    return f"{words}. Its limits in WebAssembly ({limits or 'not measured'})"


def main() -> None:
    """Write, or compare."""
    stale = []
    for name, text in documents().items():
        path = ROOT / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"not what benchmarks/results give: {', '.join(stale)}. Run python -m benchmarks.report")


if __name__ == "__main__":
    main()
