"""ONNX operators as torch functions: elementwise, logical, shape, indexing and reduction.

An entry of `TABLE` takes a node and what is known of its inputs (an example tensor, a NumPy array for what is fixed
when the graph is compiled, None for one left out), and returns a function and the positions of the inputs it takes.
Whatever else decides the result (axes, shapes, attributes) is bound in the function, so that a compiled graph is a list
of calls. Meaning: the ONNX operator of that name, opset 18 to 21. Layers are in `torch_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeswarm.errors import ModelError
from edgeswarm.models.graph import Node

Known: TypeAlias = "Tensor | NDArray[Any] | None"
Lowered: TypeAlias = "tuple[Callable[..., Any], tuple[int, ...]]"
Lower: TypeAlias = "Callable[[Node, Sequence[Known]], Lowered]"

TABLE: dict[str, Lower] = {}

TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool,
         10: torch.float16, 11: torch.float64}  # fmt: skip
"""TensorProto.DataType to torch."""


def operator(*names: str) -> Callable[[Lower], Lower]:
    """Enter a function into the table under these names."""

    def enter(lower: Lower) -> Lower:
        TABLE.update(dict.fromkeys(names, lower))
        return lower

    return enter


def refuse(node: Node, what: str) -> ModelError:
    """An error that names the node."""
    return ModelError(f"the torch backend cannot run {node.op} {node.outputs[0]!r}: {what}; use the backend onnx")


def fixed(node: Node, args: Sequence[Known], at: int) -> NDArray[Any] | None:
    """Input `at` as an array, None when it is left out. Raises ModelError: it is computed from data."""
    value = args[at] if at < len(args) else None
    if isinstance(value, Tensor):
        raise refuse(node, f"its input {at} is known only when it runs")
    return value


def integers(node: Node, args: Sequence[Known], at: int) -> tuple[int, ...] | None:
    """Input `at` as Python integers."""
    value = fixed(node, args, at)
    return None if value is None else tuple(int(number) for number in value.reshape(-1))


def lengths(value: Known) -> tuple[int, ...]:
    """Shape of an input that is there."""
    assert value is not None
    return tuple(value.shape)


def axes_of(node: Node, args: Sequence[Known]) -> tuple[int, ...] | None:
    """Axes from the second input or, as before opset 18, the attribute; None when neither is there."""
    axes = integers(node, args, 1)
    if axes is None and "axes" in node.attributes:
        axes = tuple(node.attributes["axes"])
    return axes


# ---- elementwise ----------------------------------------------------------------------------------------------------

UNARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs, "Ceil": torch.ceil, "Cos": torch.cos, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor,
    "Log": torch.log, "Neg": torch.neg, "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Relu": torch.relu,
    "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sqrt": torch.sqrt,
    "Tanh": torch.tanh, "Softplus": torch.nn.functional.softplus, "Softsign": torch.nn.functional.softsign,
    "HardSwish": torch.nn.functional.hardswish, "Identity": lambda x: x, "Dropout": lambda x: x,
}  # fmt: skip
BINARY: dict[str, Callable[..., Any]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Equal": torch.eq, "Greater": torch.gt, "Less": torch.lt,
    "GreaterOrEqual": torch.ge, "LessOrEqual": torch.le, "And": torch.logical_and, "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}  # fmt: skip
MANY: dict[str, Callable[..., Any]] = {"Max": torch.maximum, "Min": torch.minimum, "Sum": torch.add, "Mean": torch.add}


@operator(*UNARY)
def _unary(node: Node, args: Sequence[Known]) -> Lowered:
    return UNARY[node.op], (0,)


@operator(*BINARY)
def _binary(node: Node, args: Sequence[Known]) -> Lowered:
    return BINARY[node.op], (0, 1)


@operator(*MANY)
def _many(node: Node, args: Sequence[Known]) -> Lowered:
    pair, share = MANY[node.op], 1.0 / len(args)

    def run(first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = pair(first, other)
        return first * share if node.op == "Mean" else first

    return run, tuple(range(len(args)))


@operator("Div")
def _div(node: Node, args: Sequence[Known]) -> Lowered:
    whole = all(_integral(value) for value in args)
    return (lambda a, b: torch.div(a, b, rounding_mode="trunc")) if whole else torch.div, (0, 1)


@operator("Mod")
def _mod(node: Node, args: Sequence[Known]) -> Lowered:
    return torch.fmod if node.attributes.get("fmod", 0) else torch.remainder, (0, 1)


@operator("Pow")
def _pow(node: Node, args: Sequence[Known]) -> Lowered:
    exponent = args[1]
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and exponent.ndim <= len(lengths(args[0])):
        power = exponent.item()
        return lambda x: torch.pow(x, power), (0,)
    return torch.pow, (0, 1)


@operator("LeakyRelu", "Elu", "HardSigmoid", "Gelu")
def _shaped(node: Node, args: Sequence[Known]) -> Lowered:
    functional = torch.nn.functional
    if node.op == "Gelu":
        kind = node.attributes.get("approximate", "none")
        return lambda x: functional.gelu(x, approximate=kind), (0,)
    alpha = float(node.attributes.get("alpha", {"LeakyRelu": 0.01, "Elu": 1.0, "HardSigmoid": 0.2}[node.op]))
    beta = float(node.attributes.get("beta", 0.5))
    if node.op == "LeakyRelu":
        return lambda x: functional.leaky_relu(x, alpha), (0,)
    if node.op == "Elu":
        return lambda x: functional.elu(x, alpha), (0,)
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0), (0,)


@operator("PRelu")
def _prelu(node: Node, args: Sequence[Known]) -> Lowered:
    return lambda x, slope: torch.where(x < 0, x * slope, x), (0, 1)


@operator("Clip")
def _clip(node: Node, args: Sequence[Known]) -> Lowered:
    low, high = fixed(node, args, 1), fixed(node, args, 2)
    bounds = (None if low is None else low.item(), None if high is None else high.item())
    if bounds == (None, None):
        return lambda x: x, (0,)
    if bounds == (0.0, 6.0):  # ReLU6, whose gradient at its bounds is 0 where that of clamp is 1
        return torch.nn.functional.relu6, (0,)
    return lambda x: torch.clamp(x, *bounds), (0,)


@operator("Where")
def _where(node: Node, args: Sequence[Known]) -> Lowered:
    return torch.where, (0, 1, 2)


@operator("Cast")
def _cast(node: Node, args: Sequence[Known]) -> Lowered:
    kind = TYPES.get(int(node.attributes["to"]))
    if kind is None:
        raise refuse(node, f"it casts to ONNX type {node.attributes['to']}")
    return lambda x: x.to(kind), (0,)


@operator("CastLike")
def _cast_like(node: Node, args: Sequence[Known]) -> Lowered:
    return lambda x, like: x.to(like.dtype), (0, 1)


# ---- shapes ---------------------------------------------------------------------------------------------------------


@operator("Reshape")
def _reshape(node: Node, args: Sequence[Known]) -> Lowered:
    wanted, have = integers(node, args, 1) or (), lengths(args[0])
    if not node.attributes.get("allowzero", 0):
        wanted = tuple(have[axis] if length == 0 else length for axis, length in enumerate(wanted))
    if 0 in wanted and -1 in wanted:  # torch cannot tell what -1 is then, ONNX takes the rows there are
        wanted = tuple(0 if length == -1 else length for length in wanted)
    return lambda x: x.reshape(wanted), (0,)


@operator("Flatten")
def _flatten(node: Node, args: Sequence[Known]) -> Lowered:
    have, axis = lengths(args[0]), int(node.attributes.get("axis", 1))
    axis = axis + len(have) if axis < 0 else axis
    shape = (int(np.prod(have[:axis], dtype=np.int64)), int(np.prod(have[axis:], dtype=np.int64)))
    return lambda x: x.reshape(shape), (0,)


@operator("Squeeze")
def _squeeze(node: Node, args: Sequence[Known]) -> Lowered:
    have, axes = lengths(args[0]), axes_of(node, args)
    gone = {axis % len(have) for axis in axes} if axes is not None else {a for a, n in enumerate(have) if n == 1}
    shape = tuple(length for axis, length in enumerate(have) if axis not in gone)
    return lambda x: x.reshape(shape), (0,)


@operator("Unsqueeze")
def _unsqueeze(node: Node, args: Sequence[Known]) -> Lowered:
    have, axes = list(lengths(args[0])), axes_of(node, args) or ()
    rank = len(have) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        have.insert(axis, 1)
    shape = tuple(have)
    return lambda x: x.reshape(shape), (0,)


@operator("Transpose")
def _transpose(node: Node, args: Sequence[Known]) -> Lowered:
    order = tuple(node.attributes.get("perm", range(len(lengths(args[0])))[::-1]))
    return lambda x: x.permute(order), (0,)


@operator("Expand")
def _expand(node: Node, args: Sequence[Known]) -> Lowered:
    shape = np.broadcast_shapes(lengths(args[0]), integers(node, args, 1) or ())
    return lambda x: x.expand(shape), (0,)


@operator("Tile")
def _tile(node: Node, args: Sequence[Known]) -> Lowered:
    repeats = integers(node, args, 1) or ()
    return lambda x: x.repeat(repeats), (0,)


@operator("Concat")
def _concat(node: Node, args: Sequence[Known]) -> Lowered:
    axis = int(node.attributes["axis"])
    return lambda *parts: torch.cat(parts, axis), tuple(range(len(args)))


@operator("Split")
def _split(node: Node, args: Sequence[Known]) -> Lowered:
    axis, sizes = int(node.attributes.get("axis", 0)), integers(node, args, 1)
    if sizes is None:
        total, parts = lengths(args[0])[axis], int(node.attributes.get("num_outputs", len(node.outputs)))
        each = -(-total // parts)
        sizes = tuple(max(0, min(each, total - part * each)) for part in range(parts))
    cut = list(sizes)
    return lambda x: torch.split(x, cut, axis), (0,)


@operator("Slice")
def _slice(node: Node, args: Sequence[Known]) -> Lowered:
    have = lengths(args[0])
    starts, ends = integers(node, args, 1) or (), integers(node, args, 2) or ()
    axes = integers(node, args, 3) or tuple(range(len(starts)))
    steps = integers(node, args, 4) or (1,) * len(starts)
    cuts, turned = [slice(None)] * len(have), []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(have)
        taken = range(have[axis])[start if start >= -have[axis] or step > 0 else -have[axis] : end : step]
        if step > 0:
            cuts[axis] = slice(taken.start, taken.stop, step)
        elif len(taken):
            cuts[axis] = slice(taken[-1], taken[0] + 1, -step)  # torch has no negative steps: cut, then turn round
            turned.append(axis)
        else:
            cuts[axis] = slice(0, 0)
    at = tuple(cuts)
    return (lambda x: x[at].flip(turned)) if turned else (lambda x: x[at]), (0,)


@operator("Pad")
def _pad(node: Node, args: Sequence[Known]) -> Lowered:
    rank, pads, axes = len(lengths(args[0])), integers(node, args, 1) or (), integers(node, args, 3)
    value, mode = fixed(node, args, 2), node.attributes.get("mode", "constant")
    if mode != "constant":
        raise refuse(node, f"mode {mode!r}")
    chosen = axes if axes is not None else tuple(range(rank))
    sides = [0] * (2 * rank)
    for place, axis in enumerate(chosen):  # torch counts axes from the last
        at = 2 * (rank - 1 - axis % rank)
        sides[at], sides[at + 1] = pads[place], pads[place + len(chosen)]
    filling = 0.0 if value is None else value.item()
    return lambda x: torch.nn.functional.pad(x, sides, value=filling), (0,)


@operator("Shape", "Size")
def _shape(node: Node, args: Sequence[Known]) -> Lowered:
    have = lengths(args[0])
    if node.op == "Size":
        return lambda: torch.tensor(int(np.prod(have, dtype=np.int64))), ()
    part = have[node.attributes.get("start", 0) : node.attributes.get("end", len(have))]
    return lambda: torch.tensor(part, dtype=torch.int64), ()


@operator("ConstantOfShape")
def _constant_of_shape(node: Node, args: Sequence[Known]) -> Lowered:
    shape, value = integers(node, args, 0) or (), np.asarray(node.attributes.get("value", np.zeros(1, np.float32)))
    filling = torch.from_numpy(value.reshape(-1)[:1].copy())
    return lambda: filling.expand(shape).clone(), ()


@operator("Range")
def _range(node: Node, args: Sequence[Known]) -> Lowered:
    values = [fixed(node, args, at) for at in range(3)]
    if any(value is None for value in values):
        raise refuse(node, "an input is missing")
    return lambda: torch.from_numpy(np.arange(*(value.item() for value in values), dtype=values[0].dtype)), ()  # type: ignore[union-attr]


# ---- indexing -------------------------------------------------------------------------------------------------------


@operator("Gather")
def _gather(node: Node, args: Sequence[Known]) -> Lowered:
    have, index = lengths(args[0]), args[1]
    axis = int(node.attributes.get("axis", 0)) % len(have)
    if isinstance(index, np.ndarray) and index.ndim == 0:
        place = int(index) % have[axis]
        return lambda x: x.select(axis, place), (0,)
    shape = (*have[:axis], *lengths(index), *have[axis + 1 :])
    length = have[axis]
    return lambda x, at: torch.index_select(x, axis, at.reshape(-1).remainder(length).long()).reshape(shape), (0, 1)


@operator("GatherElements")
def _gather_elements(node: Node, args: Sequence[Known]) -> Lowered:
    axis = int(node.attributes.get("axis", 0))
    length = lengths(args[0])[axis]
    return lambda x, at: torch.gather(x, axis, at.remainder(length).long()), (0, 1)


@operator("ScatterElements")
def _scatter_elements(node: Node, args: Sequence[Known]) -> Lowered:
    axis, how = int(node.attributes.get("axis", 0)), node.attributes.get("reduction", "none")
    length = lengths(args[0])[axis]
    if how == "none":
        return lambda x, at, new: torch.scatter(x, axis, at.remainder(length).long(), new), (0, 1, 2)
    if how == "add":
        return lambda x, at, new: torch.scatter_add(x, axis, at.remainder(length).long(), new), (0, 1, 2)
    raise refuse(node, f"reduction {how!r}")


@operator("OneHot")
def _one_hot(node: Node, args: Sequence[Known]) -> Lowered:
    depth, values = integers(node, args, 1), fixed(node, args, 2)
    if depth is None or values is None or node.attributes.get("axis", -1) not in (
        -1, len(lengths(args[0])),
    ):  # fmt: skip
        raise refuse(node, "only the last axis, with a fixed depth and fixed values")
    classes, off, on = torch.arange(depth[0]), values[0].item(), values[1].item()
    kind = torch.from_numpy(values[:1].copy()).dtype

    def run(index: Tensor) -> Tensor:
        hit = torch.eq(index.remainder(depth[0])[..., None], classes.to(index.device))
        chosen: Tensor = hit.to(kind) * (on - off) + off
        return chosen

    return run, (0,)


@operator("ArgMax", "ArgMin")
def _arg(node: Node, args: Sequence[Known]) -> Lowered:
    axis, keep = int(node.attributes.get("axis", 0)), bool(node.attributes.get("keepdims", 1))
    if node.attributes.get("select_last_index", 0):
        raise refuse(node, "select_last_index")
    find = torch.argmax if node.op == "ArgMax" else torch.argmin
    return lambda x: find(x, axis, keep), (0,)


# ---- reductions -----------------------------------------------------------------------------------------------------

REDUCE: dict[str, Callable[..., Any]] = {
    "ReduceSum": torch.sum,
    "ReduceMean": torch.mean,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL2": lambda x, axes, keep: torch.sqrt(torch.sum(x * x, axes, keep)),
    "ReduceL1": lambda x, axes, keep: torch.sum(torch.abs(x), axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: torch.sum(x * x, axes, keep),
    "ReduceLogSumExp": torch.logsumexp,
}


@operator(*REDUCE)
def _reduce(node: Node, args: Sequence[Known]) -> Lowered:
    axes, keep = axes_of(node, args), bool(node.attributes.get("keepdims", 1))
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return lambda x: x, (0,)
        axes = tuple(range(len(lengths(args[0]))))
    reduce, over = REDUCE[node.op], axes
    if not over:
        return (lambda x: x * x) if node.op == "ReduceSumSquare" else (lambda x: x), (0,)
    return lambda x: reduce(x, over, keep), (0,)


@operator("ReduceProd")
def _reduce_prod(node: Node, args: Sequence[Known]) -> Lowered:
    axes, keep = axes_of(node, args), bool(node.attributes.get("keepdims", 1))
    over = axes or tuple(range(len(lengths(args[0]))))
    order = sorted((axis % len(lengths(args[0])) for axis in over), reverse=True)

    def run(x: Tensor) -> Tensor:
        for axis in order:
            x = torch.prod(x, axis, keep)
        return x

    return run, (0,)


@operator("Softmax", "LogSoftmax")
def _softmax(node: Node, args: Sequence[Known]) -> Lowered:
    axis = int(node.attributes.get("axis", -1))
    soft: Callable[..., Any] = torch.softmax if node.op == "Softmax" else torch.log_softmax
    return lambda x: soft(x, axis), (0,)


def _integral(value: Known) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point()
    return value is not None and value.dtype.kind in "iu"
