"""The stages of `build`: make the module, trace it, differentiate its losses, verify them, seal the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from edgeswarm import __version__
from edgeswarm.backends.operators import OPERATORS
from edgeswarm.errors import ModelError
from edgeswarm.export import checks, losses, modules
from edgeswarm.export.architectures import ARCHITECTURES, Shape, create
from edgeswarm.export.autodiff import gradient
from edgeswarm.export.rules import place
from edgeswarm.export.trace import Untraceable, cut, examples, stored, trace
from edgeswarm.export.verify import Graphs, Verifier
from edgeswarm.models.card import InputSpec, LossSpec, ModelCard, Parameter
from edgeswarm.models.file import Model, seal


@dataclass(frozen=True, slots=True)
class Order:
    """What `build` was asked for; see there."""

    architecture: str
    labels: tuple[str, ...]
    heads: int
    shape: Shape | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    units: str
    seed: int
    name: str
    licence: str
    licence_text: str
    options: Mapping[str, Any]
    normalised: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A module ready to be traced. modules: by graph, "forward" and the losses; params: its vector (p,).

    traceable: gives what both "forward" and "ce" give.
    """

    whole: modules.Standard
    entry: InputSpec
    parameters: tuple[Parameter, ...]
    embedding: int
    params: Tensor
    specs: Mapping[str, LossSpec]
    modules: Mapping[str, nn.Module]
    traceable: nn.Module


def assemble(order: Order, progress: Callable[[str], None]) -> Model:
    """See `build.build`. torch's generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(order.seed)
        return _assembled(order, _plan(order), progress)


def _assembled(order: Order, plan: Plan, progress: Callable[[str], None]) -> Model:
    progress(f"{order.architecture}: {plan.params.numel()} parameters, embedding {plan.embedding}")
    verifier = Verifier(order.mean, order.std, len(order.labels))
    graphs: dict[str, bytes] = {}
    both = _trace_ce(plan, order.heads)
    traced = cut(both, ["logits", "embedding", "aux"])
    graphs["forward"] = stored(traced)
    references = [verifier.forward(plan.modules["forward"], plan.params, plan.entry.shape, graphs["forward"])]
    progress(f"forward: {len(traced.graph.node)} nodes")
    for name, spec in plan.specs.items():
        traced = cut(both, ["loss", *spec.outputs]) if name == "ce" else _trace_distill(plan, spec)
        slope = gradient(
            traced,
            keep=spec.outputs,
            parameters=[(parameter.name, parameter.size) for parameter in plan.parameters],
            unused=_unused(plan, name),
        )
        _check_operators(slope)
        graphs[f"{name}.loss"], graphs[f"{name}.gradient"] = stored(traced), stored(slope)
        pair = Graphs(graphs[f"{name}.loss"], graphs[f"{name}.gradient"])
        off = verifier.loss(name, plan.modules[name], spec, plan.params, pair)
        references.append(verifier.reference(name, plan.modules[name], spec, plan.params, pair))
        progress(f"{name}: {len(slope.graph.node)} nodes in the gradient, off torch's float64 by {off:.1e}")
    flops, activation_bytes = checks.cost(plan.whole, plan.entry.shape)
    card = ModelCard(
        name=order.name or re.sub(r"[^A-Za-z0-9._-]+", "-", order.architecture).strip("-._")[:64],
        architecture=order.architecture,
        parameters=plan.parameters,
        input=plan.entry,
        labels=order.labels,
        embedding=plan.embedding,
        heads=order.heads,
        losses=plan.specs,
        flops=flops,
        activation_bytes=activation_bytes,
        licence=order.licence,
        producer={
            "edgeswarm": __version__,
            "torch": str(torch.__version__),
            "onnx": str(onnx.__version__),
            "onnxruntime": str(onnxruntime.__version__),
        },
        normalised=order.normalised,
    )
    initial = plan.params.numpy().astype(np.float32)
    return seal(card, graphs, initial, tuple(references), order.licence_text, allowed=OPERATORS)


def _plan(order: Order) -> Plan:
    """The module, tried, with its parameters in the vector's order and a traceable module per graph."""
    classes, heads = len(order.labels), order.heads
    if order.architecture in ARCHITECTURES:
        shape = order.shape or ARCHITECTURES[order.architecture].shape
        model: nn.Module = create(order.architecture, classes, heads, shape, order.mean, order.std, **order.options)
    else:
        if order.shape is None:
            raise ModelError(f"{order.architecture}: say the shape of one sample with shape, e.g. (1, 28, 28)")
        shape = order.shape
        model = modules.load_users(order.architecture, classes, heads, shape, order.options)
        model = modules.scaled(model, shape, order.mean, order.std)
    whole = modules.standard(model, classes, heads, shape, order.normalised)
    checks.refuse_untrainable(whole, shape)
    named = whole.named_parts()
    parameters = tuple(
        Parameter(name, tuple(named[name].shape), part) for name, part in modules.parts(whole, shape).items()
    )
    params = torch.cat([named[parameter.name].detach().flatten() for parameter in parameters])
    if not torch.isfinite(params).all():
        raise ModelError("the module's parameters are not all finite numbers")
    entry = InputSpec(shape, "image" if len(shape) == 3 else "vector", order.units)
    with torch.no_grad():
        embedding = int(whole(torch.zeros(1, *shape))[1].shape[1])
    forward = losses.Forward(whole, parameters)
    specs = {"ce": losses.ce_spec(entry)}
    by_graph: dict[str, nn.Module] = {"forward": forward, "ce": losses.CrossEntropy(forward, classes)}
    if heads:
        specs["distill"] = losses.distill_spec(entry, classes, heads, embedding)
        by_graph["distill"] = losses.Distillation(forward, classes, heads, embedding)
    traceable = losses.CrossEntropyAndForward(forward, classes)
    return Plan(whole, entry, parameters, embedding, params, specs, by_graph, traceable)


