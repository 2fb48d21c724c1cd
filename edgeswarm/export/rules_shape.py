"""Gradients of operators that move numbers about without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeswarm.export.rules import Gradients, Op, Tape, axis_of, lengths, rule, rule_of_many


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(tape: Tape, node: Op, g: str) -> Gradients:
    """The same numbers in the input's shape."""
    return [tape.reshape_like(g, node.inputs[0])]


@rule("Transpose")
def transpose(tape: Tape, node: Op, g: str) -> Gradients:
    """The inverse permutation; by default the axes are reversed."""
    rank = tape.rank(node.inputs[0], node)
    order = node.attributes.get("perm") or list(range(rank))[::-1]
    return [tape.op("Transpose", g, perm=[int(axis) for axis in np.argsort(order)])]


@rule("Expand")
def expand(tape: Tape, node: Op, g: str) -> Gradients:
    """What was repeated is added up."""
    return [tape.sum_to(g, tape.shape(node.outputs[0], node), node.inputs[0], node)]


@rule("Tile")
def tile(tape: Tape, node: Op, g: str) -> Gradients:
    """Each axis becomes (repeats, length), and the repeats are added up."""
    x, repeats = node.inputs[0], tape.value(node.inputs[1])
    if repeats is None:
        raise node.refuse("its repeats must be constant")
    split: list[int] = []
    for times, length in zip(repeats.tolist(), tape.shape(x, node), strict=True):
        split += [times, length if isinstance(length, int) else -1]
    if split.count(-1) > 1:
        raise node.refuse("only one axis may be dynamic")
    apart = tape.op("Reshape", g, tape.ints(*split))
    return [tape.op("ReduceSum", apart, tape.ints(*range(0, len(split), 2)), keepdims=0)]


@rule("Concat")
def concat(tape: Tape, node: Op, g: str) -> Gradients:
    """Each input gets its stretch back; at most one of them may have an unknown length."""
    axis = axis_of(node.attributes["axis"], tape.rank(node.outputs[0], node))
    parts = [tape.shape(name, node)[axis] for name in node.inputs]
    if all(isinstance(part, int) for part in parts):
        sizes = tape.ints(*(int(part) for part in parts))
    else:
        sizes = tape.op("Concat", *(_length(tape, name, axis) for name in node.inputs), axis=0)
    return list(tape.ops("Split", g, sizes, outputs=len(parts), axis=axis))


def _length(tape: Tape, name: str, axis: int) -> str:
    length = tape.shape(name)[axis]
    return tape.ints(length) if isinstance(length, int) else tape.op("Shape", name, start=axis, end=axis + 1)


@rule_of_many("Split")
def split(tape: Tape, node: Op, gradients: Sequence[str | None]) -> Gradients:
    """The pieces joined again, with zeros for those nobody used."""
    axis = axis_of(node.attributes.get("axis", 0), tape.rank(node.inputs[0], node))
    filled = [g or tape.zeros_like(name) for g, name in zip(gradients, node.outputs, strict=True)]
    return [tape.op("Concat", *filled, axis=axis)]


@rule("Slice")
def slice_(tape: Tape, node: Op, g: str) -> Gradients:
    """Zeros around the gradient; between its rows too where the step is not 1."""
    x = node.inputs[0]
    shape = tape.shape(x, node)
    for axis, first, last, step in bounds(tape, node):
        length = shape[axis]
        if not isinstance(length, int):
            if (first, step) == (0, 1) and last >= np.iinfo(np.int32).max:
                continue
            raise node.refuse(f"axis {axis}, along which it slices, must not be dynamic")
        taken = range(*slice(first, last, step).indices(length))
        if abs(step) == 1:
            g = _backwards(tape, g, axis, len(taken)) if step < 0 else g
            low = min(taken, default=0)
            g = pad(tape, g, len(shape), axis, low, length - low - len(taken))
        else:  # a row of zeros after each row, by way of a second axis
            index = np.full(length, len(taken), np.int64)
            index[list(taken)] = np.arange(len(taken))
            g = tape.op("Gather", pad(tape, g, len(shape), axis, 0, 1), tape.constant(index), axis=axis)
    return [g]


