"""Random histories of a model: what is compiled and what is written do the same, and nothing is left in memory."""

from pathlib import Path

import pytest

from devices import need
from histories import ACTIONS, History

SLOW = pytest.mark.slow  # a history compiles dozens of functions


@pytest.mark.parametrize("device", ["wasm", pytest.param("webgpu", marks=SLOW)])
@pytest.mark.parametrize(("seed", "length"), [(0, 10), *(pytest.param(seed, 30, marks=SLOW) for seed in range(1, 6))])
def test_random_histories(seed: int, length: int, device: str, tmp_path: Path) -> None:
    """See `python tools/hunt.py --histories` for others."""
    need(device)
    History(seed, device, tmp_path).run(length)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["wasm", "webgpu"])
@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_between_steady_steps(action: str, device: str, tmp_path: Path) -> None:
    """The steps after it are as without compiling."""
    need(device)
    history = History(0, device, tmp_path)
    with history.started():
        for name in ("step", "step", "step", "predict", "predict", action, "step", "predict", "step"):
            history.do(name)
        history.compare()
