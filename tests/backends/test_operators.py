"""Every operator of the table against onnxruntime, in both float types, and held to its byte limit."""

from __future__ import annotations

from collections import Counter
from math import erf, sqrt, tanh

import numpy as np
import pytest

from edgeswarm.backends.operators import OPERATORS, apply
from edgeswarm.errors import OutOfMemory
from tests.backends.operator_cases import CASES, IMAGE, X, f, i, number

_SEEN: Counter[str] = Counter()
IDS = [f"{op}-{_SEEN[op]}" for op, _, _ in CASES if _SEEN.update([op]) is None]
OUTPUTS = {"LayerNormalization": 3, "Dropout": 2}


def outputs_of(op, inputs, attributes):
    """How many outputs the example asks for."""
    if op == "Split":
        return attributes.get("num_outputs") or len(inputs[1])
    return OUTPUTS.get(op, 1)


def runtimes(op, inputs, attributes, outputs, opset=18):
    """What onnxruntime says, from a model of one node."""
    onnx = pytest.importorskip("onnx", reason="makes the models for onnxruntime")
    runtime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    helper, names = onnx.helper, [f"i{at}" for at in range(len(inputs))]
    made = {
        key: onnx.numpy_helper.from_array(value, key) if isinstance(value, np.ndarray) else value
        for key, value in attributes.items()
    }
    node = helper.make_node(
        op,
        ["" if a is None else name for name, a in zip(names, inputs, strict=True)],
        [f"o{at}" for at in range(outputs)],
        **made,
    )
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in zip(names, inputs, strict=True)
        if a is not None
    ]
    results = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "g", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    session = runtime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    feeds = {name: a for name, a in zip(names, inputs, strict=True) if a is not None}
    return session.run(None, feeds)


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES, ids=IDS)
def test_agrees_with_onnxruntime(op, inputs, attributes):
    runtime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    if attributes.get("noop_with_empty_axes") and runtime.__version__.startswith("1.23."):
        pytest.skip("onnxruntime 1.23 ends with an error where a reduction is to change nothing")
    outputs = outputs_of(op, inputs, attributes)
    wanted = runtimes(op, inputs, attributes, outputs)
    before = [None if a is None else a.copy() for a in inputs]
    with np.errstate(all="ignore"):
        got = apply(op, inputs, attributes, outputs)
    assert len(got) == len(wanted)
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        if mine.dtype.kind == "f":
            np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-6)
        else:
            np.testing.assert_array_equal(mine, theirs)
    for mine, kept in zip(inputs, before, strict=True):
        assert mine is None or mine.tobytes() == kept.tobytes(), "an input was written to"


FREE_OF_FLOATS = {"Cast", "CastLike", "Shape", "Size", "ConstantOfShape", "QuantizeLinear", "Resize"}


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [pytest.param(*case, id=name) for case, name in zip(CASES, IDS, strict=True) if case[0] not in FREE_OF_FLOATS],
)
def test_float64_stays_float64_and_is_near(op, inputs, attributes):
    if not any(a is not None and a.dtype == np.float32 for a in inputs):
        pytest.skip("no floats go in")
    wide = [a.astype(np.float64) if a is not None and a.dtype == np.float32 else a for a in inputs]
    outputs = outputs_of(op, inputs, attributes)
    with np.errstate(all="ignore"):
        for fine, coarse in zip(
            apply(op, wide, attributes, outputs), apply(op, inputs, attributes, outputs), strict=True
        ):
            if coarse.dtype == np.float32:
                assert fine.dtype == np.float64
                np.testing.assert_allclose(coarse, fine, rtol=3e-5, atol=3e-6)
            else:
                assert fine.dtype == coarse.dtype


def test_every_operator_has_an_example():
    assert {op for op, _, _ in CASES} | {"Gelu"} == set(OPERATORS)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] == "MaxPool"], ids=str)
def test_places_of_the_largest(case):
    op, inputs, attributes = case
    (wanted, where), (got, at) = runtimes(op, inputs, attributes, 2), apply(op, inputs, attributes, 2)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(at, where)


def test_groups_may_have_a_scale_per_channel():
    """Since opset 21."""
    inputs, attributes = [IMAGE, f(4), f(4)], {"num_groups": 2}
    (wanted,) = runtimes("GroupNormalization", inputs, attributes, 1, opset=21)
    np.testing.assert_allclose(apply("GroupNormalization", inputs, attributes)[0], wanted, rtol=1e-5, atol=1e-6)