def _backwards(tape: Tape, g: str, axis: int, length: int) -> str:
    return tape.op("Gather", g, tape.ints(*range(length - 1, -1, -1)), axis=axis)


def bounds(tape: Tape, node: Op) -> list[tuple[int, int, int, int]]:
    """Slice's (axis, start, stop, step) for each axis it names; Python's meaning, not yet cut to the length."""
    values = []
    for position in range(1, 5):
        name = node.operand(position)
        value = tape.value(name) if name else None
        if name and value is None:
            raise node.refuse("its bounds must be constant")
        values.append(None if value is None else value.reshape(-1).tolist())
    starts, stops, axes, steps = values
    assert starts is not None and stops is not None
    rank = tape.rank(node.inputs[0], node)
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    lowest = np.iinfo(np.int32).min
    out = []
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        length = tape.shape(node.inputs[0])[axis_of(axis, rank)]
        if step < 0 and isinstance(length, int) and (stop <= lowest or stop < -length):
            stop = -length - 1
        out.append((axis_of(axis, rank), start, stop, step))
    return out


def pad(tape: Tape, g: str, rank: int, axis: int, before: int, after: int) -> str:
    """Zeros before and after along one axis."""
    if not before and not after:
        return g
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = before, after
    return tape.op("Pad", g, tape.ints(*pads))


@rule("Gather")
def gather(tape: Tape, node: Op, g: str) -> Gradients:
    """Rows go back where they came from, added up where one was taken several times."""
    x, index = node.inputs
    shape = tape.shape(x, node)
    axis = axis_of(node.attributes.get("axis", 0), len(shape))
    length, *rest = lengths((shape[axis], *shape[:axis], *shape[axis + 1 :]), node)
    fixed = tape.value(index)
    rank = tape.rank(index, node)
    order = [*range(axis, axis + rank), *range(axis), *range(axis + rank, len(shape) - 1 + rank)]
    front = tape.op("Transpose", g, perm=order) if axis and rank else g
    width = int(np.prod(rest, dtype=np.int64))
    rows = tape.op("Reshape", front, tape.ints(-1, width))
    if fixed is not None and length <= 4096:
        places = np.zeros((length, fixed.size), tape.dtypes[x])
        np.add.at(places, (fixed.reshape(-1), np.arange(fixed.size)), 1)
        spread = tape.op("MatMul", tape.constant(places), rows)
    else:
        at = tape.op("Reshape", index, tape.ints(-1, 1))
        spread = tape.op(
            "ScatterND", tape.constant(np.zeros((length, width), tape.dtypes[x])), at, rows, reduction="add"
        )
    back = tape.op("Reshape", spread, tape.ints(length, *rest))
    return [
        tape.op("Transpose", back, perm=[*range(1, axis + 1), 0, *range(axis + 1, len(shape))]) if axis else back,
        None,
    ]


@rule("GatherElements")
def gather_elements(tape: Tape, node: Op, g: str) -> Gradients:
    """As Gather, element by element."""
    x, index = node.inputs
    axis = node.attributes.get("axis", 0)
    return [tape.op("ScatterElements", tape.zeros_like(x), index, g, axis=axis, reduction="add"), None]


@rule("Pad")
def pad_(tape: Tape, node: Op, g: str) -> Gradients:
    """The middle, cut out again. Reflected and repeated edges have no rule."""
    if node.attributes.get("mode", "constant") not in ("constant", b"constant"):
        raise node.refuse("only padding with a constant can be differentiated")
    x, widths = node.inputs[0], tape.value(node.inputs[1])
    if widths is None or node.operand(3):
        raise node.refuse("its widths must be constant and given for every axis")
    rank = tape.rank(x, node)
    before, after = widths[:rank].tolist(), widths[rank:].tolist()
    axes = [axis for axis in range(rank) if before[axis] or after[axis]]
    if not axes:
        return [g]
    if min(before + after) < 0:
        raise node.refuse("negative widths have no rule")
    stops = [-after[axis] if after[axis] else np.iinfo(np.int64).max for axis in axes]
    return [tape.op("Slice", g, tape.ints(*(before[a] for a in axes)), tape.ints(*stops), tape.ints(*axes))]
