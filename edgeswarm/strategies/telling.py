"""Methods that tell differences, ask for what has not come, and answer those who ask.

What was told last is remembered as others took it, so that a difference builds on it and who has missed one can be
given the whole. A neighbour that lacks what a difference builds on keeps its old copy and asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgeswarm.maths.compress import restore
from edgeswarm.messages import EVERYONE, SNAPSHOT, Array, Pull, Weights
from edgeswarm.strategies.base import Action, Received, Send, Wake
from edgeswarm.strategies.exchange import WHOLE_SCHEMES
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.sharing import Sharing
from edgeswarm.strategies.sharing_state import Copy, State

ASKS = {"ask": 0.5, "ask again": 0.75}
"""Names of the wake-ups between two rounds at which what has not come is asked for, and their share of the period."""
ASKED_ROUNDS = 2
"""For how many rounds a neighbour of which nothing comes is asked."""
PATIENCE_ROUNDS = 10
"""For how long a neighbour is not asked after it was asked for what was on its way."""


@dataclass(frozen=True)
class Telling(Sharing):
    """See the module.

    snapshot_every: 1 tells whole vectors; n, differences by `scheme` with a whole float32 vector every n rounds; 0,
    after the first only where one is pulled; -1: 1 where the scheme is of `WHOLE`, else 0.  ask: neighbours that are
    there and of which nothing as new as one's own has come are asked for it, twice a round.
    """

    TELLS: ClassVar[bool] = True
    WHOLE: ClassVar[tuple[str, ...]] = tuple(scheme for scheme in WHOLE_SCHEMES if scheme != "entropy")

    snapshot_every: int = knob(-1, -1, 1_000_000)
    ask: bool = knob(False)

    @property
    def whole_every(self) -> int:
        """See `Exchange.whole_every`."""
        return self.snapshot_every if self.snapshot_every >= 0 else int(self.scheme in self.WHOLE)

    @property
    def remembers(self) -> bool:
        """To build differences on, or to answer those who ask."""
        return self.whole_every != 1 or self.scheme != "float32" or self.ask

    @property
    def averaging(self) -> float:
        """See `Exchange.averaging`."""
        return self.gossip or (1.0 if self.whole_every == 1 else self.stable_gossip())

    def stable_gossip(self) -> float:
        """The largest gamma at which averaging of differences was stable on rings."""
        return min(1.0, 3 * self.share) if self.scheme == "top" else 1.0

    # ---- what is heard -----------------------------------------------------------------------------------------------

    def _heard(self, state: State, event: Received) -> tuple[State, list[Action]]:
        if isinstance(event.message, Pull) and event.sender != state.node:
            return self._pulled(state, event, event.message)
        return super()._heard(state, event)

    def _again(self, state: State, sender: str, message: Weights, known: Copy) -> State:
        """Where a neighbour was asked, and both its word and an answer came, or two answers, what was asked for was
        late, not lost: ask this one less often. They differ in age, and what the network said twice does not."""
        same = (message.epoch, message.version) == (known.epoch, known.version)
        if not same or message.age_s == known.age_s or state.numbers.get(f"wanted/{sender}") != state.counter:
            return state
        return replace(state, numbers={**state.numbers, f"patient/{sender}": state.counter + PATIENCE_ROUNDS})

    def _missed(self, state: State, event: Received, message: Weights) -> tuple[State, list[Action]]:
        """What a difference builds on is not here: ask for the whole, once a round; until then the old copy stays."""
        asked = f"asked/{event.sender}"
        if state.numbers.get(asked) == state.counter:
            return state, []
        state = replace(state, numbers={**state.numbers, asked: state.counter})
        return state, [Send(event.sender, Pull(self.schema, message.epoch, SNAPSHOT))]

    def _asked(self, state: State) -> tuple[State, list[Action]]:
        """Ask neighbours that are there for what is as new as what this node has told, and has not come."""
        numbers, pulls = dict(state.numbers), list[Action]()
        for peer in self.neighbours(state):
            copies = [state.copies.get(f"{peer}/{part}") for part in self.PARTS]
            oldest = min(((copy.epoch, copy.version) for copy in copies if copy is not None), default=(0, SNAPSHOT))
            newest = 0 if None in copies else oldest[1]  # who has been silent for longer sleeps
            if (
                0 < state.rounds - newest <= ASKED_ROUNDS
                and peer in state.peers
                and numbers.get(f"patient/{peer}", 0) <= state.counter
            ):
                numbers[f"wanted/{peer}"] = state.counter
                pulls.append(Send(peer, Pull(self.schema, *oldest)))
        return replace(state, numbers=numbers), pulls

    def _pulled(self, state: State, event: Received, pull: Pull) -> tuple[State, list[Action]]:
        """Somebody who hears this node has missed something: what all others take it to be, exactly, and not more often
        than a round has asks."""
        sender, answered = event.sender, f"pulled/{event.sender}"
        known = state.node in self.graph(state).neighbours(sender)
        again = abs(event.at - state.numbers.get(answered, -np.inf)) < 0.2 * self.period_s
        if pull.schema != self.schema or not known or again:
            return state, []
        answers: list[Action] = []
        scheme = self.scheme if self.whole_every == 1 else "float32"
        age_s = max(0.0, event.at - state.numbers.get("at", event.at))
        for part in self.PARTS:
            said, version = state.arrays.get(f"said/{part}"), int(state.numbers.get(f"said/{part}", SNAPSHOT))
            if said is not None and version >= 0 and (pull.epoch, pull.version) < (state.epoch, version):
                message = self._message(state, part, self._compressed(state, part, said, scheme))
                answers.append(Send(sender, replace(message, version=version, age_s=age_s)))
        return replace(state, numbers={**state.numbers, answered: event.at}) if answers else state, answers

    # ---- when --------------------------------------------------------------------------------------------------------

    def _woken(self, state: State, name: str) -> tuple[State, list[Action]]:
        return self._asked(state) if name in ASKS else (state, [])

    def _wakes(self, state: State, at: float) -> list[Action]:
        asks = [Wake(at + share * self.period_s, name) for name, share in ASKS.items()] if self.ask else []
        return [*super()._wakes(state, at), *asks]

    # ---- what is told ------------------------------------------------------------------------------------------------

    def tell(self, state: State, part: str, vector: Array) -> tuple[State, Array, Send]:
        """As `told`, or the difference since what was told last; and what all others will take `vector` to be once they
        have heard it, which is what their vectors are to be compared with (CHOCO: 1902.00340)."""
        name, said = f"said/{part}", state.arrays.get(f"said/{part}")
        every = self.whole_every
        if every == 1:
            send = self.told(state, part, vector)
            assert isinstance(send.message, Weights)
            if not self.remembers:
                return state, vector, send
            seen = vector if self.scheme == "float32" else restore(send.message.values)
            numbers = {**state.numbers, name: float(state.rounds)} if self.ask else state.numbers
            return replace(state, arrays={**state.arrays, name: seen}, numbers=numbers), seen, send
        if said is None or name not in state.numbers or (every and state.rounds % every == 0):
            message = self._message(state, part, self._compressed(state, part, vector, "float32"))
            seen = vector
        else:
            values = self._compressed(state, part, vector - said, self.scheme)
            seen = said + restore(values)
            message = replace(self._message(state, part, values), base=int(state.numbers[name]))
        state = replace(
            state, arrays={**state.arrays, name: seen}, numbers={**state.numbers, name: float(state.rounds)}
        )
        return state, seen, Send(EVERYONE, message)
