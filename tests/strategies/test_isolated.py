"""The control: it learns from its own samples, repeats exactly, and a checkpoint holds all it needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from device import SCHEMA, clouds

from edgeswarm.agent import snapshot
from edgeswarm.backends.base import LocalEpoch, Predict, Request
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.strategies.base import (
    Action,
    Batch,
    Decision,
    Event,
    Note,
    Started,
    Wake,
    Woke,
    equipped,
    finish,
)
from edgeswarm.strategies.base import Tested as Asked
from edgeswarm.strategies.checks import plain
from edgeswarm.strategies.isolated import Isolated
from tests.tiny_model import tiny

MODEL = tiny((2,), ("c0", "c1"), embedding=6)
KNOBS: dict[str, Any] = {"period_s": 2.0, "steps": 6, "batch": 16, "window": 100, "rate": 0.05}


class Student:
    """A node driven by hand; `asked` is every request it made."""

    def __init__(self, model: Any = MODEL, **knobs: Any) -> None:
        self.strategy = equipped(Isolated(**{**KNOBS, **knobs}), SCHEMA, model)
        self.backend = ReferenceBackend()
        self.backend.load(model)
        self.asked: list[Request] = []
        self.state = self.strategy.init("ann", 1)
        self.wake_s = wake(self(Started(0.0, 1)))

    def __call__(self, event: Event) -> list[Action]:
        self.state, actions = finish(self.strategy.step(self.state, event), self.answer)
        return actions

    def answer(self, request: Request) -> Any:
        self.asked.append(request)
        return self.backend.answer(request)

    def learn(self, x: Any, y: Any) -> list[Action]:
        return self(Batch(self.wake_s, np.asarray(x, np.float32), tuple(y)))

    def train(self) -> list[Action]:
        actions = self(Woke(self.wake_s, "train"))
        self.wake_s = wake(actions)
        return actions

    def says(self, x: Any) -> list[str | None]:
        return finish(self.strategy.predict(self.state, np.asarray(x, np.float32)), self.answer)[0]


def wake(actions: list[Action]) -> float:
    (found,) = [action for action in actions if isinstance(action, Wake)]
    assert found.name == "train"
    return found.at


def notes(actions: list[Action]) -> dict[str, float]:
    return {action.name: action.value for action in actions if isinstance(action, Note)}


def school(student: Student, rounds: int = 12, seed: int = 0) -> list[Asked]:
    x, y = clouds(seed, 20 * rounds)
    tested = []
    for at in range(0, len(x), 20):
        tested += [a for a in student.learn(x[at : at + 20], y[at : at + 20]) if isinstance(a, Asked)]
        student.train()
    return tested


def test_it_learns_and_every_sample_is_tested_before() -> None:
    student = Student()
    tested = school(student)
    assert [t.truth for t in tested] == clouds(0, 240)[1][20:], "there is nothing to test before the first epoch"
    assert all(t.answer is not None for t in tested)
    assert np.mean([t.answer == t.truth for t in tested[-100:]]) > 0.9 and tested[-1].alone == tested[-1].answer
    x, y = clouds(9, 200)
    assert np.mean([said == truth for said, truth in zip(student.says(x), y, strict=True)]) > 0.95
    assert student.state.samples == 240 and len(student.state.rows) == 100 and student.state.moments.step == 72


def test_a_step_is_one_request_with_just_the_rows_it_needs() -> None:
    student = Student()
    school(student, 2)
    epochs = [request for request in student.asked if isinstance(request, LocalEpoch)]
    assert len(epochs) == 2
    for epoch, rows in zip(epochs, (20, 40), strict=True):
        # 6 x 16 are drawn, more than the window holds: the window travels, each row once
        assert epoch.data["x"].shape == (rows, 2) and epoch.data["y"].shape == (rows,)
        places = epoch.picks["private"]
        assert places.shape == (6, 16) and places.dtype == np.int32
        used = epoch.data["x"][places[places >= 0]]
        assert len(used) == 6 * min(rows, 16)
    asked = [request for request in student.asked if isinstance(request, Predict)]
    assert [request.x.shape for request in asked] == [(20, 2)], "the first batch asked nothing: nothing was known"
    assert asked[0].params is not MODEL.initial


def test_an_epoch_longer_than_the_window_takes_no_more_memory_than_the_window() -> None:
    student, short = Student(steps=1000), Student(steps=4)
    for each in (student, short):
        each.learn(*clouds(0, 80))
        each.train()
    epoch, little = (each.asked[-1] for each in (student, short))
    assert epoch.data["x"].shape == (80, 2) and epoch.picks["private"].shape == (1000, 16)
    assert little.data["x"].shape == (64, 2), "only the rows drawn, where they are fewer"
    first = epoch.data["x"][epoch.picks["private"][:4]]
    assert np.array_equal(first, little.data["x"].reshape(4, 16, 2)), "the same rows, only told otherwise"


def test_a_window_smaller_than_a_batch() -> None:
    student = Student(batch=64)
    student.learn(*clouds(0, 10))
    actions = student.train()
    places = next(request for request in student.asked if isinstance(request, LocalEpoch)).picks["private"]
    assert ((places >= 0).sum(axis=1) == 10).all()
    assert 0 < notes(actions)["loss"] < 5 and notes(actions)["steps"] == 6


def test_nothing_to_train_on_is_no_epoch() -> None:
    student = Student()
    student.train()
    assert not student.asked and student.wake_s == 4.0 and student.state.params is MODEL.initial
    assert student.says([[0.0, 0.0]]) == [None]


def test_two_nodes_with_one_seed_draw_differently_and_one_node_repeats_exactly() -> None:
    one, again = Student(), Student()
    assert plain(one.strategy.dump(one.state)) == plain(again.strategy.dump(again.state))
    assert school(one) == school(again)
    assert plain(one.strategy.dump(one.state)) == plain(again.strategy.dump(again.state))
    other = Student()
    other.state = other.strategy.init("bob", 1)
    school(other)
    assert not np.array_equal(other.state.params, one.state.params)


@pytest.mark.parametrize("kind", ["sgd", "momentum", "nesterov", "rmsprop", "adam"])
def test_a_checkpoint_goes_on_bit_for_bit_with_the_optimisers_state(kind: str) -> None:
    student = Student(optimiser=kind, rate=0.02, schedule="inverse_sqrt", warmup=5)
    school(student, 3)
    kept = snapshot.unpack(snapshot.pack(student.strategy.dump(student.state)))
    resumed = Student(optimiser=kind, rate=0.02, schedule="inverse_sqrt", warmup=5)
    resumed.state, resumed.wake_s = resumed.strategy.load("ann", kept), student.wake_s
    assert plain(resumed.strategy.dump(resumed.state)) == plain(student.strategy.dump(student.state))
    school(student, 3, seed=5), school(resumed, 3, seed=5)
    assert plain(resumed.strategy.dump(resumed.state)) == plain(student.strategy.dump(student.state))


def test_a_checkpoint_under_other_settings() -> None:
    student = Student()
    school(student, 4)
    dumped = student.strategy.dump(student.state)
    other = equipped(Isolated(**{**KNOBS, "optimiser": "adam", "window": 30}), SCHEMA, MODEL).load("ann", dumped)
    assert np.array_equal(other.params, student.state.params) and len(other.rows) == 30
    assert other.moments.step == 0 and len(other.moments.slots) == 2, "another optimiser begins anew"
    with pytest.raises(ValueError, match="of another model than tiny"):
        equipped(Isolated(**KNOBS), SCHEMA, tiny((2,), ("c0", "c1"), embedding=6, seed=1)).load("ann", dumped)
    broken = {**dumped, "params": student.state.params * np.float32(np.nan)}
    with pytest.raises(ValueError, match="finite numbers"):
        student.strategy.load("ann", broken)


def test_labels_the_model_does_not_know_are_dropped_and_counted() -> None:
    student = Student()
    x, _ = clouds(0, 4)
    actions = student.learn(x, ("c1", "cat", "c0", "dog"))
    assert not [t for t in actions if isinstance(t, Asked)], "it has trained on nothing yet"
    assert notes(actions) == {"unknown_labels": 2, "samples": 2, "window": 2}
    assert notes(student.learn(x[:1], ("cat",)))["unknown_labels"] == 3
    assert notes(student.learn(x[:1], ("c0",))) == {"samples": 3, "window": 3}


def test_numbers_beyond_all_reason_are_dropped_and_counted() -> None:
    student = Student()
    actions = student.learn([[1, 2], [1e30, 0]], ("c0", "c1"))
    assert notes(actions) == {"too_large_rows": 1, "samples": 1, "window": 1}


def test_samples_of_another_width_are_dropped() -> None:
    student = Student()
    (decision,) = student.learn(np.zeros((3, 5)), ("c0",) * 3)
    assert isinstance(decision, Decision) and decision.reason == "wrong_dimension"
    with pytest.raises(ValueError, match="rows have 2 features, not 5"):
        student.says(np.zeros((3, 5)))


def test_an_epoch_that_leaves_the_finite_numbers_is_given_up() -> None:
    student = Student(rate=1e3, clip=0.0, weight_decay=10.0, steps=40)
    student.learn(*clouds(0, 30))
    actions = student.train()
    (decision,) = [action for action in actions if isinstance(action, Decision)]
    assert (decision.outcome, decision.reason) == ("refused", "not_finite")
    assert student.state.params is MODEL.initial and student.state.moments.step == 0
    assert student.state.counter == 1, "the next epoch draws other rows"


def test_a_step_without_memory_changes_nothing() -> None:
    student = Student()
    student.learn(*clouds(0, 30))
    before = student.state

    def full(request: Request) -> Any:
        raise OutOfMemory("no memory")

    with pytest.raises(OutOfMemory):
        finish(student.strategy.step(before, Woke(2.0, "train")), full)
    assert student.state is before


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"labels": ()}, "no labels or no loss 'ce'"), ({"losses": {}}, "no labels or no loss 'ce'")],
)
def test_a_model_that_cannot_be_trained_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        equipped(Isolated(), SCHEMA, replace(MODEL, card=replace(MODEL.card, **changes)))


def test_settings_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(ValueError, match="horizon"):
        Isolated(schedule="cosine")


def test_a_board_decides_on_the_batch_where_nobody_has() -> None:
    assert equipped(Isolated(), SCHEMA, MODEL, 16).batch == 16
    assert equipped(Isolated(batch=8), SCHEMA, MODEL, 16).batch == 8
    student = Student(batch=0)
    student.learn(*clouds(0, 50))
    student.train()
    assert student.asked[-1].picks["private"].shape == (6, 32)


def test_an_error_is_raised_where_the_question_was_asked() -> None:
    """A step may catch it and go on; that is how an epoch is given up without losing the wake-up."""

    def asks() -> Any:
        try:
            yield "first"
        except ModelError as error:
            return (yield str(error))

    def answer(question: Any) -> Any:
        if question == "first":
            raise ModelError("no")
        return f"asked {question}"

    assert finish(asks(), answer) == "asked no"
