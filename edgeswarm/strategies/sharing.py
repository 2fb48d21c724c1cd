"""What every method that shares a model has in common: a window of own rows, rounds, answers and checkpoints.

A node wakes every `period_s` for a round. No round waits for anybody: it uses the newest that each neighbour has said,
however old, and says how old that was. A method is what it does in a round (`_round`), which vector it answers with
(`served`), and which parts of its model it lets others hear (`PARTS`); all else is here and in `exchange`, once.

A node without rows of its own goes to its neighbours' mean in every round and answers with that, where all of a model
may be heard; it tells nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeswarm.backends.base import LocalEpoch, Predict, Trained
from edgeswarm.errors import NotFinite
from edgeswarm.maths import optimisers
from edgeswarm.maths.optimisers import Moments, rate_at
from edgeswarm.messages import Array
from edgeswarm.strategies.base import (
    Action,
    Answers,
    Batch,
    Decision,
    Event,
    Linked,
    Note,
    Peers,
    Received,
    Request,
    Started,
    Tested,
    Wake,
    Woke,
)
from edgeswarm.strategies.exchange import Exchange
from edgeswarm.strategies.gossip_state import knob, seed_of
from edgeswarm.strategies.local_model import named, usable
from edgeswarm.strategies.own_rows import OwnRows
from edgeswarm.strategies.sharing_state import Copy, State, Step, changed

TRAIN = "train"
"""Name of the wake-up of a round."""


@dataclass(frozen=True)
class Sharing(Exchange):
    """The skeleton; see the module. restart: every round begins with an optimiser that remembers nothing."""

    restart: bool = knob(False)

    # ---- what a method says of itself --------------------------------------------------------------------------------

    def _round(self, state: State, at: float) -> Step:
        """A wake-up with rows to learn from: train, share. The wake-up after it is asked for elsewhere."""
        raise NotImplementedError

    def served(self, state: State) -> Array:
        """The vector (p,) that this node answers with."""
        return state.params

    # ---- the interface of `strategies.base.Strategy` -----------------------------------------------------------------

    def init(self, node: str, seed: int) -> State:
        """State of a node that has seen nothing: the start vector. Raises ValueError without a model."""
        _, start = self.model()
        mixed = seed_of(node, seed)
        return State(node, mixed, start, optimisers.init(self.rule(), start), OwnRows(self.window, self.keep, mixed))

    def step(self, state: State, event: Event) -> Step:
        """See `strategies.base.Strategy`."""
        match event:
            case Started(at, epoch):
                state = replace(self._restarted(state, at), epoch=epoch)
                return state, [Wake(at + self.period_s, TRAIN), *self._listen(state)]
            case Batch():
                return (yield from self._learn(state, event))
            case Woke(at, name) if name == TRAIN:
                return (yield from self._train(state, at))
            case Woke(_, name):
                return self._woken(state, name)
            case Peers(at, names):
                state = self._pruned(replace(state, peers=names), at)
                return state, self._listen(state)
            case Linked():
                return state, self._listen(state)
            case Received():
                return self._heard(state, event)
            case _:
                return state, []

    def predict(self, state: State, x: Array, alone: bool = False) -> Answers:
        """See `strategies.base.Strategy`; `alone` changes nothing: there is one model. Raises ValueError: rows of
        another width."""
        card, _ = self.model()
        x = np.atleast_2d(np.asarray(x, np.float32))
        if x.shape[1] != card.input.size:
            raise ValueError(f"rows have {card.input.size} features, not {x.shape[1]}")
        if not self.knows(state) or not len(x):
            return [None] * len(x), np.zeros(len(x), np.float32)
        answer = yield Predict(card.hash, x, self.served(state))
        return named(card, answer["logits"])

    def dump(self, state: State) -> dict[str, Any]:
        """See `strategies.base.Strategy`."""
        card, _ = self.model()
        copies = {
            name: [copy.epoch, copy.version, copy.vector, copy.at, copy.age_s, copy.samples]
            for name, copy in sorted(state.copies.items())
        }
        return {
            "strategy": self.name,
            "schema": self.schema,
            "model": card.hash,
            "params": state.params,
            "optimiser": self.optimiser,
            "moments": optimisers.dump(state.moments),
            "rows": state.rows.dump(),
            "peers": list(state.peers),
            "copies": copies,
            "strange": sorted(state.strange),
            "arrays": dict(sorted(state.arrays.items())),
            "numbers": dict(sorted(state.numbers.items())),
            **{name: getattr(state, name) for name in _PLAIN},
        }

    def load(self, node: str, dumped: dict[str, Any]) -> State:
        """See `strategies.base.Strategy`. Another kind of optimiser begins anew; a window of another size is cut."""
        card, start = self.model()
        if dumped.get("strategy") != self.name or dumped.get("schema") != self.schema:
            raise ValueError("the saved state is of another strategy or of data with other features")
        if dumped.get("model") != card.hash:
            raise ValueError(f"the saved state is of another model than {card.name}")
        params = np.asarray(dumped["params"])
        if params.dtype != np.float32 or params.shape != start.shape or not np.isfinite(params).all():
            raise ValueError(f"the saved parameters are not {start.size} finite numbers")
        rows = OwnRows.load(dumped["rows"], card.input.size, len(card.labels)).resized(self.window, self.keep)
        moments = self.loaded_moments(dumped["optimiser"], dumped["moments"], params)
        kept = self.remembers  # else `tell` lets it grow stale
        return State(
            node,
            params=params,
            moments=moments,
            rows=rows,
            peers=tuple(dumped["peers"]),
            copies={name: Copy(*held) for name, held in dumped["copies"].items()},
            strange=frozenset(dumped["strange"]),
            arrays={n: np.asarray(held) for n, held in dumped["arrays"].items() if kept or not n.startswith("said/")},
            numbers={n: held for n, held in dumped["numbers"].items() if kept or not n.startswith("said/")},
            **{name: int(dumped[name]) for name in _PLAIN},
        )

    # ---- own samples -------------------------------------------------------------------------------------------------

    def _learn(self, state: State, event: Batch) -> Step:
        """Test, then keep for training."""
        card, _ = self.model()
        d = event.x.shape[1]
        if d != card.input.size:
            return state, [Decision(event.at, "sample", "dropped", "wrong_dimension", {"d": d})]
        labels, mask, too_large = usable(card, event.x, event.y)
        x, y = event.x[mask], labels[mask]
        actions: list[Action] = []
        if self.knows(state):  # before that there is nothing to test
            answers, _ = yield from self.predict(state, x)
            actions = [
                Tested(card.labels[truth], answer, answer) for truth, answer in zip(y.tolist(), answers, strict=True)
            ]
        unknown = int((labels < 0).sum())
        state = replace(
            state,
            rows=state.rows.added(x, y),
            samples=state.samples + len(x),
            unknown=state.unknown + unknown,
            too_large=state.too_large + too_large,
        )
        if unknown:
            actions.append(Note("unknown_labels", float(state.unknown)))
        if too_large:
            actions.append(Note("too_large_rows", float(state.too_large)))
        return state, [*actions, Note("samples", float(state.samples)), Note("window", float(len(state.rows)))]

    def _train(self, state: State, at: float) -> Step:
        """A round, if it `learns`. One that leaves the finite numbers is given up, and the next draws other rows."""
        due = self._wakes(state, at)
        before = changed(state, counter=state.counter + 1, numbers={**state.numbers, "at": at})
        if not self.learns(state, at):
            state, actions = self._adopted(before, at)
            return state, [*due, *actions]
        try:
            state, actions = yield from self._round(before, at)
        except NotFinite:  # the backend looks at every loss and at the parameters
            facts = {"rate": self.rate, "clip": self.clip}
            return before, [*due, Decision(at, "train", "refused", "not_finite", facts)]
        return state, [*due, *actions, Note("steps", float(state.moments.step)), Note("rounds", float(state.rounds))]

    def learns(self, state: State, at: float) -> bool:
        """Whether there is anything to train on."""
        return bool(len(state.rows))

    def _woken(self, state: State, name: str) -> tuple[State, list[Action]]:
        """A wake-up that is no round's."""
        return state, []

    def _wakes(self, state: State, at: float) -> list[Action]:
        """What a round at `at` asks to be woken for."""
        return [Wake(self._next_round(state, at), TRAIN)]

    def _next_round(self, state: State, at: float) -> float:
        """When the round after the one at `at` is due."""
        return at + self.period_s

    def trained(self, state: State, params: Array) -> Generator[Request, Any, tuple[State, Trained]]:
        """`steps` steps from `params` on rows of the window; the state has the optimiser's new moments, and one round
        more, but its params are as they were. The rate's schedule follows the swarm's rounds, so that a node that was
        away takes steps of the others' size. Raises NotFinite through the `yield`."""
        state = self.scheduled(state)
        result: Trained = yield self.request(state, params)
        return self.learnt(state, result.moments), result

    def scheduled(self, state: State) -> State:
        """With the step count that the swarm's rounds ask for; numbers["ahead"] of them this node has not done."""
        if self.rule().steady:
            return state
        ahead = int(state.numbers.get("ahead", 0))
        own = max(0, state.moments.step - ahead)
        swarm = self._swarm(state)
        if swarm is not None:
            ahead = max(0, self.steps * max(swarm, state.rounds) - own)
        if own + ahead == state.moments.step:
            return state
        moments = Moments(own + ahead, state.moments.slots)
        return changed(state, moments=moments, numbers={**state.numbers, "ahead": float(ahead)})

    def request(self, state: State, params: Array) -> LocalEpoch:
        """The round's steps from `params`, of a state that is `scheduled`."""
        offset, slots = self._offset(state), state.moments.slots
        if self.restart:
            slots = tuple(slot * 0 for slot in slots)
        moments = Moments(state.moments.step - offset, slots) if offset or self.restart else state.moments
        request = self.epoch(params, moments, state.rows, state.seed, state.counter - 1)
        return replace(request, optimiser=replace(request.optimiser, ahead=offset)) if offset else request

    def learnt(self, state: State, moments: Moments, **more: Any) -> State:
        """After the steps of `request`, which left these moments: one round more. more: what else has changed."""
        offset = self._offset(state)
        moments = Moments(moments.step + offset, moments.slots) if offset else moments
        return changed(state, moments=moments, rounds=state.rounds + 1, **more)

    def _offset(self, state: State) -> int:
        """Steps of the schedule of which the optimiser remembers nothing; adam alone needs to know."""
        if self.optimiser != "adam":
            return 0
        return state.moments.step if self.restart else min(int(state.numbers.get("ahead", 0)), state.moments.step)

    def rate_now(self, state: State) -> float:
        """Learning rate of the next round's first step."""
        return rate_at(self.rule(), self.scheduled(state).moments.step)

    def _swarm(self, state: State) -> int | None:
        """The lower median of the rounds that neighbours of whom there is news have had, so that one that lies, or two
        of four, cannot end everybody's schedule; a single one is believed. None without news."""
        near, at, rounds = frozenset(self.neighbours(state)), state.numbers.get("at", 0.0), dict[str, int]()
        for name, copy in state.copies.items():
            peer = name.rpartition("/")[0]
            if peer in near and copy.age_s + at - copy.at <= self.forget_s:
                rounds[peer] = max(copy.version, rounds.get(peer, 0))
        return sorted(rounds.values())[(len(rounds) - 1) // 2] if rounds else None

    # ---- without rows ------------------------------------------------------------------------------------------------

    def knows(self, state: State) -> bool:
        """Whether it can answer."""
        return bool(state.rounds) or "adopted" in state.numbers

    def _adopted(self, state: State, at: float) -> tuple[State, list[Action]]:
        """A round without rows: to where the neighbours are on average."""
        parts = next((parts for parts in (("all",), ("body", "head")) if set(parts) <= set(self.PARTS)), ())
        heard = [self.heard(state, part, at) for part in parts]
        if not parts or not all(heard):
            return state, []
        row = self.graph(state).row(state.node)
        means = []
        for copies in heard:
            weights = np.array([row[peer] for peer in copies], np.float32)
            means.append(sum(w * copy.vector for w, copy in zip(weights / weights.sum(), copies.values(), strict=True)))
        numbers = {**state.numbers, "adopted": 1.0}
        return changed(state, params=np.concatenate(means), numbers=numbers), self.noted(state, heard[0], at)


_PLAIN = ("seed", "rounds", "counter", "samples", "unknown", "too_large", "epoch")
