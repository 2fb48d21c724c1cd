"""Runs a graph node by node with the NumPy operators, and forgets every value after its last use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgeswarm.backends.operators import LIMIT_BYTES, OPERATORS, apply
from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.models.graph import Graph, Node

_FLOAT, _DOUBLE = 1, 11  # TensorProto.DataType, in attribute `to` of Cast


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A graph ready to run. Holds nothing that changes: any number of threads may call it.

    forget: for each node the names nobody needs after it.  limit_bytes: largest array an operator may make.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, NDArray[Any]]
    nodes: tuple[Node, ...]
    forget: tuple[tuple[str, ...], ...]
    limit_bytes: int

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name, in arrays of their own. feeds: by name; those the graph has no input for are left out.

        Raises ModelError: shapes do not go together, naming the node.  OutOfMemory: an operator's result is too large.
        """
        values: dict[str, NDArray[Any]] = {**self.constants, **{name: feeds[name] for name in self.inputs}}
        with np.errstate(all="ignore"):
            for node, forget in zip(self.nodes, self.forget, strict=True):
                results = self._run(node, [values[name] if name else None for name in node.inputs])
                values.update((name, got) for name, got in zip(node.outputs, results, strict=False) if name)
                for name in forget:
                    del values[name]
        return {name: np.array(values[name]) for name in self.outputs}

    def _run(self, node: Node, inputs: list[NDArray[Any] | None]) -> tuple[NDArray[Any], ...]:
        asked = max(at + 1 for at, name in enumerate(node.outputs) if name)
        try:
            return apply(node.op, inputs, node.attributes, asked, self.limit_bytes)
        except OutOfMemory as error:
            raise OutOfMemory(f"node {_place(node)}: {error}") from None
        except MemoryError:
            raise OutOfMemory(f"node {_place(node)}: no memory for operator {node.op}: use a smaller batch") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            shapes = ", ".join("none" if a is None else str(a.shape) for a in inputs)
            raise ModelError(
                f"node {_place(node)}: operator {node.op} cannot take values of shapes {shapes}: {_line(error)}"
            ) from None


def program(graph: Graph, dtype: DTypeLike = np.float32, limit_bytes: int = LIMIT_BYTES) -> Program:
    """dtype: float32 runs the graph as it stands; float64 runs every float32 of it as float64.

    Raises ModelError: an operator is not on the list.
    """
    for node in graph.nodes:
        if node.op not in OPERATORS:
            raise ModelError(f"node {_place(node)}: operator {node.op} is not run here: build the model without it")
    wide = np.dtype(dtype) == np.float64
    constants = {name: _widened(value) if wide else value for name, value in graph.constants.items()}
    nodes = tuple(map(_widened_node, graph.nodes)) if wide else graph.nodes
    outputs = tuple(value.name for value in graph.outputs)
    return Program(
        inputs=tuple(value.name for value in graph.inputs),
        outputs=outputs,
        constants=constants,
        nodes=nodes,
        forget=_last_uses(nodes, {*outputs, *constants}),
        limit_bytes=limit_bytes,
    )


def _last_uses(nodes: tuple[Node, ...], kept: set[str]) -> tuple[tuple[str, ...], ...]:
    """After each node: names that no later node reads. Inputs of the graph count like any value."""
    seen, gone = set(kept), []
    for node in reversed(nodes):
        names = {name for name in (*node.inputs, *node.outputs) if name} - seen
        seen |= names
        gone.append(tuple(sorted(names)))
    return tuple(reversed(gone))


def _widened(value: Any) -> Any:
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


def _widened_node(node: Node) -> Node:
    attributes = {key: _widened(value) for key, value in node.attributes.items()}
    if node.op == "ConstantOfShape":
        attributes.setdefault("value", np.zeros(1))
    if node.op == "Cast" and attributes.get("to") == _FLOAT:
        attributes["to"] = _DOUBLE
    return replace(node, attributes=attributes)


def _place(node: Node) -> str:
    return repr(node.name or node.outputs[0])


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
