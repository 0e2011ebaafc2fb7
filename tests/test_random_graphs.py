"""Random Graphs mean the same on every device, however they are compiled and run; what is told of those that do not.

`python tools/hunt.py` draws others for as long as one likes.
"""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import nearfield as nf
from devices import need
from differential import Case, Plan, as_code, differences, smallest
from graph_drawing import filled, stand_in
from graph_motifs import MOTIFS, drawn
from nearfield.op import REGISTRY

ROOT = Path(__file__).resolve().parent.parent
QUICK, MANY = range(1), range(1, 6)
SEEDS = [*QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MANY)]
COMPILED = ("wasm", "webgpu")


def case_of(seed: int, motif: str) -> Case:
    """What is drawn for a seed, without arrays that take long."""
    d, outputs = drawn(seed, (motif,))
    picked = [n for n in range(len(d.inputs)) if d.maybe(0.6)]
    return Case.of([y for y in outputs if y.size < 1_000_000], d.inputs, d.arrays, picked, exact=d.exact)


@pytest.mark.parametrize("device", COMPILED)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("motif", MOTIFS)
def test_random_graphs(motif: str, seed: int, device: str) -> None:
    """In one way for each seed; an input that is not given away stays, and threads change no bit."""
    need(device)
    case = case_of(seed, motif)
    plan = Plan.drawn(random.Random(seed), device)
    assert differences(case, plan) == [], (
        f"see python tools/hunt.py --number 1 --motif {motif} --seed {seed} --device {device}"
    )


@pytest.mark.usefixtures("node_process")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("motif", MOTIFS)
def test_random_graphs_in_the_javascript_runner(motif: str, seed: int) -> None:
    """Three times in a row, on one thread and on some; all memory comes back."""
    case = case_of(seed, motif)
    plan = Plan.drawn(random.Random(seed), "node")
    assert differences(case, plan) == [], (
        f"see python tools/hunt.py --number 1 --motif {motif} --seed {seed} --device node"
    )


def test_the_tool_says_how_many_it_drew() -> None:
    """And its exit status is 0 if nothing was wrong."""
    command = [sys.executable, ROOT / "tools" / "hunt.py", "--number", "2", "--seed", "1", "--motif", "elements"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "2 Graphs from seed 1 on wasm: 0 wrong\n", done.stderr
    assert done.returncode == 0


# --- what is told of a failure --------------------------------------------------------------------------------------


def wrong_tanh(x: Any, **_: Any) -> Any:
    """As if the device were wrong where x > 1."""
    return np.where(x > 1, 0, np.tanh(x)).astype(x.dtype)


def large_case() -> Case:
    x, w, b = stand_in((5, 8)), stand_in((8, 7)), stand_in((7,))
    h = nf.tanh(nf.matmul(x, w) + b)
    outputs = [nf.sum(h, axis=0), nf.exp(x) * 2, nf.matmul(h, nf.permute_dims(w, (1, 0)))]
    return Case.of(outputs, [x, w, b], [filled(t.shape, "float32", n) for n, t in enumerate((x, w, b))], picked=[1])


def test_a_failure_is_made_small_and_shown_as_code() -> None:
    """One line is left of twelve, and the code that is printed fails like it, and passes when the mistake is mended."""
    plan = Plan("wasm")
    assert differences(large_case(), plan) == []
    with patch.dict(REGISTRY, tanh=replace(REGISTRY["tanh"], ref=wrong_tanh)):
        found = smallest(large_case(), lambda case: bool(differences(case, plan)))
        assert [line.op for line in found.graph.lines] == ["input", "tanh"]
        code = as_code(found, plan)
        with pytest.raises(AssertionError):
            exec(code, {})
    exec(code, {})


def test_a_failure_of_two_lines_together_keeps_both() -> None:
    """What fails only as a whole is not taken apart."""
    found = smallest(large_case(), lambda case: {"tanh", "sum"} <= {line.op for line in case.graph.lines})
    assert sorted(line.op for line in found.graph.lines) == ["input", "sum", "tanh"]
    assert found.arrays[0].shape == (5, 7)


def test_an_input_that_is_written_over_is_told() -> None:
    """And not if it was given away, nor if it changed in nothing."""
    from differential import untouched

    case = large_case()
    data = {n: a.tobytes() for n, a in enumerate(case.arrays)}
    assert list(untouched(case, Plan("wasm"), data)) == []
    data[1] = bytes(len(data[1]))
    assert list(untouched(case, Plan("wasm", mode="given"), data)) == []
    assert list(untouched(case, Plan("wasm"), data)) == ["input 1 was written over"]
