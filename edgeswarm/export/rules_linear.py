"""Gradients of matrix products."""

from __future__ import annotations

from edgeswarm.export.rules import Gradients, Op, Tape, rule


@rule("Gemm")
def gemm(tape: Tape, node: Op, g: str) -> Gradients:
    """Y = alpha A' B' + beta C, each of A and B transposed or not (ONNX Gemm)."""
    a, b, c = node.inputs[0], node.inputs[1], node.operand(2)
    across, down = node.attributes.get("transA", 0), node.attributes.get("transB", 0)
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    to_a = to_b = to_c = None
    if node.wants(0):
        if across:
            to_a = tape.op("Gemm", b, g, alpha=alpha, transA=down, transB=1)
        else:
            to_a = tape.op("Gemm", g, b, alpha=alpha, transA=0, transB=1 - down)
    if node.wants(1):
        if down:
            to_b = tape.op("Gemm", g, a, alpha=alpha, transA=1, transB=across)
        else:
            to_b = tape.op("Gemm", a, g, alpha=alpha, transA=1 - across, transB=0)
    if c and node.wants(2):
        to_c = tape.sum_to(g, tape.shape(node.outputs[0], node), c, node)
        to_c = to_c if beta == 1.0 else tape.op("Mul", to_c, tape.number(beta, c))
    return [to_a, to_b, to_c]


@rule("MatMul")
def matmul(tape: Tape, node: Op, g: str) -> Gradients:
    """NumPy's matmul: leading axes are broadcast, vectors count as one row or one column."""
    a, b = node.inputs
    rows, columns = tape.shape(a, node), tape.shape(b, node)
    out = tape.shape(node.outputs[0], node)
    full_a, full_b = a, b
    if len(rows) == 1:
        full_a, g = (
            tape.op("Unsqueeze", a, tape.ints(0)),
            tape.op("Unsqueeze", g, tape.ints(len(out) - (len(columns) > 1))),
        )
        out = (*out[: len(out) - (len(columns) > 1)], 1, *out[len(out) - (len(columns) > 1) :])
    if len(columns) == 1:
        full_b, g, out = tape.op("Unsqueeze", b, tape.ints(1)), tape.op("Unsqueeze", g, tape.ints(len(out))), (*out, 1)
    to_a = to_b = None
    depth_a, depth_b = max(len(rows), 2), max(len(columns), 2)
    wide_a = rows if len(rows) > 1 else (1, *rows)
    wide_b = columns if len(columns) > 1 else (*columns, 1)
    if node.wants(0):
        if depth_b == 2 and depth_a == 2:
            to_a = tape.op("Gemm", g, full_b, transA=0, transB=1)
        else:
            to_a = tape.op("MatMul", g, _swapped(tape, full_b, depth_b))
        to_a = _folded(tape, node, to_a, (*out[:-1], wide_b[-2]), a, wide_a)
    if node.wants(1):
        if depth_a == 2 and depth_b == 2:
            to_b = tape.op("Gemm", full_a, g, transA=1, transB=0)
        elif depth_b == 2:  # one matrix for all rows: one product over all of them
            flat_a = tape.op("Reshape", full_a, tape.ints(-1, _number(node, wide_a[-1])))
            flat_g = tape.op("Reshape", g, tape.ints(-1, _number(node, out[-1])))
            to_b = tape.op("Gemm", flat_a, flat_g, transA=1, transB=0)
            return [to_a, to_b if len(columns) > 1 else tape.reshape_like(to_b, b)]
        else:
            to_b = tape.op("MatMul", _swapped(tape, full_a, depth_a), g)
        to_b = _folded(tape, node, to_b, (*out[:-2], wide_a[-1], out[-1]), b, wide_b)
    return [to_a, to_b]


def _number(node: Op, length: int | str) -> int:
    if not isinstance(length, int):
        raise node.refuse("only its leading axes may be dynamic")
    return length


def _swapped(tape: Tape, name: str, rank: int) -> str:
    return tape.op("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])


def _folded(
    tape: Tape, node: Op, gradient: str, shape: tuple[int | str, ...], target: str, wide: tuple[int | str, ...]
) -> str:
    """Add up over broadcast leading axes, then give a vector back its one axis. wide: target's shape as a matrix."""
    lead = len(shape) - len(wide)
    axes = [*range(lead)]
    for axis, length in enumerate(wide[:-2]):
        if shape[lead + axis] != length:
            if length != 1:
                raise node.refuse(f"cannot tell how {target!r} is broadcast")
            axes.append(lead + axis)
    if axes:
        gradient = tape.op("ReduceSum", gradient, tape.ints(*axes), keepdims=0)
    if axes[lead:] or len(wide) != len(tape.shape(target)):
        gradient = tape.reshape_like(gradient, target)
    return gradient
