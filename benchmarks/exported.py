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
from nearfield import nn
from nearfield.compiler.build import Target, build
from nearfield.deploy.export import BINDINGS
from nearfield.formats.safetensors import save_tensors
from nearfield.graph.graph import Graph
from nearfield.jit import tracing
from nearfield.program.codec import encode
from nearfield.surroundings import Surroundings
from nearfield.tensor import Node
from nearfield.trace import trace

from .workloads import WORKLOADS, Job

__all__ = ["FOLDER", "export_workload", "write_list", "write_step"]

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks" / "exports"
TARGETS = {"wasm": frozenset({"relaxed-simd"}), "webgpu": frozenset()}


def export_workload(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Write one workload, and return what pages must know of it."""
    workload = WORKLOADS[name]
    job, target = workload.make(), folder / f"{name}.new"
    shutil.rmtree(target, ignore_errors=True)
    fixed = getattr(job.function, "weights", [])
    tensors: dict[str, nf.Tensor] = {k: nf.asarray(x) for k, x in job.inputs.items()}
    tensors |= {f"weight{n}": w for n, w in enumerate(fixed)}
    about: dict[str, Any] = {"spec": workload.spec, "group": workload.group, "inputs": list(job.inputs)}
    if workload.group == "training":
        about |= {"step": True, "outputs": 1}
        state, about["parameters"] = write_step(job, target)
        tensors |= state
    else:
        nf.export(job.function, target, inputs=job.inputs)  # type: ignore[arg-type]
        rows = json.loads((target / "model.json").read_text(encoding="utf-8"))["outputs"]
        about["outputs"] = prod(rows[0]["shape"])
    save_tensors(target / "tensors.safetensors", tensors)
    shutil.rmtree(folder / name, ignore_errors=True)
    target.rename(folder / name)
    return about


def write_step(job: Job, folder: Path) -> tuple[dict[str, nf.Tensor], list[str]]:
    """Programs of a step, and step.json; the state's first values are returned, and the names of the parameters.

    step.json  programs  target -> file
               inputs    names of all inputs, in order: values are in tensors.safetensors
               next      for each output but the first, the number of the input that it is in the next call
    """
    given = {name: nf.asarray(x) for name, x in job.inputs.items()}
    owners = Surroundings(job.function).owners
    state = [(name, t) for n, owner in enumerate(owners) for name, t in _state(owner, n).items()]
    graph, constants, changed = _recorded(job.function, list(given.values()), owners)
    names = [*given, *(name for name, _ in state), *(f"constant{n}" for n in range(len(constants)))]
    following = [len(given) + n for n in changed]
    folder.mkdir(parents=True)
    programs = {}
    for target, features in TARGETS.items():
        built = build(graph, Target(target, features, BINDINGS[target]), frozenset(following))
        if [kind for kind, _ in built.results] != ["output"] * len(built.results):
            raise ValueError(
                "exported: an output of the step is one of its inputs; accepted are steps that change all."
            )
        programs[target] = f"{target}.nfp"
        (folder / programs[target]).write_bytes(encode(built.program))
    about = {"programs": programs, "inputs": names, "next": following}
    (folder / "step.json").write_text(json.dumps(about), encoding="utf-8")
    state += [(f"constant{n}", t) for n, t in enumerate(constants)]
    return dict(state), [name for owner in owners if isinstance(owner, nn.Module) for name in owner.parameters()]


def _recorded(function: Any, inputs: list[nf.Tensor], owners: list[Any]) -> tuple[Graph, list[nf.Tensor], list[int]]:
    """The Graph of a call, whose inputs are the arguments, the owners' state, and constants; it gives the result and
    the new state.

    returns  the Graph, the constants, and the numbers of the state's Tensors that the call replaces
    """
    before = [owner.state_tensors() for owner in owners]
    held = [{name: _placeholder(t) for name, t in tensors.items()} for tensors in before]
    stand_ins = [_placeholder(t) for t in inputs]
    try:
        for owner, tensors in zip(owners, held, strict=True):
            owner.set_state_tensors(tensors)
        with tracing():
            result = function(*stand_ins)
        after = [t for owner in owners for t in owner.state_tensors().values()]
    finally:
        for owner, tensors in zip(owners, before, strict=True):
            owner.set_state_tensors(tensors)
    old = [t for tensors in held for t in tensors.values()]
    changed = [n for n, (a, b) in enumerate(zip(old, after, strict=True)) if a.node is not b.node]
    placeholders = [t.node for t in [*stand_ins, *old]]
    graph, feeds = trace([result.node, *(after[n].node for n in changed)], placeholders)
    return graph, [nf.Tensor(node) for node in feeds[len(placeholders) :]], changed


def _placeholder(t: nf.Tensor) -> nf.Tensor:
    return nf.Tensor(Node(None, (), {}, t.shape, t.dtype))


def _state(owner: Any, n: int) -> Mapping[str, nf.Tensor]:
    """Names of an owner's state: a model's own, an optimiser's with a number before it."""
    tensors = owner.state_tensors()
    return tensors if isinstance(owner, nn.Module) else {f"{n}.{name}": t for name, t in tensors.items()}


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
