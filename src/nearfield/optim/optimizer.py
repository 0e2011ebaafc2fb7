"""Optimizer: what all optimisers share. Each says in `change` how one parameter follows from its gradient."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from ..argument import instance, real
from ..dtype import DTYPES
from ..errors import FormatError, ShapeError
from ..nn.module import Module
from ..ops.source import bits_of_number
from ..state import Place, Stateful, TensorDict
from ..tensor import Tensor, call, leaf

__all__ = ["Optimizer", "Rate"]

Rate = float | Tensor | Callable[[Tensor], Tensor]


def _value(number: float, dtype: str) -> Tensor:
    """A number as a value of its own, not a constant of the compiled step: it can change without compiling again."""
    return leaf(bits_of_number(number, DTYPES[dtype]), (), DTYPES[dtype])


class Optimizer(Stateful):
    """An optimiser's state: `step` (int32, the number of updates made), the learning rate, and slots per parameter.

    learning_rate  a number, which may be set between steps, or a function of the step, such as optim.cosine(1e-3, 1000)
    slots          "momentum.l1.weight" -> Tensor; float32 also for float16 parameters
    """

    slot_names: tuple[str, ...] = ()

    def __init__(self, learning_rate: Rate) -> None:
        self.step = _value(0, "int32")
        self.slots: dict[str, Tensor] = TensorDict()
        self.schedule: Callable[[Tensor], Tensor] | None = None
        self._rate = _value(0.0, "float32")
        self.learning_rate = learning_rate

    @property
    def learning_rate(self) -> Tensor:
        """The rate of the next step, a float32 scalar."""
        return self._rate if self.schedule is None else call("astype", self.schedule(self.step), "float32")

    @learning_rate.setter
    def learning_rate(self, rate: Rate) -> None:
        if callable(rate) and not isinstance(rate, Tensor):
            self.schedule = rate
        else:
            if not isinstance(rate, Tensor):
                real(type(self).__name__, 0, learning_rate=rate)
            self.schedule = None
            self._rate = call("astype", rate, "float32") if isinstance(rate, Tensor) else _value(float(rate), "float32")

    def init(self, model: Module) -> "Optimizer":
        """Begin anew: step 0, and slots of zeros for the model's trainable parameters."""
        instance(f"{type(self).__name__}.init", Module, "a Module, whose parameters it will change", model=model)
        self.step, self.slots = _value(0, "int32"), TensorDict()
        for name, parameter in model.parameters().items():
            self._prepare(name, parameter)
        return self

    def begins_at_zero(self, name: str) -> bool:
        """Whether it is a slot as `_prepare` makes them here."""
        return type(self)._prepare is Optimizer._prepare and name.partition(".")[0] in self.slot_names

    def _prepare(self, name: str, parameter: Tensor) -> None:
        wide = DTYPES["float32"] if parameter.dtype.itemsize == 2 else parameter.dtype
        for slot in self.slot_names:
            self.slots.setdefault(f"{slot}.{name}", call("full", parameter.shape, 0.0, dtype=wide))

    def update(self, model: Module, grads: Mapping[str, Tensor]) -> None:
        """Put new parameters in the model, one step further.

        grads   by name, as nn.value_and_grad returns them; parameters without one stay
        errors  KeyError for a gradient of no parameter; ShapeError if its shape is not the parameter's
        """
        who = f"{type(self).__name__}.update"
        instance(who, Module, "a Module", model=model)
        instance(who, Mapping, "a dict of gradients by name, as nn.value_and_grad returns it", grads=grads)
        parameters = model.parameters()
        rate, self.step = self.learning_rate, self.step + 1
        new: dict[str, Tensor] = {}
        for name, g in grads.items():
            p = parameters.get(name)
            if p is None:
                raise KeyError(
                    f"{who}: no trainable parameter is called {name!r}; accepted are those of model.parameters()."
                )
            if g.shape != p.shape:
                raise ShapeError(
                    f"{who}: the gradient of {name!r} has shape {g.shape}; accepted is the parameter's, {p.shape}."
                )
            new[name] = self._changed(name, p, g, rate)
        model.set_state_tensors(new)

    def _changed(self, name: str, p: Tensor, g: Tensor, rate: Tensor) -> Tensor:
        """One new parameter; its slots are replaced. Reals of 16 bits are computed in 32."""
        self._prepare(name, p)
        wide = DTYPES["float32"] if p.dtype.itemsize == 2 else p.dtype
        slots = [self.slots[f"{slot}.{name}"] for slot in self.slot_names]
        value, *changed = self.change(
            call("astype", p, wide), call("astype", g, wide), call("astype", rate, wide), *slots
        )
        for slot, tensor in zip(self.slot_names, changed, strict=True):
            self.slots[f"{slot}.{name}"] = tensor
        return call("astype", value, p.dtype)

    def change(self, p: Tensor, g: Tensor, rate: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
        """The new parameter and its new slots; `self.step` counts from 1 here."""
        raise NotImplementedError

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that a step may change or depends on."""
        return {"step": self.step, "learning_rate": self._rate} | self.slots

    def set_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put Tensors in the places that `state_tensors` names; those not given stay."""
        rest = dict(tensors)
        self.step = rest.pop("step", self.step)
        self._rate = rest.pop("learning_rate", self._rate)
        self.slots |= rest

    def state_places(self) -> tuple[list[Place], list[Place]]:
        """Where each Tensor of `state_tensors` is, and the dict of slots."""
        slots = Place("slots", self, ("slots",))
        own = [Place("step", self, ("step",)), Place("learning_rate", self, ("_rate",))]
        return [*own, *(Place(name, self, ("slots", name)) for name in self.slots)], [slots]

    def state_key(self) -> tuple[Any, ...]:
        """What else a step depends on, as one hashable value."""
        return (self.schedule, *((k, v) for k, v in vars(self).items() if isinstance(v, (int, float, bool))))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state as a safetensors file."""
        from ..formats.safetensors import save_tensors

        save_tensors(path, self.state_tensors(), {"format": "nearfield", "optimizer": type(self).__name__})

    def load(self, path: str | PathLike[str]) -> "Optimizer":
        """Take the state from a file.

        errors  FormatError if the file is damaged, or of another optimiser
        """
        from ..formats.safetensors import load_tensors

        found = load_tensors(path)
        lacking = {"step", "learning_rate", *self.slots} - found.keys()
        wrong = [
            name
            for name in found
            if name not in ("step", "learning_rate") and name.split(".")[0] not in self.slot_names
        ]
        if lacking or wrong:
            name = min(lacking) if lacking else wrong[0]
            raise FormatError(
                f"{type(self).__name__}.load: {path} {'lacks' if lacking else 'has'} {name!r}; accepted is what its "
                "save wrote."
            )
        self.slots = TensorDict()
        self.set_state_tensors(found)
        return self

    def __repr__(self) -> str:
        rate = (
            repr(self.schedule)
            if self.schedule is not None
            else f"{self._rate.item():g}"
            if self._rate.node.value is not None
            else "…"
        )
        settings = "".join(f", {k}={v!r}" for k, v in vars(self).items() if isinstance(v, (int, float, bool)))
        return f"{type(self).__name__}({rate}{settings})"
