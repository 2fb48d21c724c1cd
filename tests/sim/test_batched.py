"""Requests of agents that fall on the same instant go to the backend together, and the run is the same either way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeswarm.backends.base import LocalEpoch, Request
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.errors import NotFinite
from edgeswarm.sim.world import Stream, World
from edgeswarm.strategies.base import Decision, equipped
from edgeswarm.strategies.checks import plain
from edgeswarm.strategies.isolated import Isolated
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from tests.tiny_model import tiny

MODEL = tiny((2,), ("0", "1"))
NODES = 6


class Counting(ReferenceBackend):
    """Remembers how many requests of which kind came together."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.load(MODEL)

    def answer_all(self, requests: Sequence[Request]) -> list[Any]:
        self.calls.append([type(request).__name__ for request in requests])
        return super().answer_all(requests)


def streams(together: bool) -> dict[str, Stream]:
    """Samples of all nodes at the same instants, or each at its own."""
    found = {}
    for i in range(NODES):
        rng = np.random.default_rng(i)
        y = rng.integers(0, 2, 60)
        x = (rng.normal(size=(60, 2)) + 3 * y[:, None]).astype(np.float32)
        found[f"n{i}"] = Stream(
            x, [str(label) for label in y], 0.5 * np.arange(1, 61) + (0.0 if together else 0.003 + 0.01 * i)
        )
    return found


def run(backend: Any, together: bool = True) -> World:
    strategy = equipped(Isolated(period_s=5.0, steps=3, batch=8, window=30), 7, MODEL)
    world = World(strategy, streams(together), 3, backend=backend)
    world.run(31.0)
    return world


def states(world: World) -> list[Any]:
    return [plain(node.agent.strategy.dump(node.agent.state)) for node in world.nodes.values()]


def test_what_happens_at_one_instant_is_asked_in_one_call() -> None:
    backend = Counting()
    world = run(backend)
    epochs = [call for call in backend.calls if "LocalEpoch" in call]
    assert epochs == [["LocalEpoch"] * NODES] * 6, "wake-ups of all nodes, each in one call"
    predictions = [call for call in backend.calls if "Predict" in call]
    assert predictions == [["Predict"] * NODES] * len(predictions) and len(predictions) == 50
    assert (world.calls, world.requests) == (56, 56 * NODES)


def test_a_node_takes_one_event_after_another() -> None:
    """A sample and a wake-up at the same instant: the sample was first, so its test comes before the training."""
    world = run(Counting())
    for node in world.nodes.values():
        state = node.agent.state
        # ten samples came before the first training: there was nothing to test
        assert state.samples == 60 and state.rounds == 6 and len(node.tested) == 50
        assert all(tested.answer is not None for tested in node.tested)


def test_answered_together_or_one_by_one_the_run_is_the_same() -> None:
    class OneByOne:
        def __init__(self) -> None:
            self.backend = Counting()

        def answer(self, request: Request) -> Any:
            return self.backend.answer(request)

        def answer_all(self, requests: Sequence[Request]) -> list[Any]:
            return [self.answer(request) for request in requests]

    together, alone = run(Counting()), run(OneByOne())
    assert states(together) == states(alone)
    for node, other in zip(together.nodes.values(), alone.nodes.values(), strict=True):
        assert plain(node.tested) == plain(other.tested)


def test_nodes_that_never_coincide_are_asked_one_by_one_and_learn_the_same() -> None:
    """Nobody hears anybody here, so when the others learn makes no difference."""
    backend = Counting()
    apart = run(backend, together=False)
    assert {len(call) for call in backend.calls if "Predict" in call} == {1}
    assert sum(node.agent.state.rounds for node in apart.nodes.values()) == 36


def test_an_error_reaches_the_step_that_asked_and_no_other() -> None:
    class Refusing(ReferenceBackend):
        """Refuses every epoch of the node whose seed is `victim`."""

        def __init__(self, victim: Any) -> None:
            super().__init__()
            self.load(MODEL)
            self.victim = victim

        def answer(self, request: Request) -> Any:
            if isinstance(request, LocalEpoch) and request.data["x"].tobytes() in self.victim:
                raise NotFinite("refused")
            return super().answer(request)

    seen: list[bytes] = []

    class Listening(Counting):
        def answer_all(self, requests: Sequence[Request]) -> list[Any]:
            if requests and isinstance(requests[0], LocalEpoch) and len(requests) == NODES:
                seen.append(requests[0].data["x"].tobytes())
            return super().answer_all(requests)

    run(Listening())
    world = run(Refusing({seen[0]}))
    epochs = [node.agent.state.rounds for node in world.nodes.values()]
    assert epochs == [5, *[6] * (NODES - 1)]
    (decision,) = world.nodes["n0"].decisions
    assert isinstance(decision, Decision) and decision.reason == "not_finite"


def test_methods_without_a_model_need_no_backend() -> None:
    world = World(PrototypeGossip(period_s=2.0, keep_limit=12), streams(True), 1)
    world.run(20.0)
    assert world.requests >= world.calls > 0
    assert all(node.agent.state.replicas for node in world.nodes.values())
