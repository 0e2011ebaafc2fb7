"""Examples work as their commands say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "examples" / "digits" / "demo.py"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(not DEMO.exists(), reason="there is no examples/digits/demo.py yet")
def test_digits_demo_checks_itself() -> None:
    """What `make demo CHECK=1` runs: the page, in a headless browser."""
    done = subprocess.run(
        [sys.executable, DEMO, "--check"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
