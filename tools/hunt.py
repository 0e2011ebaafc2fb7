"""Draw random Graphs, run them on a device, compare; what is wrong is made small and printed as code.

    python tools/hunt.py --minutes 10 --device webgpu            from a seed that the clock gives
    python tools/hunt.py --device node                           the JavaScript runner, on WebAssembly
    python tools/hunt.py --seed 4711 --number 1                  that one again
    python tools/hunt.py --motif attention --motif rows          Graphs of these alone
    python tools/hunt.py --models                                models instead: trained, exported, in few bits
    python tools/hunt.py --histories                             what is done to a model between two steps

Exit status 1 if something was wrong.
"""

import argparse
import os
import random
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
os.environ.setdefault("NEARFIELD_CACHE", "off")
os.environ.setdefault("NEARFIELD_DEBUG", "1")

from differential import Case, Plan, as_code, differences, smallest, wanted  # noqa: E402 - found in the paths above
from graph_motifs import MOTIFS, drawn  # noqa: E402
from histories import History  # noqa: E402
from nearfield.runtime import forget_programs  # noqa: E402
from random_models import KINDS, wrong  # noqa: E402

WAYS = 3  # in which each Graph is run
SLOW_S = 30


def main() -> int:
    """Hunt, and say what was found."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", choices=("wasm", "webgpu", "node"), default="wasm")
    options.add_argument("--minutes", type=float, default=1)
    options.add_argument("--seed", type=int, default=int(time.time()) * 1000)
    options.add_argument("--number", type=int, default=10**9, help="the most Graphs")
    options.add_argument("--motif", action="append", choices=tuple(MOTIFS), default=[])
    kinds = options.add_mutually_exclusive_group()
    kinds.add_argument("--models", dest="what", action="store_const", const="models", default="Graphs")
    kinds.add_argument("--histories", dest="what", action="store_const", const="histories")
    chosen = options.parse_args()
    end = time.monotonic() + 60 * chosen.minutes
    tried = bad = 0
    while tried < chosen.number and time.monotonic() < end:
        seed = chosen.seed + tried
        if chosen.what == "Graphs":
            bad += hunted(seed, chosen.device, tuple(chosen.motif))
        else:
            bad += (hunted_model if chosen.what == "models" else hunted_history)(seed, chosen.device)
        tried += 1
    print(f"{tried} {chosen.what} from seed {chosen.seed} on {chosen.device}: {bad} wrong")
    return 1 if bad else 0


def hunted(seed: int, device: str, motifs: tuple[str, ...]) -> bool:
    """Whether something is wrong with the Graph of this seed; if so it is printed."""
    began = time.monotonic()
    try:
        d, outputs = drawn(seed, motifs)
        picked = [n for n in range(len(d.inputs)) if d.maybe(0.6)]
        case = Case.of([y for y in outputs if y.size < 1_000_000], d.inputs, d.arrays, picked, exact=d.exact)
        want = wanted(case)
    except Exception:  # noqa: BLE001 - a drawing that cannot be made is a finding, too
        print(f"seed {seed}: no Graph\n{traceback.format_exc()}", flush=True)
        return True
    rng = random.Random(seed)
    for _ in range(WAYS):
        plan = Plan.drawn(rng, device)
        found = differences(case, plan, want)
        if found:
            tell(seed, case, plan, found)
            return True
    forget_programs()
    if time.monotonic() - began > SLOW_S:
        print(f"seed {seed} took {time.monotonic() - began:.0f} s", flush=True)
    return False


def hunted_model(seed: int, device: str) -> bool:
    """Whether something is wrong with the model of this seed; if so it is printed."""
    kind = tuple(KINDS)[seed % len(KINDS)]
    with TemporaryDirectory() as folder:
        try:
            found = wrong(kind, seed, "webgpu" if device == "webgpu" else "wasm", Path(folder))
        except Exception:  # noqa: BLE001 - any error is a finding
            found = [traceback.format_exc()]
    forget_programs()
    if found:
        print(f"{kind} {seed}:", *found, sep="\n  ", flush=True)
    return bool(found)


def hunted_history(seed: int, device: str) -> bool:
    """Whether the two worlds part in the history of this seed; if so it is printed."""
    with TemporaryDirectory() as folder:
        try:
            History(seed, device, Path(folder)).run(40)
        except Exception:  # noqa: BLE001 - any error is a finding
            print(f"history {seed}:\n{traceback.format_exc()}", flush=True)
            return True
        finally:
            forget_programs()
    return False


def tell(seed: int, case: Case, plan: Plan, found: list[str]) -> None:
    """Print what is wrong, and the smallest Graph of which it is."""
    raised = found[0].startswith("raised")
    small = smallest(case, lambda c: any(text.startswith("raised") == raised for text in differences(c, plan)))
    print(f"seed {seed}, {plan}:", *found[:4], "The smallest of these:", *differences(small, plan)[:2], sep="\n  ")
    print(as_code(small, plan), end="\n\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
