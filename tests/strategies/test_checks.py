"""Every strategy keeps every rule of `strategies.checks`, or says here which it does not, and why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.maths.compress import restore
from edgeswarm.messages import SNAPSHOT, Weights
from edgeswarm.models.file import Model
from edgeswarm.models.perceptron import perceptron
from edgeswarm.models.public import PublicSet
from edgeswarm.strategies import STRATEGIES, checks
from edgeswarm.strategies.base import Batch, Note, Received, Send, equipped
from edgeswarm.strategies.exchange import model_number
from edgeswarm.strategies.sharing_state import Copy, State, changed

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "body_average": [
        {"period_s": 3.0, "window": 40, "steps": 3, "batch": 8, "body_every": 2},
        {
            "period_s": 3.0,
            "window": 40,
            "steps": 2,
            "batch": 8,
            "scheme": "int8",
            "optimiser": "rmsprop",
            "restart": True,
        },
    ],
    "gatta": [
        {"period_s": 3.0, "window": 40, "steps": 3, "batch": 8, "body_every": 2, "scheme": "int8"},
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "reading": "a", "train_mix": True, "optimiser": "adam"},
        {
            "period_s": 3.0,
            "window": 40,
            "steps": 2,
            "batch": 8,
            "reading": "b",
            "mix": 0.5,
            "skip": "top",
            "clip": 0.0,
            "start_head": "normal",
            "warm_rounds": 2,
            "probe_every": 4,
            "top_share": 0.4,
        },
    ],
    "d_psgd": [
        {"period_s": 3.0, "window": 40, "steps": 3, "batch": 8},
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "scheme": "int8", "optimiser": "adam"},
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "scheme": "int4", "snapshot_every": 4, "gossip": 0.5},
    ],
    "global_update_tracking": [
        {"period_s": 3.0, "window": 40, "steps": 3, "batch": 8},
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "mu": 0.05, "beta": 0.8, "scheme": "float16"},
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "mu": 0.5, "scheme": "int8", "snapshot_every": 5},
        {"period_s": 3.0, "window": 40, "steps": 1, "batch": 8, "scheme": "top", "snapshot_every": 0, "gossip": 0.3},
    ],
    "global_update_tracking_paper": [
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "mu": 0.4},
        {"period_s": 3.0, "window": 40, "steps": 1, "batch": 8, "mu": 0.05, "beta": 0.9},
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "mu": 0.4, "scheme": "int8", "snapshot_every": 0},
    ],
    "gradient_tracking": [
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8},
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "scheme": "int8", "snapshot_every": 0, "ask": True},
    ],
    "qg_dsgdm": [
        *(
            {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "form": form}
            for form in ("original", "nesterov", "undamped")
        ),
        {"period_s": 3.0, "window": 40, "steps": 1, "batch": 8, "scheme": "int8", "snapshot_every": 0},
    ],
    "fedmd": [{"period_s": 3.0, "window": 40, "steps": 3, "batch": 8}],
    "gossip_learning": [
        {"period_s": 3.0, "window": 40, "steps": 3, "batch": 8},
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "scheme": "int8", "optimiser": "sgd", "momentum": 0.0},
    ],
    "isolated": [
        {"period_s": 3.0, "window": 40, "steps": 3, "batch": 8},
        {"period_s": 3.0, "window": 30, "steps": 2, "keep": "reservoir", "optimiser": "adam", "clip": 0.0},
    ],
    "multi_headed_distillation": [
        {"period_s": 3.0, "window": 40, "steps": 3, "batch": 8, "half_life_s": 20.0},
        {
            "period_s": 3.0,
            "window": 40,
            "steps": 2,
            "batch": 8,
            "encoding": "float32",
            "own": "always",
            "bids": False,
            "embedding_weight": 0.5,
            "choice": "random",
            "serve": 2,
            "aux_warmup": 10,
            "optimiser": "adam",
        },
        {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "encoding": "uint8", "refresh_every": 3, "ranks": 1},
    ],
    "prototype_distillation": [
        {"period_s": 3.0, "keep_limit": 24},
        {"period_s": 3.0, "ranks": 2, "choice": "mean", "own": "always", "bids": False, "gate": 0.0},
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
    ("prototype_gossip_paper", "check_stranger_is_ignored"): "any message moves its dice and lets it work its queue",
}
"""A rule listed here must really fail, so that the list cannot outlive its reasons."""

CASES = [
    pytest.param(name, settings, check, id=f"{name}-{number}-{check.__name__}")
    for name in STRATEGIES
    for number, settings in enumerate(SETTINGS[name])
    for check in checks.ALL
]


PUBLIC = PublicSet(np.random.default_rng(5).normal(0, 1.5, (48, checks.D)).astype(np.float32), ("no", "yes"))
"""Where the story's two classes lie, for methods that learn from a public set."""


