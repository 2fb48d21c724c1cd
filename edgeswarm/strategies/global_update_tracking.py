"""Global update tracking that survives lost and late messages, sleeping neighbours and clocks that do not agree.

S. A. Aketi, A. Hashemi, K. Roy, "Global Update Tracking: A Decentralized Learning Algorithm for Heterogeneous Data",
arXiv 2305.04792, NeurIPS 2023. The algorithm is theirs (`global_update_tracking_paper`, in lock-step equal to it but
for rounding), the message is another. In their form x <- z - eta g + c, c = mu ((z - z_before) + step_before); that is
c = mu / (1 - mu) times what the neighbours' trailing averages a <- mu a + (1 - mu) x are ahead of one's own
(`maths.tracking`). So a node tells its trailing average, one vector as in D-PSGD, and

- a message that is lost costs that round's pull and no more: the next one says everything (newest copies instead slow
  the mean by (1 - mu + s) / (1 - mu), s the mean staleness; lost differences move it for good);
- a neighbour that is there and has not been heard in a round is asked (`sharing`), as TCP sends again;
- averages are compared round by round (`leads`), so lateness does not brake; and a node that is behind its neighbours
  brings its rounds forward until they fall together, so that what is told in one round is there for the next;
- who slept, or is new, or slow, has moved meanwhile as its neighbours did;
- a neighbour that says nothing holds nobody back: it counts as being where this node is, its lead fades by mu.

Beyond the paper as well: `steps` local steps between two exchanges (what is tracked is their sum), compressed
differences (`sharing`), and a rate schedule that follows the swarm's rounds. Tried and worse: newest copies (30 % lost:
half the accuracy at mu 0.9), a held difference (diverges at mu 0.9), making up for missed rounds from models alone
(diverges at 30 %), messages dated by their arrival (delays of a third of a period cost 16 points). What it costs: three
vectors for each neighbour and six of one's own; words that are always more than a period late count little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgeswarm.maths import tracking
from edgeswarm.messages import SNAPSHOT, Weights
from edgeswarm.strategies.base import Action, Note, Received
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.leads import Leads
from edgeswarm.strategies.sharing_state import Copy, State, Step, changed
from edgeswarm.strategies.telling import Telling

MOST_SHIFT, TOLERANCE = 0.2, 0.05
"""How far a round is brought forward at most, and what is near enough, in periods."""
MOST_PACE, SPARE_ROUNDS = 2, 32
"""How many rounds a period is believed to hold, and how many that were not used are kept. At 1.25 and 8 some that woke
stayed behind, and one swarm of three with a third asleep came apart."""


@dataclass(frozen=True)
class GlobalUpdateTracking(Telling):
    """mu: how strongly the others' updates are followed, 0 for nine tenths of what the graph bears, at most 0.8; the
    same for all nodes. beta: momentum of QG-GUTm; beta + mu < 1. The local optimiser is plain: its own momentum would
    not be tracked.

    Raises ValueError: mu beyond what the graph bears (when the state is made), or beta + mu not below 1.
    """

    NAME: ClassVar[str] = "global_update_tracking"
    WHOLE: ClassVar[tuple[str, ...]] = ("float32", "float16")
    TIMES: ClassVar[tuple[str, ...]] = ("at", "begun_at", "led_at")

    optimiser: str = knob("sgd", choices=("sgd",))
    mu: float = knob(0.0, 0.0, 0.99)
    beta: float = knob(0.0, 0.0, 0.99)
    ask: bool = knob(True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta + self.mu >= 1:
            raise ValueError(f"beta + mu is below 1, not {self.beta + self.mu:g}: more diverges")
        if self.topology.names:
            largest = self.topology.graph("", ()).spectrum.largest_mu
            if self.mu >= largest:
                raise ValueError(f"mu is below {largest:.3g} on this graph, not {self.mu:g}: set 0, or weights lazy")

    def strength(self, state: State) -> float:
        """mu, as set or as the graph bears it; with momentum 0.06 for beta 0.9, as the authors run it."""
        spectrum = self.graph(state).spectrum
        if 0 < self.mu < spectrum.largest_mu:
            return self.mu
        return min(spectrum.chosen_mu, 0.6 * (1 - self.beta)) if self.beta else spectrum.chosen_mu

    def stable_gossip(self) -> float:
        """What is rounded off counts mu / (1 - mu) times, so coarse differences bear less here than without mu."""
        return {"int4": 0.3, "top": min(0.3, self.share)}.get(self.scheme, 1.0)

    def _next_round(self, state: State, at: float) -> float:
        """A little earlier for who is behind its neighbours."""
        behind = (at - state.numbers.get("led_at", at)) / self.period_s
        return at + self.period_s * (1 - min(MOST_SHIFT, max(0.0, behind - TOLERANCE)))

    def _heard(self, state: State, event: Received) -> tuple[State, list[Action]]:
        """Keeps the newest copy but one too, and when a neighbour was first heard to have had the next round."""
        name = f"{event.sender}/all"
        before = state.copies.get(name)
        state, actions = super()._heard(state, event)
        copy = state.copies.get(name)
        if copy is None or copy is before:
            return self._late(state, event), actions
        copies = {**state.copies, **({f"{event.sender}/before": before} if before else {})}
        led = copy.version == state.rounds + 1 and "led_at" not in state.numbers
        numbers = {**state.numbers, "led_at": event.at} if led else state.numbers
        return replace(state, copies=copies, numbers=numbers), actions

    def _late(self, state: State, event: Received) -> State:
        """A whole vector that a newer one has overtaken may still be the newest but one."""
        message, name, before = event.message, f"{event.sender}/all", f"{event.sender}/before"
        newest = state.copies.get(name)
        if newest is None or not isinstance(message, Weights) or message.base != SNAPSHOT:
            return state
        if (message.epoch, message.version) >= (newest.epoch, newest.version):
            return state
        copies = {held: copy for held, copy in state.copies.items() if held not in (name, before)}
        if before in state.copies:
            copies[name] = state.copies[before]
        found = super()._heard(changed(state, copies=copies), event)[0].copies.get(name)
        if found is None or found is state.copies.get(before):
            return state
        return changed(state, copies={**state.copies, before: found})

    def _reached(self, state: State, at: float, copies: Mapping[str, Copy]) -> tuple[int, float]:
        """The round that this one is: the furthest that a neighbour has reached, as far as there has been time for it,
        or what most neighbours have, so that one that lies cannot send the others ahead; a single one is believed by
        who has just begun. And when this round would have begun at the fastest pace; what is not used of it is kept,
        SPARE_ROUNDS at most."""
        shortest_s = self.period_s / MOST_PACE
        begun = state.numbers.get("begun_at", at - shortest_s)
        number, reached = state.rounds, sorted(copy.version - 1 for copy in copies.values())
        if reached:
            most = number + int((at - begun) / shortest_s)
            crowd = reached[(len(reached) - 1) // 2] if len(reached) > 1 or not number else 0
            number = max(number, min(most, reached[-1]), crowd)
        begun += (number + 1 - state.rounds) * shortest_s
        return number, max(begun, at - SPARE_ROUNDS * shortest_s)

    def _round(self, state: State, at: float) -> Step:
        mu, row, copies = self.strength(state), self.graph(state).row(state.node), self.heard(state, "all", at)
        leads = Leads(state, mu)
        number, leads.numbers["begun_at"] = self._reached(state, at, copies)
        leads.follow(number, row, copies)
        pull, ahead = np.zeros_like(leads.x), np.zeros_like(leads.x)
        for peer, copy in copies.items():
            weight = np.float32(self.averaging * row[peer])
            lead, average_lead = leads.of(peer, copy, state.copies.get(f"{peer}/before"))
            pull += weight * lead
            ahead += weight * average_lead
        state, result = yield from self.trained(replace(state, rounds=leads.round), leads.x + pull)
        params = result.params + np.float32(tracking.gain(mu)) * ahead
        if self.beta:
            params += leads.momentum(ahead, self.beta)
        average = leads.arrays["average"] = tracking.trailing(leads.average, params, mu)
        leads.numbers.pop("led_at", None)
        state, seen, send = self.tell(
            replace(state, params=params, arrays=leads.arrays, numbers=leads.numbers), "all", average
        )
        state = replace(state, arrays=leads.kept(state, seen))
        notes = [Note("loss", float(result.losses.mean())), Note("mu", mu)]
        return state, [*self.noted(state, copies, at), *notes, send]
