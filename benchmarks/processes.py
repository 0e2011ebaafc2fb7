"""Peers that are processes of this machine: worker.py with a library, spoken to in lines of JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["ProcessPeer"]

ROOT = Path(__file__).resolve().parent.parent


class ProcessPeer:
    """A library in a process of its own, with so many threads; the same calls as a PagePeer."""

    def __init__(self, library: str, threads: int) -> None:
        python = (
            sys.executable if library == "nearfield" else str(ROOT / ".cache" / "peers" / "python" / "bin" / "python")
        )
        if not Path(python).exists():
            raise RuntimeError(f"{python} is not there; peers/setup.sh installs it.")
        count = str(threads)
        setting = {"OPENBLAS_NUM_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        environment = os.environ | setting | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        command = [python, "-m", "benchmarks.worker", library, count]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def _ask(self, name: str, *values: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, *values]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the process has ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def prepare(self, name: str) -> dict[str, Any]:
        """Load a workload and run it once: milliseconds of both, and the output's fingerprint."""
        return self._ask("prepare", name)

    def run(self, budget: float, least: int, most: int, left: bool) -> list[float]:
        """Milliseconds of single runs."""
        return self._ask("run", budget, least, most, left)

    def release(self) -> None:
        """Give the workload's memory back."""
        self._ask("release")

    def memory(self) -> dict[str, float]:
        """Bytes of the process."""
        return self._ask("memory")

    def close(self) -> None:
        """End the process."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(20)
