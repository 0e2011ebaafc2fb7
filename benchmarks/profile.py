"""Which steps of a workload take the time, in Chromium on one thread.

    python -m benchmarks.profile WORKLOAD … [--times 5] [--rows 15] [--each]

Steps of one kernel are added up, unless --each.
"""

import argparse
from collections import defaultdict

from playwright.sync_api import sync_playwright

from . import exported
from .pages import PagePeer, Site, chromium

Row = tuple[str, float]  # kernel, milliseconds


def profile(peer: PagePeer, name: str, times: int) -> list[Row]:
    """Each step, in order."""
    peer.prepare(name)
    peer.run(1000, 3, 1000, left=True)  # the browser's second compiler takes over in this time
    rows = peer.profile(times)
    peer.release()
    return rows


def added(rows: list[Row]) -> list[Row]:
    """Steps of the same kernel as one row, with their count in the name."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[0]].append(row)
    return [(f"{len(same)} x {name}", sum(row[1] for row in same)) for name, same in found.items()]


def main() -> None:
    """Print a table for each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="+")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--rows", type=int, default=15)
    parser.add_argument("--each", action="store_true")
    options = parser.parse_args()
    for name in options.workloads:
        exported.write_list({name: exported.export_workload(name)})
    with sync_playwright() as playwright, chromium(playwright) as browser, Site() as site:
        peer = PagePeer(browser, site, "nearfield", "wasm", 1, 1, "source")
        for name in options.workloads:
            rows = profile(peer, name, options.times)
            total = sum(row[1] for row in rows)
            print(f"\n{name}: {len(rows)} steps, {total:.2f} ms")
            shown = sorted(rows if options.each else added(rows), key=lambda row: -row[1])[: options.rows]
            for kernel, ms in shown:
                print(f"  {ms:8.3f} ms {ms / total:6.1%}  {kernel}")


if __name__ == "__main__":
    main()
