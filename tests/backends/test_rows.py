"""Rows that fit are brought to the card's shape, others are refused in one line; picks of -1 weigh nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeswarm.backends import rows
from edgeswarm.backends.base import LocalEpoch
from edgeswarm.errors import ModelError
from edgeswarm.maths.optimisers import Optimiser, init
from edgeswarm.models.card import PRIVATE, PUBLIC, InputSpec
from tests.backends.hand_made import CARD, HIDDEN, SIZE, some_rows

IMAGES = replace(CARD, input=InputSpec((1, 4, 3), "image", "grey 0 to 1"))
COLOUR = replace(CARD, input=InputSpec((3, 4, 2), "image", "red, green, blue 0 to 1"))


def refused(call, *words):
    with pytest.raises(ModelError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


# ---- samples, vectors, labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 1, 4, 3), (5, 12), (5, 4, 3), (5, 4, 3, 1)])
def test_samples_are_brought_to_shape_in_their_order(shape):
    x = np.arange(60, dtype=np.float64).reshape(shape)
    got = rows.samples(IMAGES, x)
    assert got.shape == (5, 1, 4, 3) and got.dtype == np.float32 and got.flags.c_contiguous
    assert got.reshape(-1).tolist() == list(range(60))


def test_samples_in_shape_are_not_copied():
    x = np.zeros((2, 1, 4, 3), np.float32)
    assert np.shares_memory(rows.samples(IMAGES, x), x)
    assert rows.samples(IMAGES, x[:, :, ::-1]).flags.c_contiguous
    assert rows.samples(IMAGES, np.zeros((0, 12))).shape == (0, 1, 4, 3)


@pytest.mark.parametrize("x", [np.zeros((5, 11)), np.zeros((5, 3, 4)), np.zeros(12), np.zeros(()), np.zeros((12, 5))])
def test_samples_of_another_shape_are_refused(x):
    refused(lambda: rows.samples(IMAGES, x), "(1, 4, 3)", "hand-made", "grey")


def test_channels_last_is_not_taken_for_channels_first():
    refused(lambda: rows.samples(COLOUR, np.zeros((5, 4, 2, 3))), "(4, 2, 3)", "(3, 4, 2)")


@pytest.mark.parametrize("x", [np.array([["a"] * 12]), np.zeros((1, 12), complex), np.zeros((1, 12), object)])
def test_what_holds_no_numbers_is_refused(x):
    refused(lambda: rows.samples(IMAGES, x), "no numbers")


def test_vectors():
    v = np.zeros(SIZE, np.float32)
    assert rows.vector(CARD, v) is v and rows.vector(CARD, v, np.float64).dtype == np.float64
    refused(lambda: rows.vector(CARD, v[:-1]), str(SIZE), "another model")
    refused(lambda: rows.vector(CARD, v[None]), str(SIZE))


def test_labels():
    assert rows.labels(CARD, np.array([0, 2], np.uint8)).dtype == np.int64
    for bad in ([0, 3], [-1, 0]):
        refused(lambda bad=bad: rows.labels(CARD, np.array(bad)), "y", "3", "position")
    for bad in (np.zeros(2), np.zeros((2, 1), int)):
        refused(lambda bad=bad: rows.labels(CARD, bad), "whole numbers")
    refused(lambda: rows.labels(replace(CARD, labels=()), np.zeros(2, int)), "only embeds")


# ---- inputs of a loss ------------------------------------------------------------------------------------------------


def test_inputs_come_in_order_and_type_with_missing_weights_as_ones():
    given = {"y": np.array([1, 2], np.int8), "x": np.zeros((2, 3)), "public_x": np.zeros((4, 3), int)}
    got = rows.loss_inputs(CARD, "both", given)
    assert list(got) == ["x", "y", "w", "public_x", "public_w"]
    assert got["w"].tolist() == [1, 1] and got["public_w"].tolist() == [1] * 4
    assert [a.dtype.name for a in got.values()] == ["float32", "int64", "float32", "float32", "float32"]
    assert rows.loss_inputs(CARD, "ce", some_rows("ce"), np.float64)["w"].dtype == np.float64


def test_inputs_that_do_not_fit_are_refused():
    good = some_rows("both")

    def check(changes, *words, without=()):
        given = {name: a for name, a in {**good, **changes}.items() if name not in without}
        refused(lambda: rows.loss_inputs(CARD, "both", given), *words)

    check({"x": good["x"][:-1]}, "7 rows of y", "6")
    check({"public_w": np.ones(4)}, "public_w", "public", "one row per sample")
    check({"w": np.ones((7, 1))}, "w", "(1,)")
    check({"w": -good["w"]}, "w", "negative")
    check({"w": np.full(7, np.nan)}, "w", "not a number")
    check({"z": np.zeros(7)}, "no input 'z'", "public_x")
    check({}, "needs the input 'y'", without=("y",))
    check({}, "needs the input", without=("public_x", "public_w"))
    check({name: good[name][:0] for name in ("x", "y", "w")}, "no rows")
    refused(lambda: rows.loss_inputs(CARD, "hinge", good), "no loss 'hinge'", "ce, both")


# ---- picks -----------------------------------------------------------------------------------------------------------


def request(loss="both", picks=None, **changes):
    picks = {PRIVATE: [[0, 1], [6, -1]], PUBLIC: [[4], [-1]]} if picks is None else picks
    optimiser = Optimiser()
    made = LocalEpoch(
        "m", loss, np.zeros(SIZE, np.float32), some_rows(loss),
        {group: np.array(pick, np.int32) for group, pick in picks.items()}, optimiser, init(optimiser, np.zeros(SIZE)),
    )  # fmt: skip
    return replace(made, **changes)


def test_picked_rows_and_the_weight_of_none():
    made = request()
    data, steps = rows.epoch_rows(CARD, made)
    spec, given = CARD.losses["both"], made.data
    first, second = (rows.batch_at(spec, data, made.picks, step) for step in range(steps))
    assert steps == 2
    for name in ("x", "y", "w"):
        np.testing.assert_array_equal(first[name], given[name][:2])
    np.testing.assert_array_equal(first["public_x"], given["public_x"][4:])
    assert second["w"].tolist() == [given["w"][6], 0.0] and second["public_w"].tolist() == [0.0]
    assert (data["w"] > 0).all() and (given["w"] > 0).all(), "the data itself keeps its weights"


def test_a_group_without_rows_may_be_picked_as_none():
    data = some_rows("both") | {"public_x": np.zeros((0, 3), np.float32), "public_w": np.zeros(0, np.float32)}
    made = request(picks={PRIVATE: [[0]], PUBLIC: [[-1, -1]]}, data=data)
    ready, steps = rows.epoch_rows(CARD, made)
    batch = rows.batch_at(CARD.losses["both"], ready, made.picks, 0)
    assert steps == 1 and batch["public_x"].shape == (2, 3) and batch["public_w"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("picks", "words"),
    [
        ({PRIVATE: [[0]]}, ("picks for private", "public")),
        ({}, ("picks for nothing",)),
        ({PRIVATE: [[7]], PUBLIC: [[0]]}, ("private", "from 7 to 7", "there are 7")),
        ({PRIVATE: [[-2]], PUBLIC: [[0]]}, ("-2",)),
        ({PRIVATE: [0, 1], PUBLIC: [[0]]}, ("(steps, batch)",)),
        ({PRIVATE: [[0], [1]], PUBLIC: [[0]]}, ("1 and 2 steps",)),
        ({PRIVATE: np.zeros((2, 0)), PUBLIC: [[0], [1]]}, ("(steps, batch)",)),
    ],
)
def test_picks_that_do_not_fit_are_refused(picks, words):
    refused(lambda: rows.epoch_rows(CARD, request(picks=picks)), *words)


# ---- forward passes --------------------------------------------------------------------------------------------------


def test_chunks_hold_as_many_rows_as_memory_likes(monkeypatch):
    seen = []

    def run(part):
        seen.append(len(part))
        return {"logits": part * 2, "embedding": part[:, :1]}

    x = np.arange(21, dtype=np.float32).reshape(7, 3)
    monkeypatch.setattr(rows, "CHUNK_BYTES", 3 * CARD.activation_bytes)
    got = rows.in_chunks(CARD, x, run)
    assert seen == [3, 3, 1]
    np.testing.assert_array_equal(got["logits"], x * 2)
    monkeypatch.setattr(rows, "CHUNK_BYTES", 1)
    assert rows.in_chunks(CARD, x, run)["embedding"].shape == (7, 1) and seen[3:] == [1] * 7


def test_no_rows_need_no_run():
    got = rows.in_chunks(CARD, np.zeros((0, 3), np.float32), lambda part: pytest.fail("ran"))
    assert {name: a.shape for name, a in got.items()} == {
        "logits": (0, 3), "embedding": (0, HIDDEN), "aux": (0, 1, 3),
    }  # fmt: skip


def test_evaluation_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]], np.float32))
    got = rows.evaluation(CARD, logits, np.array([0, 1, 1]))
    assert (got.rows, got.right) == (3, 2)
    assert got.loss == pytest.approx(-np.log([0.5, 0.8, 0.2]).mean(), rel=1e-6)
    assert got.class_rows.tolist() == [1, 2, 0] and got.class_right.tolist() == [1, 1, 0]


def test_evaluation_of_large_logits_and_of_nothing():
    large = rows.evaluation(CARD, np.float32([[3e38, -3e38, 0]]), np.array([0]))
    assert large.loss == 0.0 and large.right == 1
    none = rows.evaluation(CARD, np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert (none.rows, none.right, none.loss) == (0, 0, 0.0) and none.class_rows.tolist() == [0, 0, 0]
    refused(lambda: rows.evaluation(CARD, np.zeros((2, 3)), np.zeros(3, np.int64)), "2 samples", "3 labels")


def test_heads():
    outputs = {"logits": np.zeros((2, 3)), "aux": np.ones((2, 1, 3))}
    assert rows.head_of(CARD, outputs, -1).sum() == 0 and rows.head_of(CARD, outputs, 0).sum() == 6
    refused(lambda: rows.head_of(CARD, outputs, 1), "1 auxiliary", "head 1")