def loaded() -> tuple[Model, ReferenceBackend]:
    """For methods that train one: a model that takes what the story gives, and a backend that has loaded it."""
    model, backend = perceptron(("no", "yes"), np.zeros(checks.D), np.ones(checks.D), 4, heads=2), ReferenceBackend()
    backend.load(model)
    return model, backend


@pytest.fixture(scope="module")
def model() -> tuple[Model, ReferenceBackend]:
    return loaded()


@pytest.mark.parametrize(("name", "settings", "check"), CASES)
def test_rule(name: str, settings: dict[str, Any], check: checks.Check, model: tuple[Model, ReferenceBackend]) -> None:
    strategy = equipped(STRATEGIES[name](**settings), 7, model[0], public=PUBLIC)
    if (name, check.__name__) in NOT_KEPT:
        with pytest.raises(AssertionError):
            check(strategy, model[1].answer)
    else:
        check(strategy, model[1].answer)


def test_methods_that_can_tell_differences_are_played_with_them(model: tuple[Model, ReferenceBackend]) -> None:
    """Of a method that tells none, the rule on their order asks nothing."""

    def tells(name: str, knobs: dict[str, Any]) -> bool:
        story = checks.play(equipped(STRATEGIES[name](**knobs), 7, model[0], public=PUBLIC), model[1].answer)
        said = [each.message for scene in story for each in scene.actions if isinstance(each, Send)]
        return any(isinstance(message, Weights) and message.base != SNAPSHOT for message in said)

    told = {name for name in SETTINGS for knobs in SETTINGS[name] if "snapshot_every" in knobs and tells(name, knobs)}
    assert told == {name for name, method in STRATEGIES.items() if getattr(method, "TELLS", False)}


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


def test_a_rule_sees_a_step_that_writes_into_a_message(model: tuple[Model, ReferenceBackend]) -> None:
    class Careless(STRATEGIES["d_psgd"]):  # type: ignore[misc]
        def _heard(self, state: Any, event: Any) -> Any:
            event.message.values.codes[0] += 1
            return super()._heard(state, event)

    knobs = {"period_s": 3.0, "window": 40, "steps": 2, "batch": 8, "snapshot_every": 3}
    with pytest.raises(ValueError, match="read-only"):
        checks.check_it_shares(equipped(Careless(**knobs), 7, model[0]), model[1].answer)
    assert checks.run_all(equipped(STRATEGIES["d_psgd"](**knobs), 7, model[0]), answer=model[1].answer) == {}


DPSGD: Any = STRATEGIES["d_psgd"]
SHORT = {"period_s": 3.0, "window": 40, "steps": 1, "batch": 8}


class Anything(DPSGD):  # type: ignore[misc]
    """Takes whatever came last, from whomever."""

    def _heard(self, state: State, event: Received) -> Any:
        said = event.message
        if not isinstance(said, Weights):
            return state, []
        copy = Copy(said.epoch, said.version, restore(said.values), event.at)
        return changed(state, copies={**state.copies, f"{event.sender}/all": copy}), []


class LastArrival(DPSGD):  # type: ignore[misc]
    """Takes whatever fits and came last, however old."""

    def _heard(self, state: State, event: Received) -> Any:
        others = {name: copy for name, copy in state.copies.items() if not name.startswith(f"{event.sender}/")}
        heard, actions = super()._heard(changed(state, copies=others), event)
        return changed(heard, copies={**state.copies, **heard.copies}), actions


class TakesStrangers(DPSGD):  # type: ignore[misc]
    def _heard(self, state: State, event: Received) -> Any:
        everybody = tuple(sorted({*state.peers, event.sender}))
        heard, actions = super()._heard(changed(state, peers=everybody), event)
        return changed(heard, peers=state.peers), actions


