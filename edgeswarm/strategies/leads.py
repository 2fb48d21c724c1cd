"""How far the neighbours of a node of `global_update_tracking` lead, whatever the network does to what they say.

Rounds carry the swarm's numbers: a node's next is one more than its last, or what a neighbour has reached, if that is
more. A neighbour is compared with this node as both were in one and the same round, however late its word comes, so
that what one finds the other ahead, the other finds this one behind: neither lateness nor clocks brake the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths import tracking
from edgeswarm.messages import Array
from edgeswarm.strategies.sharing_state import Copy, State

KEPT = 4
"""Rounds of which a node knows what it told."""


class Leads:
    """One round of one node.

    It remembers, in a state's arrays: average; "told/<round>", as others heard it, of the last few rounds; and by
    neighbour "ahead/<peer>", how far its average led in round "met/<peer>" (numbers), the last known of both.
    """

    def __init__(self, state: State, mu: float) -> None:
        self.arrays, self.numbers, self.x, self.mu = dict(state.arrays), dict(state.numbers), state.params, mu
        self.average = state.arrays.get("average", state.params)
        self.round = state.rounds
        self.told = {int(name[5:]): held for name, held in state.arrays.items() if name.startswith("told/")}
        self.told = self.told or {self.round: self.average}

    def faded(self, peer: str, number: int) -> Any:
        """How far a neighbour's average is taken to lead in a round of which nothing is known."""
        ahead = self.arrays.get(f"ahead/{peer}")
        return 0 if ahead is None else self.mu ** (number - self.numbers[f"met/{peer}"]) * ahead

    def follow(self, number: int, row: Mapping[str, float], copies: Mapping[str, Copy]) -> None:
        """Go to round `number`, having moved in the rounds that this node slept through, or was too slow for, as its
        neighbours did. row: their weights."""
        if number == self.round:
            return
        own = self.told[self.round]
        moves = {
            peer: copy.vector - own - self.faded(peer, self.round)
            for peer, copy in copies.items()
            if copy.version >= number
        }
        total = sum(row[peer] for peer in moves)
        moved = np.zeros_like(own)
        for peer, move in moves.items():
            moved += np.float32(row[peer] / total) * move
        self.x, self.average, self.round = self.x + moved, self.average + moved, number
        self.told[number] = own + moved
        if "x_before" in self.arrays:
            self.arrays["x_before"] = self.arrays["x_before"] + moved

    def of(self, peer: str, copy: Copy, before: Copy | None) -> tuple[Any, Any]:
        """How far a neighbour's model (0 without news) and its trailing average lead. before: the copy before `copy`.

        What is late counts less: a pull that is felt k rounds later at full weight overshoots.
        """
        number, met = min(copy.version, self.round), int(self.numbers.get(f"met/{peer}", 0))
        if number <= met or number not in self.told:
            return 0, self.faded(peer, self.round)
        theirs = copy.vector
        if before is not None and before.version <= number < copy.version:
            share = np.float32((number - before.version) / (copy.version - before.version))
            theirs = before.vector + share * (theirs - before.vector)
        lead, now = tracking.met(self.arrays.get(f"ahead/{peer}", 0), theirs, self.told[number], self.mu, number - met)
        self.arrays[f"ahead/{peer}"], self.numbers[f"met/{peer}"] = now, float(number)
        share = np.float32(((1 - self.mu) / 2) ** (self.round - number))
        return (lead, now) if share == 1 else (share * lead, share * now)

    def momentum(self, ahead: Array, beta: float) -> Array:
        """What QG-GUTm adds: beta times the last change of x, what the correction keeps of earlier ones, and of the
        lead of the round before."""
        arrays, mu = self.arrays, self.mu
        nothing = np.zeros_like(self.x)
        change = self.x - arrays.get("x_before", self.x)
        kept = mu * (arrays.get("kept", nothing) + beta * arrays.get("change", nothing))
        added: Array = beta * (change + np.float32(tracking.gain(mu)) * arrays.get("lead_before", nothing)) + kept
        arrays.update(x_before=self.x, change=change, kept=kept, lead_before=ahead)
        return added

    def kept(self, state: State, seen: Array) -> dict[str, NDArray[Any]]:
        """A state's arrays, with what was told in the last few rounds; `seen` in this one."""
        told = {number: held for number, held in self.told.items() if number > state.rounds - KEPT}
        rest = {name: held for name, held in state.arrays.items() if not name.startswith("told/")}
        return rest | {f"told/{number}": held for number, held in {**told, state.rounds: seen}.items()}
