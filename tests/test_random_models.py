"""Random models: compiled, trained, exported and in few bits, on each device and in the JavaScript runner."""

from pathlib import Path

import pytest

from devices import need
from random_models import KINDS, wrong

QUICK = [("table", 0), ("table", 1), ("sequences", 0)]
MANY = [(kind, seed) for seed in range(2) for kind in KINDS if (kind, seed) not in QUICK]


@pytest.mark.usefixtures("node_process")
@pytest.mark.parametrize("device", ["wasm", pytest.param("webgpu", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "seed"), [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in MANY)])
def test_random_models(kind: str, seed: int, device: str, tmp_path: Path) -> None:
    """See `python tools/hunt.py --models` for others."""
    need(device)
    assert wrong(kind, seed, device, tmp_path) == []
