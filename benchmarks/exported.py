"""Workloads as files for pages: Programs, inputs and first values, in .cache/benchmarks.

    python -m benchmarks.exported [name …]

A model is what `nf.export` writes. A step that changes state is a Program whose outputs are the next call's inputs.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import nearfield as nf
from nearfield.compiler.build import Target, build
from nearfield.deploy.export import BINDINGS
from nearfield.formats.safetensors import save_tensors
from nearfield.jit import Jit
from nearfield.program.codec import encode
from nearfield.tree import flatten_tree

from .workloads import WORKLOADS, Job

__all__ = ["FOLDER", "export_workload", "write_list"]

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks" / "exports"
TARGETS = {"wasm": frozenset({"relaxed-simd"}), "webgpu": frozenset()}


def export_workload(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Write one workload, and return what pages must know of it."""
    workload = WORKLOADS[name]
    job, target = workload.make(), folder / name
    shutil.rmtree(target, ignore_errors=True)
    fixed = getattr(job.function, "weights", [])
    tensors: dict[str, nf.Tensor] = {k: nf.asarray(x) for k, x in job.inputs.items()}
    tensors |= {f"weight{n}": w for n, w in enumerate(fixed)}
    about: dict[str, Any] = {"spec": workload.spec, "group": workload.group, "inputs": list(job.inputs)}
    if workload.group == "training":
        about |= {"step": True, "outputs": 1}
        state, about["parameters"] = _write_step(job, target)
        tensors |= state
    else:
        nf.export(job.function, target, inputs=job.inputs)  # type: ignore[arg-type]
        rows = json.loads((target / "model.json").read_text(encoding="utf-8"))["outputs"]
        about["outputs"] = prod(rows[0]["shape"])
    save_tensors(target / "tensors.safetensors", tensors)
    return about


def _write_step(job: Job, folder: Path) -> tuple[dict[str, nf.Tensor], list[str]]:
    """Programs of a step, and step.json; the state's first values are returned, and the names of the parameters.

    step.json  programs  target -> file
               inputs    names of all inputs, in order: values are in tensors.safetensors
               next      for each output but the first, the number of the input that it is in the next call
    """
    step = nf.jit(job.function)
    given = {name: nf.asarray(x) for name, x in job.inputs.items()}
    recording, owners = _recorded(step, list(given.values()))
    state = [(name, t) for n, owner in enumerate(owners) for name, t in _state(owner, n).items()]
    names = [*given, *(name for name, _ in state), *(f"constant{n}" for n in range(len(recording.captured)))]
    following = [len(given) + n for n in recording.changed]
    folder.mkdir(parents=True)
    programs = {}
    for target, features in TARGETS.items():
        built = build(recording.graph, Target(target, features, BINDINGS[target]), frozenset(following))
        if [kind for kind, _ in built.results] != ["output"] * len(built.results):
            raise ValueError(
                "exported: an output of the step is one of its inputs; accepted are steps that change all."
            )
        programs[target] = f"{target}.nfp"
        (folder / programs[target]).write_bytes(encode(built.program))
    about = {"programs": programs, "inputs": names, "next": following}
    (folder / "step.json").write_text(json.dumps(about), encoding="utf-8")
    constants = {f"constant{n}": nf.Tensor(node) for n, node in enumerate(recording.captured)}
    return dict(state) | constants, [
        n for owner in owners if isinstance(owner, nf.nn.Module) for n in owner.parameters()
    ]


def _recorded(step: Jit, inputs: list[nf.Tensor]) -> tuple[Any, list[Any]]:
    """What jit records of a function, and whose state it is."""
    leaves, structure = flatten_tree((tuple(inputs), {}))
    owners = step._owners(leaves)
    return step._record(leaves, structure, owners), owners


def _state(owner: Any, n: int) -> Mapping[str, nf.Tensor]:
    """Names of an owner's state: a model's own, an optimiser's with a number before it."""
    tensors = owner.state_tensors()
    return tensors if isinstance(owner, nf.nn.Module) else {f"{n}.{name}": t for name, t in tensors.items()}


def write_list(rows: Mapping[str, dict[str, Any]], folder: Path = FOLDER) -> None:
    """workloads.json, with the rows added to what it has."""
    path = folder / "workloads.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | dict(rows), indent=1), encoding="utf-8")


def main() -> None:
    """Export the workloads that are named, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or WORKLOADS:
        write_list({name: export_workload(name)})
        print(name, flush=True)


if __name__ == "__main__":
    main()
