"""A stored graph as a list of torch calls: shapes worked out once, constants on the device, group norms put together.

# Theory. Lengths of all inputs decide the lengths of everything else, so for each combination of input shapes the graph
# is gone through once with tensors that have a shape and no content (torch's "meta" device). What depends on shapes and
# constants alone is computed then; what is left is a straight list of calls on tensors, which autograd and vmap follow
# like any other torch code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeswarm.backends.torch_layers import batched_conv
from edgeswarm.backends.torch_operators import TABLE, Known, Lower
from edgeswarm.errors import ModelError
from edgeswarm.models.graph import Graph, Node

PLANS = 16
"""Combinations of input shapes remembered per graph: a training batch, a last one, some sizes of evaluation."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """values[outs] = call(values[ins]); afterwards nobody reads `gone`."""

    call: Callable[..., Any]
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    gone: tuple[int, ...] = ()


class Program:
    """A graph on a device; call it with tensors by input name. Safe in several threads."""

    def __init__(self, graph: Graph, device: torch.device, many: bool = False) -> None:
        """many: to be called under vmap, with parameters of each agent's own.

        Raises ModelError: the graph holds an operator this backend has not.
        """
        missing = sorted({node.op for node in graph.nodes} - TABLE.keys())
        if missing:
            raise ModelError(f"the torch backend has no operator {missing[0]}: use the backend onnx or reference")
        self.graph, self.device = graph, device
        self.inputs = tuple(value.name for value in graph.inputs)
        self.outputs = tuple(value.name for value in graph.outputs)
        self.pays = device.type == "cuda" or not any(node.op.startswith("Conv") for node in graph.nodes)
        """Whether a call for many agents takes less time than one by one; see `torch_group`."""
        self._table = {**TABLE, "Conv": batched_conv} if many and device.type == "cuda" else TABLE
        self._norms = group_norms(graph)
        self._plans: OrderedDict[tuple[Any, ...], Plan] = OrderedDict()

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name. inputs: every input of the graph, on the device.

        Under vmap or grad, call `plan` before, outside: inside, torch wraps what is to be worked out here.
        Raises ModelError: shapes that the graph cannot take.
        """
        plan = self.plan(inputs)
        return dict(zip(self.outputs, plan.run([inputs[name] for name in self.inputs]), strict=True))

    def plan(self, inputs: Mapping[str, Tensor]) -> Plan:
        """The calls for inputs of these shapes, made once. Raises ModelError: shapes that the graph cannot take."""
        given = [inputs[name] for name in self.inputs]
        key = tuple((value.shape, value.dtype) for value in given)
        plan = self._plans.get(key)
        if plan is None:
            plan = Plan(self.graph, self._table, self._norms, given, self.device)
            self._plans[key] = plan
            while len(self._plans) > PLANS:
                self._plans.popitem(last=False)
        return plan