def _trace_ce(plan: Plan, heads: int) -> onnx.ModelProto:
    """The forward graph and the loss `ce` in one."""
    inputs, axes = examples(plan.specs["ce"], plan.params)
    outputs = ["loss", "logits", "embedding", *(["aux"] if heads else [])]
    return _traced(plan, plan.traceable, inputs, axes, outputs)


def _trace_distill(plan: Plan, spec: LossSpec) -> onnx.ModelProto:
    inputs, axes = examples(spec, plan.params)
    return _traced(plan, plan.modules["distill"], inputs, axes, ["loss", *spec.outputs])


def _traced(
    plan: Plan, module: nn.Module, inputs: dict[str, Tensor], axes: dict[str, str | None], outputs: list[str]
) -> onnx.ModelProto:
    """The graph, every operator allowed. Raises ModelError with the place in the user's module."""
    try:
        model = trace(module, inputs, axes, outputs)
    except Untraceable as error:
        where = checks.place_of(plan.whole, error.operation, inputs["x"]) if error.operation else ""
        raise ModelError(f"{where}: {error}" if where else str(error)) from error
    _check_operators(model)
    return model


def _check_operators(model: onnx.ModelProto) -> None:
    """Raises ModelError: an operator no board knows, with its place in the user's module."""
    for node in model.graph.node:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            where = place(node)
            raise ModelError(
                f"operator {node.op_type}{f' (from {where})' if where else ''} is not one that boards run; "
                "rewrite this part of the module with other operations"
            )


def _unused(plan: Plan, name: str) -> set[str]:
    """Names of parameters that the loss does not depend on: `ce` knows nothing of auxiliary heads."""
    if name != "ce":
        return set()
    with torch.enable_grad():
        logits = plan.whole(torch.rand(2, *plan.entry.shape))[0]
        named = plan.whole.named_parts()
        slopes = torch.autograd.grad(logits.sum(), list(named.values()), allow_unused=True)
    return {parameter for parameter, slope in zip(named, slopes, strict=True) if slope is None}
