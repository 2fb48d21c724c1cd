"""Reference values in a model file: they survive, and only those that fit the card get in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeswarm.errors import ModelError
from edgeswarm.models.content import pack, seal
from edgeswarm.models.file import Model, read
from edgeswarm.models.json_text import Bad
from edgeswarm.models.limits import Limits
from edgeswarm.models.reference import ReferenceCase, read_reference, write_reference
from tests.models.file_world import folder_of, resealed, with_reference

MODEL = with_reference()
CE = next(case for case in MODEL.reference if case.graph == "ce")


def sealed(*cases: ReferenceCase) -> Model:
    return seal(MODEL.card, MODEL.graphs, MODEL.initial, cases)


def test_arrays_survive_with_their_types() -> None:
    found = sealed(CE).reference[0]
    assert found.inputs["y"].dtype == np.int64
    assert found.outputs["loss"].shape == ()
    for name, array in CE.outputs.items():
        np.testing.assert_array_equal(found.outputs[name], array)
        assert not found.outputs[name].flags.writeable


def test_byte_order_of_the_machine_does_not_matter() -> None:
    swapped = replace(CE, inputs={name: a.astype(a.dtype.newbyteorder(">")) for name, a in CE.inputs.items()})
    assert write_reference([swapped]) == write_reference([CE])


def inputs(**changes: Any) -> ReferenceCase:
    return replace(CE, inputs={k: v for k, v in {**CE.inputs, **changes}.items() if v is not None})


def outputs(**changes: Any) -> ReferenceCase:
    return replace(CE, outputs={k: v for k, v in {**CE.outputs, **changes}.items() if v is not None})


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (replace(CE, graph="distill"), "of the graph 'distill', which the model does not have"),
        (replace(CE, name="No Name"), "small letters"),
        (replace(CE, tolerance=0.0), "tolerance"),
        (replace(CE, tolerance=2.0), "tolerance"),
        (inputs(w=None), "inputs are x, y; the card wants w, x, y"),
        (inputs(z=np.zeros(3, np.float32)), "inputs are"),
        (inputs(x=np.zeros((3, 4), np.float32)), r"input x is float32 of shape \[3, 4\]"),
        (inputs(y=np.zeros(3, np.float32)), "input y is float32"),
        (inputs(y=np.zeros(2, np.int64)), "input y has 2 rows, others of its group 3"),
        (inputs(x=np.full((3, 3), np.nan, np.float32)), "x holds values that are not finite"),
        (outputs(gradient=None), "outputs are"),
        (outputs(gradient=np.zeros(5, np.float32)), "output gradient is float32"),
        (outputs(loss=np.zeros(1, np.float32)), "output loss is float32"),
        (outputs(gradient=np.full(22, np.inf, np.float32)), "gradient holds values that are not finite"),
    ],
)
def test_cases_that_do_not_fit(case: ReferenceCase, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        sealed(case)


def test_two_cases_of_one_name() -> None:
    with pytest.raises(ModelError, match="one name"):
        sealed(CE, CE)


def test_rows_of_outputs_are_those_of_inputs() -> None:
    case = next(case for case in MODEL.reference if case.graph == "forward")
    with pytest.raises(ModelError, match="output logits"):
        sealed(replace(case, outputs={**case.outputs, "logits": np.zeros((3, 2), np.float32)}))


@pytest.mark.parametrize("change", [lambda d: d[:-4], lambda d: d + b"\0\0\0\0", lambda d: b""])
def test_data_of_another_length(tmp_path: Any, change: Any) -> None:
    members = pack(MODEL)
    path = folder_of(resealed({**members, "reference.bin": change(members["reference.bin"])}), tmp_path / "m")
    with pytest.raises(ModelError, match=r"reference.json: .*reference.bin.*copy the model file again"):
        read(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"float32"', b'"float64"'),
        (b'"tolerance": 1e-05', b'"tolerance": true'),
        (b'"graph"', b'"craph"'),
        (b'"shape": [', b'"shape": [-1,'),
        (b'"shape": [', b'"shape": [1000000000,1000000000,'),
        (b'"cases"', b'"cases": 1, "cases"'),
    ],
)
def test_descriptions_that_are_wrong(old: bytes, new: bytes) -> None:
    text, data = write_reference(MODEL.reference)
    assert old in text
    with pytest.raises(Bad):
        read_reference(text.replace(old, new, 1), data, MODEL.card, Limits())