class Plan:
    """The calls for one combination of input shapes."""

    def __init__(
        self,
        graph: Graph,
        table: Mapping[str, Lower],
        norms: Mapping[str, GroupNorm],
        given: Sequence[Tensor],
        device: torch.device,
    ) -> None:
        self._table, self._device = table, device
        self._values: list[Tensor | None] = []
        self._examples: list[Tensor | None] = []
        self._steps: list[Step] = []
        self._slots: dict[str, int] = {}
        self._known: dict[str, NDArray[Any]] = dict(graph.constants)
        for value, tensor in zip(graph.inputs, given, strict=True):
            self._slots[value.name] = self._slot(torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"))
        with torch.no_grad():
            for node in graph.nodes:
                try:
                    self._add(node, norms.get(node.outputs[0]))
                except ModelError:
                    raise
                except (RuntimeError, ValueError, IndexError, TypeError) as fault:
                    text = str(fault).strip().splitlines() or [type(fault).__name__]
                    raise ModelError(f"the rows do not fit the model, at {node.op}: {text[0]}") from fault
        self._wanted = [self._operand(value.name) for value in graph.outputs]
        self._prune(len(given))
        self._examples, self._known, self._slots = [], {}, {}

    def run(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Outputs in the graph's order."""
        values: list[Any] = self._values.copy()
        values[: len(given)] = given
        for step in self._steps:
            result = step.call(*[values[at] for at in step.ins])
            if len(step.outs) == 1:
                values[step.outs[0]] = result[0] if isinstance(result, tuple) else result
            else:
                for at, part in zip(step.outs, result, strict=False):
                    values[at] = part
            for at in step.gone:
                values[at] = None
        return [values[at] for at in self._wanted]

    def _slot(self, example: Tensor | None, value: Tensor | None = None) -> int:
        self._values.append(value)
        self._examples.append(example)
        return len(self._values) - 1

    def _operand(self, name: str) -> int:
        """Where the value is; a constant is put on the device when somebody first asks for it."""
        if name not in self._slots:
            tensor = torch.from_numpy(np.array(self._known[name])).to(self._device)
            self._slots[name] = self._slot(tensor.to("meta"), tensor)
        return self._slots[name]

    def _add(self, node: Node, norm: GroupNorm | None) -> None:
        args: list[Known] = [
            None if not name else self._known[name] if name in self._known else self._examples[self._slots[name]]
            for name in node.inputs
        ]
        call, takes = self._table[node.op](node, args)
        names = [node.inputs[at] for at in takes]
        if all(name in self._known for name in names):
            result = call(*[torch.from_numpy(np.array(self._known[name])) for name in names])
            for name, part in zip(node.outputs, _parts(result, node), strict=False):
                self._known[name] = part.numpy()
            return
        if norm is not None and self._normalises(norm):
            call, names = norm.call, [norm.x, norm.scale, norm.bias]
        ins = tuple(self._operand(name) for name in names)
        result = call(*[self._examples[at] for at in ins])
        outs = tuple(self._slot(part) for part in _parts(result, node))
        self._slots.update(zip(node.outputs, outs, strict=False))
        self._steps.append(Step(call, ins, outs))

    def _normalises(self, norm: GroupNorm) -> bool:
        """Whether the chain of nodes keeps the shape and scales channels."""
        x, y = self._examples[self._slots[norm.x]], self._examples[self._slots[norm.reshaped]]
        scales = [self._examples[self._operand(name)] for name in (norm.scale, norm.bias)]
        return x is not None and y is not None and x.shape == y.shape and all(
            scale is not None and scale.shape == x.shape[1:2] for scale in scales
        )  # fmt: skip

    def _prune(self, inputs: int) -> None:
        """Drop calls whose results nobody reads, and let go of each value after its last reader."""
        needed, kept = set(self._wanted), []
        keep = set(self._wanted) | set(range(inputs))
        keep |= {at for at, value in enumerate(self._values) if value is not None}
        for step in reversed(self._steps):
            if needed.isdisjoint(step.outs):
                continue
            last = (set(step.ins) - needed | {at for at in step.outs if at not in needed}) - keep
            needed |= set(step.ins)
            kept.append(Step(step.call, step.ins, step.outs, tuple(last)))
        self._steps = kept[::-1]
        self._values = [value if at in needed else None for at, value in enumerate(self._values)]


@dataclass(frozen=True, slots=True)
class GroupNorm:
    """A chain that torch's exporter writes for GroupNorm: Reshape to (n, groups, -1), InstanceNormalization with scale
    1 and shift 0, Reshape back, Mul by a scale per channel, Add of a shift per channel. x, scale (channels,), bias
    (channels,): names of its inputs.  reshaped: the value after the second Reshape."""

    x: str
    reshaped: str
    scale: str
    bias: str
    call: Callable[..., Any]


def group_norms(graph: Graph) -> dict[str, GroupNorm]:
    """Chains that one call of torch's group_norm stands for, by the name of their last value."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    found: dict[str, GroupNorm] = {}
    for last in graph.nodes:
        if last.op != "Add":
            continue
        for product, shift in (last.inputs, last.inputs[::-1]):
            scaled, bias = makers.get(product), _vector(makers.get(shift))
            if scaled is None or scaled.op != "Mul" or not bias:
                continue
            for inner, factor in (scaled.inputs, scaled.inputs[::-1]):
                scale, chain = _vector(makers.get(factor)), _plain_norm(graph, makers, inner)
                if scale and chain:
                    found[last.outputs[0]] = GroupNorm(chain[0], inner, scale, bias, chain[1])
    return found


def _vector(node: Node | None) -> str:
    """The input of an Unsqueeze that appends axes to a vector, "" when it is something else."""
    return node.inputs[0] if node is not None and node.op == "Unsqueeze" else ""


def _plain_norm(graph: Graph, makers: Mapping[str, Node], name: str) -> tuple[str, Callable[..., Any]] | None:
    """(x, call) when `name` is Reshape(InstanceNormalization(Reshape(x), 1, 0))."""
    back = makers.get(name)
    inner = makers.get(back.inputs[0]) if back is not None and back.op == "Reshape" else None
    if inner is None or inner.op != "InstanceNormalization":
        return None
    before = makers.get(inner.inputs[0])
    ones, zeros = (graph.constants.get(part) for part in inner.inputs[1:3])
    if before is None or before.op != "Reshape" or ones is None or zeros is None or (ones != 1).any() or zeros.any():
        return None
    shape = graph.constants.get(before.inputs[1])
    if shape is None or len(shape) != 3 or shape[1] != ones.size:
        return None
    groups, epsilon = int(ones.size), float(inner.attributes.get("epsilon", 1e-5))
    return before.inputs[0], lambda x, scale, bias: torch.group_norm(x, groups, scale, bias, epsilon)


def _parts(result: Any, node: Node) -> tuple[Any, ...]:
    """A call's results, one per output of the node."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)