class TakesOthers(DPSGD):  # type: ignore[misc]
    """Looks at the size of a vector alone."""

    def _misfit(self, message: Weights) -> str:
        return super()._misfit(replace(message, schema=self.schema, model=model_number(self.model()[0].hash)))


def ahead(message: Any, known: Copy | None) -> int:
    """By how many versions a difference is ahead of what is known; 0 of what is no difference, or not known at all."""
    if known is None or not isinstance(message, Weights) or message.base == SNAPSHOT:
        return 0
    return message.version - known.version


class AddsAnyway(DPSGD):  # type: ignore[misc]
    """Adds a difference to whatever it knows."""

    def _heard(self, state: State, event: Received) -> Any:
        known, message = state.copies.get(f"{event.sender}/all"), event.message
        if ahead(message, known) > 0:
            event = replace(event, message=replace(message, base=known.version))
        return super()._heard(state, event)


class NeverAsks(DPSGD):  # type: ignore[misc]
    def _missed(self, state: State, event: Received, message: Weights) -> Any:
        return state, []


class Forgets(DPSGD):  # type: ignore[misc]
    """Throws away what it knew when something was missed."""

    def _missed(self, state: State, event: Received, message: Weights) -> Any:
        state, actions = super()._missed(state, event, message)
        others = {name: copy for name, copy in state.copies.items() if not name.startswith(f"{event.sender}/")}
        return changed(state, copies=others), actions


class AddsWhatIsLate(DPSGD):  # type: ignore[misc]
    """Takes a difference for new that the whole has overtaken."""

    def _heard(self, state: State, event: Received) -> Any:
        name, message = f"{event.sender}/all", event.message
        known = state.copies.get(name)
        if ahead(message, known) < 0:
            known = replace(known, vector=known.vector + restore(message.values))
            return changed(state, copies={**state.copies, name: known}), []
        return super()._heard(state, event)


REPEATED, ORDER, DIFFERENCES, STRANGER = (
    "check_repeated_message_changes_nothing",
    "check_order_of_messages_does_not_matter",
    "check_order_of_differences_does_not_matter",
    "check_stranger_is_ignored",
)


@pytest.mark.parametrize(
    ("broken", "rules"),
    [
        (Anything, {REPEATED, ORDER, STRANGER}),
        (LastArrival, {REPEATED, ORDER}),
        (TakesStrangers, {STRANGER}),
        (TakesOthers, {STRANGER}),
    ],
)
def test_the_rules_name_a_method_that_takes_what_it_should_not(
    broken: Callable[..., Any], rules: set[str], model: tuple[Model, ReferenceBackend]
) -> None:
    assert set(checks.run_all(equipped(broken(**SHORT), 7, model[0]), answer=model[1].answer)) == rules


@pytest.mark.parametrize(
    ("broken", "rules"),
    [
        (AddsAnyway, {DIFFERENCES}),
        (NeverAsks, {DIFFERENCES}),
        (Forgets, {DIFFERENCES}),
        (AddsWhatIsLate, {REPEATED, DIFFERENCES}),
    ],
)
def test_the_rules_name_a_method_that_takes_differences_as_they_come(
    broken: Callable[..., Any], rules: set[str], model: tuple[Model, ReferenceBackend]
) -> None:
    knobs = {**SHORT, "scheme": "int8", "snapshot_every": 0}
    assert set(checks.run_all(equipped(broken(**knobs), 7, model[0]), answer=model[1].answer)) == rules


class Writes(DPSGD):  # type: ignore[misc]
    def _heard(self, state: State, event: Received) -> Any:
        event.message.age_s = 0.0  # type: ignore[misc, union-attr]
        return super()._heard(state, event)


def stories() -> None:
    """Every method's story where nobody can write to a message: in Python's development mode (`values`)."""
    assert sys.flags.dev_mode
    model, backend = loaded()
    with pytest.raises(FrozenInstanceError):
        checks.check_it_shares(equipped(Writes(**SHORT), 7, model), backend.answer)
    for name, settings in SETTINGS.items():
        for knobs in settings[:1] if name == "prototype_gossip_paper" else settings:  # its other setting takes minutes
            checks.play(equipped(STRATEGIES[name](**knobs), 7, model, public=PUBLIC), backend.answer)


def test_no_method_writes_to_a_message() -> None:
    code = "from tests.strategies import test_checks; test_checks.stories()"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
