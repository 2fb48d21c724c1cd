"""Every strategy keeps every rule of `strategies.checks`, or says here which it does not, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.models.file import Model
from edgeswarm.strategies import STRATEGIES, checks
from edgeswarm.strategies.base import Batch, Note, equipped
from tests.tiny_model import tiny

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "isolated": [
        {"period_s": 3.0, "window": 40, "steps": 3, "batch": 8},
        {"period_s": 3.0, "window": 30, "steps": 2, "keep": "reservoir", "optimiser": "adam", "clip": 0.0},
    ],
    "prototype_gossip": [
        {"period_s": 3.0, "keep_limit": 24},
        {"period_s": 3.0, "schedule": "sequential", "filter": "energy", "vectors": "float16"},
        {"period_s": 3.0, "budget_bytes_per_s": 100.0, "filter": "off", "snapshot_every": 3, "vectors": "float32"},
    ],
    "prototype_gossip_paper": [
        {"share_probability": 0.2, "fanout": 1},
        {"share_probability": 0.04, "fanout": 2, "filter_limit": 0.3, "queue_limit": 50, "cluster_limit": 30},
    ],
}
NOT_KEPT = {
    ("isolated", "check_it_shares"): "the control: it never speaks",
    ("prototype_gossip_paper", "check_repeated_message_changes_nothing"): "a prototype received is learnt (spec 3.2)",
    ("prototype_gossip_paper", "check_order_of_messages_does_not_matter"): "learnt newest first (spec 3.2)",
}
"""A rule listed here must really fail, so that the list cannot outlive its reasons."""

CASES = [
    pytest.param(name, settings, check, id=f"{name}-{number}-{check.__name__}")
    for name in STRATEGIES
    for number, settings in enumerate(SETTINGS[name])
    for check in checks.ALL
]


@pytest.fixture(scope="module")
def model() -> tuple[Model, ReferenceBackend]:
    """For methods that train one: it takes what the story gives, and a backend has loaded it."""
    model, backend = tiny((checks.D,), ("no", "yes")), ReferenceBackend()
    backend.load(model)
    return model, backend


@pytest.mark.parametrize(("name", "settings", "check"), CASES)
def test_rule(name: str, settings: dict[str, Any], check: checks.Check, model: tuple[Model, ReferenceBackend]) -> None:
    strategy = equipped(STRATEGIES[name](**settings), 7, model[0])
    if (name, check.__name__) in NOT_KEPT:
        with pytest.raises(AssertionError):
            check(strategy, model[1].answer)
    else:
        check(strategy, model[1].answer)


def test_a_method_that_trains_a_model_needs_one() -> None:
    with pytest.raises(ValueError, match="isolated trains a model, so it needs a model file"):
        equipped(STRATEGIES["isolated"](), 7)
    with pytest.raises(ValueError, match="no model is set"):
        STRATEGIES["isolated"](schema=7).init("ann", 1)


def test_run_all_names_what_is_broken() -> None:
    class Forgetful(STRATEGIES["prototype_gossip"]):  # type: ignore[misc]
        def predict(self, state: Any, x: Any, alone: bool = False) -> Any:
            yield from ()
            return ["yes"] * len(x), np.ones(len(x), np.float32)

        def step(self, state: Any, event: Any) -> Any:
            state, actions = yield from super().step(state, event)
            if isinstance(event, Batch):
                state.memo.clear()
                actions.append(Note("luck", float(np.random.default_rng().random())))
            return state, actions

    broken = checks.run_all(Forgetful(period_s=3.0), except_for=("check_checkpoint_resumes_as_if_never_stopped",))
    assert set(broken) == {"check_same_seed_same_actions", "check_empty_state_knows_nothing"}
    assert checks.run_all(STRATEGIES["prototype_gossip"](period_s=3.0)) == {}


def test_a_rule_sees_a_step_that_writes_into_the_old_state() -> None:
    class Careless(STRATEGIES["prototype_gossip"]):  # type: ignore[misc]
        def step(self, state: Any, event: Any) -> Any:
            if isinstance(event, Batch) and state.learner is not None:
                state.learner.learn(event.x[0], 0)
            return (yield from super().step(state, event))

    with pytest.raises(AssertionError, match="changed the old state's learner"):
        checks.check_step_keeps_the_old_state(Careless(period_s=3.0))


def test_dumps_are_plain_data_only() -> None:
    with pytest.raises(TypeError, match="set"):
        checks.packed({"peers": {"a"}})
