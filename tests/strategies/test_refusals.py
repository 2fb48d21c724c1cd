"""Peers whose words cannot be used are written down once, by every method in the same way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.sets import answer
from edgeswarm.maths.compress import compress
from edgeswarm.messages import SNAPSHOT, Bids, Pull, Weights
from edgeswarm.models.public import PublicSet
from edgeswarm.strategies import STRATEGIES
from edgeswarm.strategies.base import Action, Decision, Note, Peers, Received, Started, equipped, finish
from edgeswarm.strategies.refusals import STRANGERS_LIMIT
from tests.tiny_model import tiny

SCHEMA = 7
MODEL = tiny((3,), ("no", "yes"))
PUBLIC = PublicSet(np.random.default_rng(5).normal(size=(8, 3)).astype(np.float32), ("no", "yes"))
VECTOR = Weights(SCHEMA + 1, 1, "all", 1, 1, compress(np.zeros(4, np.float32), "float32"))
BID = Bids(SCHEMA + 1, PUBLIC.number, 1, 1, np.zeros(8, np.uint8))
NAMES = tuple(f"n{number:03d}" for number in range(STRANGERS_LIMIT + 9))


@pytest.mark.parametrize(
    ("method", "message", "outcome"),
    [
        ("d_psgd", VECTOR, "refused"),
        ("prototype_distillation", BID, "refused"),
        ("prototype_gossip", Pull(SCHEMA + 1, 1, SNAPSHOT), "ignored"),
    ],
)
def test_each_is_written_down_once_and_of_very_many_the_first(method: str, message: Any, outcome: str) -> None:
    strategy = equipped(STRATEGIES[method](), SCHEMA, MODEL, public=PUBLIC)
    state = strategy.init("ann", 1)

    def happens(event: Any) -> list[Action]:
        nonlocal state
        state, actions = finish(strategy.step(state, event), answer)
        return actions

    happens(Started(0.0, 1))
    happens(Peers(0.0, NAMES))
    for number, name in enumerate(NAMES[:STRANGERS_LIMIT], 1):
        said = [Note("refused_peers", float(number)), Decision(1.0, "peer", outcome, "other_schema", {}, name)]
        assert happens(Received(1.0, name, message)) == said
        assert happens(Received(2.0, name, message)) == []
    for name in NAMES[STRANGERS_LIMIT:]:
        assert happens(Received(3.0, name, message)) == []
    assert state.strange == set(NAMES[:STRANGERS_LIMIT])
    assert strategy.load("ann", strategy.dump(state)).strange == state.strange
