"""The agent alone: a strategy that does what it is told, a transport that notes what it is given, a virtual clock."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from edgeswarm.agent import agent as module
from edgeswarm.agent.agent import Agent, Score
from edgeswarm.agent.clock import VirtualClock
from edgeswarm.messages import EVERYONE, Message, Presence, Pull
from edgeswarm.strategies.base import (
    Action,
    Cluster,
    Decision,
    Event,
    Linked,
    Note,
    Peers,
    Send,
    Sent,
    Started,
    Wake,
    Woke,
    finish,
)
from edgeswarm.strategies.base import Tested as Scored


class Script:
    """A strategy whose state is the list of events it saw, and whose actions are looked up by event."""

    name = "script"

    def __init__(self, **answers: list[Action]) -> None:
        self.answers = answers
        self.request: Any = None
        self.fail_on: type[Event] | None = None

    def step(self, state: tuple[Event, ...], event: Event) -> Generator[Any, Any, tuple[Any, list[Action]]]:
        if self.fail_on is not None and isinstance(event, self.fail_on):
            raise RuntimeError("a bug")
        seen: tuple[Any, ...] = (event,)
        if self.request is not None and isinstance(event, Started):
            seen = ((yield self.request),)
        name = event.name if isinstance(event, Woke) else type(event).__name__
        return (*state, *seen), self.answers.get(name, [])


class Wire:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Message]] = []

    def send(self, to: str, message: Message) -> int:
        self.sent.append((to, message))
        return 40 + len(self.sent)

    def announce(self, presence: Presence) -> None:
        raise NotImplementedError


class Bench:
    """An agent under test. Wake-ups go straight back into it."""

    def __init__(self, **answers: list[Action]) -> None:
        self.clock, self.wire, self.script = VirtualClock(), Wire(), Script(**answers)
        self.decided: list[Decision] = []
        self.tested: list[Scored] = []
        strategy: Any = self.script
        self.agent: Agent[Any] = Agent(
            "ann", strategy, (), self.wire, self.clock, self, self.decided.append, self.tested.append
        )

    def __call__(self, event: Event) -> None:
        finish(self.agent.steps(event), lambda request: Woke(0.0, "answer"))

    @property
    def seen(self) -> list[Event]:
        return list(self.agent.state)


def test_what_is_sent_is_counted_by_the_strategy_at_once() -> None:
    pull = Pull(7, 1, 2)
    bench = Bench(Started=[Send("bob", pull), Send(EVERYONE, pull)])
    bench(Started(0.0, 1))
    assert bench.wire.sent == [("bob", pull), (EVERYONE, pull)]
    assert bench.seen == [Started(0.0, 1), Sent(0.0, "bob", pull, 41), Sent(0.0, EVERYONE, pull, 42)]


def test_a_request_is_answered_where_it_was_asked() -> None:
    bench = Bench()
    none = np.zeros(0, np.int32)
    bench.script.request = Cluster(np.zeros((0, 2), np.float32), none, none.astype(np.float32), 1, none.astype(bool), 0)
    bench(Started(0.0, 1))
    assert bench.seen == [Woke(0.0, "answer")]


def test_a_later_wake_replaces_an_earlier_one_of_the_same_name_only() -> None:
    bench = Bench(Started=[Wake(5.0, "share"), Wake(6.0, "other"), Wake(8.0, "share")])
    bench(Started(0.0, 1))
    bench.clock.run(20.0)
    assert bench.seen[1:] == [Woke(6.0, "other"), Woke(8.0, "share")]


def test_a_wake_asked_for_twice_comes_once() -> None:
    bench = Bench(Started=[Wake(5.0, "share"), Wake(5.0, "share")], Linked=[Wake(5.0, "share")])
    bench(Started(0.0, 1))
    bench(Linked(1.0))
    bench.clock.run(20.0)
    assert bench.seen.count(Woke(5.0, "share")) == 1


def test_a_wake_may_be_asked_for_again_while_it_is_handled() -> None:
    bench = Bench(Started=[Wake(1.0, "share")], share=[Wake(3.0, "share")])
    bench(Started(0.0, 1))
    bench.clock.run(2.0)
    bench.script.answers["share"] = []
    bench.clock.run(20.0)
    assert bench.seen[1:] == [Woke(1.0, "share"), Woke(3.0, "share")]


def test_a_wake_whose_step_failed_can_be_delivered_again() -> None:
    """The service does so after a pause; otherwise one bug would silence a node for ever."""
    bench = Bench(Started=[Wake(1.0, "share")])
    bench(Started(0.0, 1))
    bench.script.fail_on = Woke
    with pytest.raises(RuntimeError):
        bench.clock.run(2.0)
    bench.script.fail_on = None
    bench(Woke(1.0, "share"))
    assert bench.seen[-1] == Woke(1.0, "share")


def test_notes_are_kept_by_name_and_link_and_ages_run_on() -> None:
    bench = Bench(Started=[Note("prototypes", 3.0), Note("prototypes", 4.0), Note("pulls", 1.0, "bob"),
                           Note("age_s", 2.0, "bob")])  # fmt: skip
    bench(Started(0.0, 1))
    bench.clock.run(10.0)
    assert bench.agent.notes == {"prototypes": 4.0}
    report = bench.agent.link_report()["bob"]
    assert (
        report["pulls"] == 1.0 and report["age_s"] == 12.0 and report["updates"] == 1.0 and "prototypes" not in report
    )
    assert 2.0 <= report["age_mean_s"] <= 12.0 and "age_s" not in bench.agent.link_notes["bob"]


def test_decisions_and_answers_go_through_their_doors() -> None:
    decision, scored = Decision(0.0, "share", "held", "no_news"), Scored("yes", "yes", None)
    bench = Bench(Started=[decision, scored])
    bench(Started(0.0, 1))
    assert bench.decided == [decision] and bench.tested == [scored]
    assert bench.agent.notes == {"accuracy_alone": 0.0, "accuracy_swarm": 1.0}


def test_the_score_by_hand() -> None:
    """Right, wrong, wrong: 0.99^2 / (1 + 0.99 + 0.99^2) alone."""
    score = Score()
    for alone in ("a", "b", None):
        score.count(Scored("a", "a", alone))
    assert score.notes()["accuracy_swarm"] == 1.0
    assert score.notes()["accuracy_alone"] == pytest.approx(0.99**2 / (1 + 0.99 + 0.99**2))


def test_numbers_of_absent_peers_are_dropped_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINKS_LIMIT", 50)
    for length in (10, 200):
        ghosts: list[Action] = [Note("pulls", 1.0, f"ghost{i}") for i in range(length)]
        bench = Bench(Started=[*ghosts, Note("age_s", 1.0, "bob"), Note("age_s", 1.0, "gone")])
        bench(Started(0.0, 1))
        bench(Peers(1.0, ("bob",)))
        assert (set(bench.agent.link_report()) == {"bob"}) is (length == 200)