def test_gelu_by_hand():
    plain = [x * (1 + erf(x / sqrt(2))) / 2 for x in X.reshape(-1).tolist()]
    np.testing.assert_allclose(apply("Gelu", [X], {})[0].reshape(-1), plain, rtol=1e-5, atol=1e-6)
    near = [x * (1 + tanh(sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2 for x in X.reshape(-1).tolist()]
    got = apply("Gelu", [X], {"approximate": "tanh"})[0]
    np.testing.assert_allclose(got.reshape(-1), near, rtol=1e-5, atol=1e-6)


HUGE = 2**40
TOO_LARGE = [
    ("Expand", [number(1.0), i(HUGE, HUGE)], {}),
    ("ConstantOfShape", [i(HUGE, 9)], {}),
    ("Tile", [X, i(HUGE, HUGE, HUGE)], {}),
    ("Pad", [X, i(0, 0, 0, 0, 0, HUGE)], {}),
    ("Resize", [IMAGE, None, np.float32([1, 1, 1e6, 1e6])], {"mode": "nearest"}),
    ("Resize", [IMAGE, None, None, i(1, 4, HUGE, 7)], {"mode": "nearest"}),
    ("Range", [number(0, np.int64), number(HUGE, np.int64), number(1, np.int64)], {}),
    ("Range", [number(0.0, np.float64), number(1.0, np.float64), number(1e-300, np.float64)], {}),
    ("OneHot", [i(1, 2, 3), i(HUGE), np.float32([0, 1])], {}),
    ("Add", [f(30_000, 1), f(1, 30_000)], {}),
    ("Where", [f(30_000, 1) > 0, f(1, 30_000), number(1.0)], {}),
    ("Max", [f(30_000, 1), f(1, 30_000)], {}),
    ("MatMul", [f(30_000, 1), f(1, 30_000)], {}),
    ("Gemm", [f(30_000, 1), f(1, 30_000)], {}),
    ("Gather", [f(2, 300_000), np.zeros(2000, np.int64)], {}),
    ("Conv", [IMAGE, f(2, 4, 3, 3)], {"pads": [0, 0, HUGE, HUGE]}),
    ("Conv", [f(1, 1, 600, 600), f(1, 1, 300, 300)], {}),
    ("ConvTranspose", [IMAGE, f(4, 2, 3, 3)], {"strides": [HUGE, HUGE]}),
    ("ConvTranspose", [IMAGE, f(4, 2, 3, 3)], {"output_shape": [HUGE, HUGE]}),
    ("ConvTranspose", [IMAGE, f(4, 2, 3, 3)], {"output_padding": [HUGE, 0]}),
    ("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "pads": [0, 0, HUGE, HUGE]}),
    ("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "pads": [HUGE, 0, 0, 0]}),
    ("Concat", [f(1000, 1000)] * 300, {"axis": 0}),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"), TOO_LARGE, ids=lambda value: value if type(value) is str else ""
)
def test_what_would_not_fit_is_refused_before_it_is_made(op, inputs, attributes):
    with pytest.raises(OutOfMemory, match=op) as error:
        apply(op, inputs, attributes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [case for case in CASES if OPERATORS[case[0]].size is not None],
    ids=[name for case, name in zip(CASES, IDS, strict=True) if OPERATORS[case[0]].size is not None],
)
def test_no_result_is_larger_than_was_said(op, inputs, attributes):
    with np.errstate(all="ignore"):
        (result, *_) = apply(op, inputs, attributes)
    assert OPERATORS[op].size(*inputs, **attributes) >= result.nbytes


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Add", [f(3), f(4)], {}),
        ("Conv", [IMAGE, f(3, 3, 3, 3)], {}),
        ("Conv", [IMAGE, f(3, 4, 30, 3)], {}),
        ("Conv", [IMAGE, f(3, 4, 3, 3)], {"strides": [0, 1]}),
        ("Conv", [IMAGE, f(3, 4, 3, 3)], {"group": 0}),
        ("ConvTranspose", [IMAGE, f(3, 4, 3, 3)], {}),
        ("MaxPool", [f(3, 4)], {"kernel_shape": [2, 2]}),
        ("MaxPool", [IMAGE], {"kernel_shape": [0, 2]}),
        ("Dropout", [X, None, number(True, np.bool_)], {}),
        ("BatchNormalization", [IMAGE, f(4), f(4), f(4), f(4)], {"training_mode": 1}),
        ("Resize", [IMAGE, None, np.float32([1, 1, 2, 2])], {"mode": "linear"}),
        ("Resize", [IMAGE, None, None, i(2, 4, 5, 5)], {"keep_aspect_ratio_policy": "not_larger"}),
        ("Resize", [IMAGE, None, None, i(2, 4, 5, 5)], {"nearest_mode": "upwards"}),
        ("Pad", [X, i(1, 1)], {}),
        ("Pad", [X, i(1, 1, 1, 1, 1, 1)], {"mode": "spiral"}),
        ("Split", [X, i(1, 1)], {"axis": 1}),
        ("Softmax", [X], {"axis": 7}),
        ("Gather", [X, i(3)], {}),
        ("Range", [number(0, np.int64), number(4, np.int64), number(0, np.int64)], {}),
        ("GroupNormalization", [IMAGE, f(3), f(3)], {"num_groups": 3}),
        ("Relu", [X], {"unheard_of": 1}),
        ("Relu", [X, X], {}),
    ],
)
def test_nonsense_raises_what_the_interpreter_catches(op, inputs, attributes):
    with pytest.raises((ValueError, TypeError, IndexError, ZeroDivisionError)):
        apply(op, inputs, attributes)
