"""A board without any model file teaches those that have one, and learns from them."""

from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.models.public import PublicSet
from edgeswarm.strategies.base import Batch, Started, equipped, finish
from edgeswarm.strategies.multi_headed_distillation import MultiHeadedDistillation
from edgeswarm.strategies.prototype_distillation import PrototypeDistillation
from tests.strategies import teaching_world as tw
from tests.strategies.teaching_world import CLASSES, KNOBS, PERIOD_S, Swarm, model


def test_prototypes_and_networks_teach_one_another() -> None:
    network = MultiHeadedDistillation(**KNOBS, serve=1)
    swarm = Swarm({
        "net": (network, model(12), (0, 1)),
        "big": (network, model(30, seed=1), (1, 2)),
        "pro": (PrototypeDistillation(period_s=PERIOD_S, keep_limit=60), None, (2, 3)),
    }).to(14)  # fmt: skip
    for name, own in (("net", (0, 1)), ("big", (1, 2)), ("pro", (2, 3))):
        foreign = [label for label in range(4) if label not in own]
        assert swarm.accuracy(name, alone=True, classes=foreign) == 0, name
        assert swarm.accuracy(name, classes=foreign) > 0.8, name
        assert swarm.accuracy(name, alone=True, classes=own) > 0.85, name


def test_a_lesson_that_was_wrong_does_not_stay() -> None:
    swarm = Swarm({
        "net": (MultiHeadedDistillation(**KNOBS), model(), (0, 1)),
        "pro": (PrototypeDistillation(period_s=PERIOD_S), None, (2, 3)),
    }).to(3)  # fmt: skip
    state, strategy = swarm.state("pro"), swarm.strategies["pro"]
    taught = state.labels[:, 0] >= 0
    assert taught.any()
    teacher = state.lessons.teachers["net"]
    said = teacher.probabilities(slice(None))[:, 0].argmax(axis=1)
    assert (state.labels[taught, 0] == said[taught]).all()
    later, _ = strategy._round(state, 1e9)  # by then it is forgotten
    assert (later.labels == -1).all()


def test_after_a_reboot_nothing_was_said_in_the_future() -> None:
    swarm = Swarm({
        "net": (MultiHeadedDistillation(**KNOBS), model(), (0, 1)),
        "pro": (PrototypeDistillation(period_s=PERIOD_S), None, (2, 3)),
    }).to(4)  # fmt: skip
    assert swarm.state("pro").lessons.teachers["net"].made_at.max() > 5
    state, _ = finish(swarm.strategies["pro"].step(swarm.state("pro"), Started(5.0, 2)), None)  # type: ignore[arg-type]
    assert state.lessons.teachers["net"].made_at.max() <= 5


def test_a_board_that_only_listens_answers_with_what_it_was_taught() -> None:
    swarm = Swarm({
        "net": (MultiHeadedDistillation(**KNOBS), model(), (0, 1)),
        "big": (MultiHeadedDistillation(**KNOBS), model(20), (2, 3)),
        "pro": (PrototypeDistillation(period_s=PERIOD_S), None, ()),
    }).to(10)  # fmt: skip
    assert swarm.state("pro").learner is None
    assert swarm.accuracy("pro") > 0.8
    answers, sure = finish(swarm.strategies["pro"].predict(swarm.state("pro"), tw.PUBLIC.x[:3], True), None)  # type: ignore[arg-type]
    assert answers == [None] * 3
    assert not sure.any()
    assert swarm.world.nodes["pro"].agent.notes["teachers"] == 2
    assert swarm.state("pro").rounds == 0  # it has nothing of its own to say


def test_rows_that_do_not_fit_are_counted() -> None:
    strategy = equipped(PrototypeDistillation(), tw.SCHEMA, public=tw.PUBLIC)
    state = strategy.init("pro", 0)
    x = np.zeros((3, tw.D), np.float32)
    x[1] = 1e30
    state, _ = finish(strategy.step(state, Batch(0.0, x, ("ant", "ant", "eel"))), None)  # type: ignore[arg-type]
    assert (state.samples, state.unknown, state.too_large) == (1, 1, 1)
    same, actions = finish(strategy.step(state, Batch(0.0, x[:, :2], ("ant",) * 3)), None)  # type: ignore[arg-type]
    assert same is state
    assert [each.reason for each in actions] == ["wrong_dimension"]
    with pytest.raises(ValueError, match="rows have 8 features, not 2"):
        finish(strategy.predict(state, x[:, :2]), None)  # type: ignore[arg-type]
    other = equipped(strategy, tw.SCHEMA, public=PublicSet(tw.PUBLIC.x[:9], CLASSES))
    kept = other.load("pro", strategy.dump(state))
    assert kept.samples == 1
    assert kept.labels.shape == (9, 1)
    with pytest.raises(ValueError, match="needs the file of one"):
        equipped(PrototypeDistillation(), tw.SCHEMA)
