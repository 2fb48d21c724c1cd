"""What a module does while it runs: refuses what cannot be trained row by row, and counts its arithmetic.

A training graph must give the same gradient on every board and for every batch. So nothing may be random (Dropout), and
no row may depend on the other rows of its batch (BatchNorm); what does either is named with its place in the module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from edgeswarm.errors import ModelError
from edgeswarm.export.architectures import Shape


@dataclass(frozen=True, slots=True)
class Call:
    """One torch operation that ran. operation: "aten.relu".  place: "body.0 (Conv2d)".  flops, result_bytes: of what
    it computed (0 bytes for views)."""

    operation: str
    place: str
    random: bool
    flops: int
    result_bytes: int


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that runs inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.places = ["the module itself"]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        results = [value for value in (out if isinstance(out, tuple | list) else [out]) if isinstance(value, Tensor)]
        packet = func._overloadpacket
        new = 0 if func.is_view else sum(value.numel() * value.element_size() for value in results)
        if packet in flop_registry:
            flops = int(flop_registry[packet](*args, **(kwargs or {}), out_val=out))
        else:
            flops = 0 if func.is_view else sum(value.numel() for value in results if value.is_floating_point())
        # With p = 0 a Dropout layer still calls the operation, and nothing is random.
        idle = str(packet) == "aten.native_dropout" and len(args) > 1 and args[1] == 0
        random = torch.Tag.nondeterministic_seeded in func.tags and not idle
        self.calls.append(Call(str(packet), self.places[-1], random, flops, new))
        return out


@contextmanager
def _placed(model: nn.Module, watch: _Watch) -> Iterator[None]:
    """Keeps `watch.places` at the innermost module that runs."""
    hooks: list[Any] = []
    for name, layer in model.named_modules():
        name = name.removeprefix("model").removeprefix(".")  # as it is called in the user's module
        place = f"{name} ({type(layer).__name__})" if name else "the module itself"
        hooks.append(layer.register_forward_pre_hook(lambda _, __, place=place: watch.places.append(place)))
        hooks.append(layer.register_forward_hook(lambda _, __, ___: watch.places.pop() and None, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def calls(model: nn.Module, x: Tensor) -> list[Call]:
    """Operations of `model(x)`, in order, the module in the mode (training or not) that it is in."""
    watch = _Watch()
    with torch.no_grad(), _placed(model, watch), watch:
        model(x)
    return watch.calls


def refuse_untrainable(model: nn.Module, shape: Shape) -> None:
    """Looks at one pass in training mode, and leaves the module in evaluation mode, in which it is exported.

    Raises: ModelError: names the layer that is random or looks at the whole batch, and what to use instead.
    """
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    kept = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    for call in calls(model, x):
        if "batch_norm" in call.operation and "instance" not in call.place.lower():
            raise ModelError(
                f"{call.place} normalises over the batch, and each node has statistics of its own: use nn.GroupNorm"
            )
        if call.random:
            raise ModelError(
                f"{call.place} is random ({call.operation}): a training graph is not; remove it or set its rate to 0"
            )
    with torch.no_grad():
        training = model(x)
        for name, value in model.named_buffers():
            if not torch.equal(value, kept[name]):
                own = name.removeprefix("model.")
                raise ModelError(f"the module changes its buffer {own} while it trains: only parameters may change")
        model.eval()
        together = model(x)
        alone = [model(x[row : row + 1]) for row in range(len(x))]
    for place, name in enumerate(("logits", "embedding", "aux")[: len(together)]):
        if not torch.isfinite(together[place]).all():
            raise ModelError(f"the module's {name} are not finite for inputs between 0 and 1")
        if not _close(training[place], together[place]):
            raise ModelError(f"the module's {name} differ between training and evaluation mode: boards know one mode")
        if not _close(torch.cat([row[place] for row in alone]), together[place]):
            raise ModelError(f"the module's {name} of one row depend on the other rows of its batch")


def _close(one: Tensor, other: Tensor) -> bool:
    """Equal up to float32 rounding."""
    return one.shape == other.shape and bool((one - other).norm() <= 1e-4 * other.norm() + 1e-6)


def place_of(model: nn.Module, operation: str, x: Tensor) -> str:
    """Where `operation` runs in the module, "" where it does not. The exporter may know it by a shorter name of another
    family: "prims.bessel_j0" for "aten.special_bessel_j0"."""
    name = operation.split(".")[-1]
    return next((call.place for call in calls(model, x) if call.operation.endswith(name)), "")


def cost(model: nn.Module, shape: Shape) -> tuple[int, int]:
    """(flops, activation bytes) of one row's forward pass.

    A multiply-add counts two, any other operation one per number of its result. Bytes are those of all intermediate
    results together, as a training step keeps them; views take none.
    """
    done = calls(model, torch.zeros(1, *shape))
    return sum(call.flops for call in done), sum(call.result_bytes for call in done)
