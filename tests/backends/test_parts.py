"""A batch in several runs gives what one run gives, for losses of the form every model file's have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.parts import FEWEST_ROWS, RUN_BYTES, in_parts, parts
from edgeswarm.models.card import PRIVATE, PUBLIC, InputSpec, LossSpec, ModelCard, TensorSpec

CE = LossSpec(
    inputs=(TensorSpec("x", (3,), "float32", PRIVATE), TensorSpec("w", (), "float32", PRIVATE, weight=True)),
    outputs=("logits",),
)
DISTILL = LossSpec(
    inputs=(
        *CE.inputs,
        TensorSpec("public_x", (3,), "float32", PUBLIC),
        TensorSpec("teacher_weight", (2,), "float32", PUBLIC, weight=True),
    ),
    outputs=("logits", "public_logits"),
)
PARAMS = np.array([0.5, -1.0, 2.0])


def card(activation_bytes: int) -> ModelCard:
    return ModelCard(
        name="m", architecture="m", parameters=(), input=InputSpec((3,), "vector", ""), labels=("a", "b"), embedding=2,
        heads=0, losses={"ce": CE}, flops=1, activation_bytes=activation_bytes, licence="", producer={},
    )  # fmt: skip


def run(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """sum w (x.p)^2 / max(sum w, 1e-12) + sum v (public_x.p)^2, with its gradient."""
    x, w = inputs["x"], inputs["w"]
    logits = x @ PARAMS
    whole = max(w.sum(), 1e-12)
    out = {
        "gradient": 2 * (w * logits) @ x / whole,
        "loss": np.asarray((w * logits**2).sum() / whole),
        "logits": logits,
    }
    if "public_x" in inputs:
        public, v = inputs["public_x"], inputs["teacher_weight"].sum(axis=1)
        out["public_logits"] = public @ PARAMS
        out["gradient"] = out["gradient"] + 2 * (v * out["public_logits"]) @ public
        out["loss"] = out["loss"] + (v * out["public_logits"] ** 2).sum()
    return out


def rows(n: int, m: int, blank: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n + m)
    w = rng.random(n)
    w[n - blank :] = 0
    return {
        "x": rng.normal(size=(n, 3)),
        "w": w,
        "public_x": rng.normal(size=(m, 3)),
        "teacher_weight": rng.random((m, 2)),
    }


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(("spec", "blank"), [(CE, 0), (CE, 5), (DISTILL, 0), (DISTILL, 5)])
def test_any_number_of_runs_gives_the_same(spec: LossSpec, blank: int, count: int) -> None:
    inputs = {tensor.name: value for tensor in spec.inputs for value in [rows(8, 7, blank)[tensor.name]]}
    whole, cut = run(inputs), in_parts(spec, inputs, count, run)
    assert set(whole) == set(cut)
    for name, value in whole.items():
        assert cut[name].shape == value.shape
        assert np.allclose(cut[name], value, rtol=1e-9), name


def test_rows_that_all_weigh_nothing() -> None:
    inputs = {"x": np.ones((8, 3)), "w": np.zeros(8)}
    assert not in_parts(CE, inputs, 4, run)["gradient"].any()


def test_what_was_given_is_left_as_it_was() -> None:
    inputs = rows(6, 6)
    before = {name: value.copy() for name, value in inputs.items()}
    in_parts(DISTILL, inputs, 3, run)
    assert all(np.array_equal(inputs[name], value) for name, value in before.items())


def test_float32_stays_float32() -> None:
    inputs = {name: value.astype(np.float32) for name, value in rows(8, 8).items()}
    seen = []

    def noted(part: Mapping[str, Any]) -> dict[str, np.ndarray]:
        seen.extend(value.dtype for value in part.values())
        return {name: value.astype(np.float32) for name, value in run(part).items()}

    got = in_parts(DISTILL, inputs, 3, noted)
    assert {value.dtype for value in got.values()} | set(seen) == {np.dtype(np.float32)}


def test_small_models_go_in_one_run_and_large_ones_in_several() -> None:
    batch = {"x": np.zeros((32, 3)), "w": np.ones(32)}
    assert parts(card(70_000), CE, batch) == 1
    assert parts(card(1_050_000), CE, batch) == 4
    assert parts(card(10 * RUN_BYTES), CE, batch) == 32 // FEWEST_ROWS


def test_every_run_has_a_row_of_each_group() -> None:
    few = {**rows(32, 2)}
    assert parts(replace(card(RUN_BYTES), losses={"distill": DISTILL}), DISTILL, few) == 2
    assert parts(card(RUN_BYTES), CE, {"x": np.zeros((0, 3)), "w": np.zeros(0)}) == 1
