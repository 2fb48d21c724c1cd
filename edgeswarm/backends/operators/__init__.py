"""ONNX operators in NumPy, one short definition each. The table's keys are the operators a model file may use.

Semantics are those of opset 18 (https://onnx.ai/onnx/operators); where a later opset only adds an input or a type, that
works too. Every operator keeps the type it is given, so that float64 in is float64 throughout. Operators whose result
may be much larger than their inputs say so before they make it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeswarm.backends.operators import arithmetic, indices, normal, pools, shapes, windows
from edgeswarm.backends.operators.table import Operator, Values
from edgeswarm.errors import OutOfMemory

OPERATORS: Mapping[str, Operator] = {
    **arithmetic.OPERATORS,
    **shapes.OPERATORS,
    **indices.OPERATORS,
    **windows.OPERATORS,
    **pools.OPERATORS,
    **normal.OPERATORS,
}
"""By name, domain ai.onnx. What is not in here is not run, and not read from a model file."""

LIMIT_BYTES = 1 << 30
"""Largest array an operator makes unless told otherwise."""


def apply(
    op: str,
    inputs: Sequence[Values | None],
    attributes: Mapping[str, Any],
    outputs: int = 1,
    limit_bytes: int = LIMIT_BYTES,
) -> tuple[Values, ...]:
    """The operator's outputs, at least as many as asked for. inputs: None for one left out.

    Raises: KeyError: no such operator.  OutOfMemory: an array would exceed limit_bytes; nothing was allocated.
            ValueError, TypeError, IndexError, ...: inputs or attributes that do not go together.
    """
    operator = OPERATORS[op]
    if operator.size is not None:
        size_bytes = operator.size(*inputs, **attributes)
        if size_bytes > limit_bytes:
            raise OutOfMemory(
                f"operator {op} would need {size_bytes} bytes at once, the limit is {limit_bytes}: use a smaller batch"
            )
    run = operator.more if outputs > 1 and operator.more else operator.run
    out = run(*inputs, **attributes)
    results = tuple(map(np.asarray, out if isinstance(out, tuple) else (out,)))
    if len(results) < outputs:
        raise ValueError(f"{outputs} outputs of an operator with {len(results)}")
    return results
