"""The user's own torch module, or a built-in one, brought to one form: x -> (logits, embedding) or with aux.

What a module may return:
- (logits, embedding) or (logits, embedding, aux), shapes (n, classes), (n, E), (n, heads, classes);
- logits alone: then they must be the output of the last `nn.Linear` that runs, and its input is the embedding.
Where heads are wanted and the module has none, they are put on the embedding (`architectures.AuxiliaryHeads`).

Which part of the vector a parameter belongs to follows from the graph, not from names: what the embedding depends on is
BODY, the rest HEAD.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeswarm.errors import ModelError
from edgeswarm.export.architectures import AuxiliaryHeads, Normalise, Shape, first_line
from edgeswarm.models.card import BODY, HEAD


def load_users(place: str, classes: int, heads: int, shape: Shape, options: Mapping[str, Any]) -> nn.Module:
    """The torch module that the user's `module:function` returns.

    The function is called with `options`, and with those of classes, heads and shape that it has parameters for. The
    current folder is searched too.
    Raises: ModelError, one line: not found, it raised, or it returned something else.
    """
    name, _, function_name = place.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        function = getattr(importlib.import_module(name), function_name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ModelError(f"{place}: module {name} needs {error.name}, which is not installed") from error
        raise ModelError(f"{place}: no module {name!r} here or in Python's search path") from error
    except Exception as error:
        raise ModelError(f"{place}: importing {name} raised {type(error).__name__}: {first_line(error)}") from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    if not callable(function):
        raise ModelError(f"{place}: module {name} has no function {function_name!r}")
    taken = inspect.signature(function).parameters
    offered = {"classes": classes, "heads": heads, "shape": shape}
    try:
        module = function(**{key: value for key, value in offered.items() if key in taken}, **options)
    except Exception as error:
        raise ModelError(f"{place} raised {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{place} returned {type(module).__name__}; it has to return a torch.nn.Module")
    return module


class Standard(nn.Module):
    """A module whose outputs are exactly (logits, embedding) or (logits, embedding, aux), in that order.

    model: what was wrapped.  logits_from: name of its last linear layer, where it returns logits alone.
    normalised: the embedding is scaled to length 1 (the heads see it as it was).
    """

    def __init__(self, model: nn.Module, logits_from: str = "", normalised: bool = False) -> None:
        super().__init__()
        self.model = model
        self.added: AuxiliaryHeads | None = None
        self.logits_from, self.normalised = logits_from, normalised

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (n, *shape) -> (logits, embedding[, aux])."""
        if self.logits_from:
            seen: list[Tensor] = []
            last = self.model.get_submodule(self.logits_from)
            hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            try:
                outputs = (self.model(x), seen[-1])
            finally:
                hook.remove()
        else:
            outputs = tuple(self.model(x))
        logits, embedding, *aux = outputs
        if self.added is not None:
            aux = [self.added(embedding)]
        return (logits, unit(embedding) if self.normalised else embedding, *aux)

    def named_parts(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by the names they have in the user's module."""
        own = {name.removeprefix("model."): value for name, value in self.named_parameters()}
        return {name: value for name, value in own.items() if value.requires_grad}


def scaled(model: nn.Module, shape: Shape, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """`model` behind (x - mean) / std; itself, where that changes nothing."""
    first = Normalise(shape, mean, std)
    return model if first.identity else Scaled(first, model)


class Scaled(nn.Module):
    """See `scaled`. The names of the model's parameters begin with "model."."""

    def __init__(self, first: Normalise, model: nn.Module) -> None:
        super().__init__()
        self.first, self.model = first, model

    def forward(self, x: Tensor) -> Any:
        """Whatever the model returns for the scaled x."""
        return self.model(self.first(x))


def unit(embedding: Tensor) -> Tensor:
    """e / max(|e|, 1e-6), rows (n, E): length 1, and 0 with a finite gradient where e is 0."""
    return embedding * torch.rsqrt(torch.clamp((embedding * embedding).sum(1, keepdim=True), min=1e-12))


def standard(model: nn.Module, classes: int, heads: int, shape: Shape, normalised: bool = False) -> Standard:
    """`model` in the one form, tried once on two rows.

    Raises: ModelError, one line: it cannot take the input, or an output is missing or has a wrong shape.
    """
    x = torch.rand(2, *shape)
    linear: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: linear.append((name, output)))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with torch.no_grad():
            returned = model(x)
    except Exception as error:
        raise ModelError(f"the module cannot take rows of shape {shape}: {first_line(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()
    logits_from = ""
    if isinstance(returned, Tensor):
        if not linear or linear[-1][1] is not returned:
            raise ModelError(
                "the module returns logits that are not the output of its last nn.Linear: return (logits, embedding)"
            )
        logits_from = linear[-1][0]
        if not logits_from:
            raise ModelError("a single linear layer has no embedding: return (logits, embedding)")
    elif not isinstance(returned, tuple | list) or len(returned) not in (2, 3):
        raise ModelError("the module has to return logits, (logits, embedding) or (logits, embedding, aux)")
    whole = Standard(model, logits_from, normalised)
    with torch.no_grad():
        outputs = whole(x)
    if heads and len(outputs) == 2:
        whole.added = AuxiliaryHeads(outputs[1].shape[-1], heads, classes)
    _check_shapes(outputs, classes, heads)
    return whole


def _check_shapes(outputs: tuple[Tensor, ...], classes: int, heads: int) -> None:
    """Raises ModelError unless the outputs of two rows have the shapes they should have."""
    for name, output in zip(("logits", "embedding", "aux"), outputs, strict=False):
        if not isinstance(output, Tensor):
            raise ModelError(f"the module's {name} are a {type(output).__name__}, not a tensor")
        wanted = {"logits": (2, classes), "embedding": (2, "E"), "aux": (2, heads, classes)}[name]
        found = tuple(output.shape)
        if len(found) != len(wanted) or any(w not in ("E", f) for w, f in zip(wanted, found, strict=True)):
            text = str(wanted).replace("2", "n", 1).replace("'", "")
            raise ModelError(f"the module's {name} have shape {found} for two rows; {text} is needed")
        if output.dtype != torch.float32:
            raise ModelError(f"the module's {name} are {output.dtype}; float32 is needed")
    if len(outputs) == 3 and not heads:
        raise ModelError("the module returns auxiliary heads: say how many with heads")


def parts(whole: Standard, shape: Shape) -> dict[str, str]:
    """BODY or HEAD for each trainable parameter, by name, those of the body first, otherwise in the module's order.

    Raises: ModelError: a parameter is not float32, or no output depends on it.
    """
    named = whole.named_parts()
    for name, value in named.items():
        if value.dtype != torch.float32:
            raise ModelError(f"parameter {name} is {value.dtype}; models are float32")
    if not named:
        raise ModelError("the module has no trainable parameter")
    outputs = whole(torch.rand(2, *shape))
    reached = _reached([outputs[1]], named)
    used = _reached(list(outputs), named)
    unused = sorted(set(named) - used)
    if unused:
        raise ModelError(f"no output depends on parameter {unused[0]}: remove it, or set requires_grad to False")
    return {name: part for part in (BODY, HEAD) for name in named if (name in reached) == (part == BODY)}


def _reached(outputs: list[Tensor], named: Mapping[str, nn.Parameter]) -> set[str]:
    """Names of the parameters that some of the outputs depend on."""
    alive = [output for output in outputs if output.requires_grad]
    if not alive:
        return set()
    total = torch.stack([output.sum() for output in alive]).sum()
    slopes = torch.autograd.grad(total, list(named.values()), allow_unused=True, retain_graph=True)
    return {name for name, slope in zip(named, slopes, strict=True) if slope is not None}
