"""How models get from node to node: whom a node hears, what it takes and what it tells.

Of each part of each neighbour's model the newest is kept, whole. Words of one whom it does not hear by the graph, or
that do not fit the model, are refused. Differences, and what is asked for, are in `telling`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np

from edgeswarm.errors import NotFinite
from edgeswarm.maths.compress import compress, restore
from edgeswarm.maths.graphs import Graph, Topology
from edgeswarm.messages import EVERYONE, SNAPSHOT, VECTOR_SCHEMES, Array, Compressed, Weights
from edgeswarm.strategies.base import Action, Listen, Note, Received, Send
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.local_model import ModelKnobs
from edgeswarm.strategies.own_rows import LARGEST
from edgeswarm.strategies.refusals import refused
from edgeswarm.strategies.sharing_state import Copy, State, changed

WHOLE_SCHEMES = tuple(scheme for scheme in VECTOR_SCHEMES if scheme != "top")
"""In which a whole vector can be told; by "top" most of it would be 0."""
MOST_ROUNDS = 1 << 32
"""Of a neighbour that is believed; the wire ends far above, so who follows one can go on."""
GONE_LIMIT = 16
"""Peers that are no neighbours any more whose copies are kept, in case they come back."""
BY_PEER = ("asked", "wanted", "patient", "pulled", "muted", "met", "ahead")
"""First parts of the names "<...>/<peer>" in a state's numbers and arrays."""


@dataclass(frozen=True)
class Exchange(ModelKnobs):
    """What is heard and told; see the module. topology: set by the agent (`base.equipped`).

    scheme: how a vector travels.  share: of its numbers, with scheme "top".  gossip: averaging rate gamma, W becomes
    I + gamma (W - I); 0: as much as the scheme bears.  forget_s: a neighbour's model that is older has no weight any
    more.

    Raises ValueError: whole vectors in a scheme that is not among `WHOLE`.
    """

    NAME: ClassVar[str]
    PARTS: ClassVar[tuple[str, ...]] = ("all",)
    WHOLE: ClassVar[tuple[str, ...]] = WHOLE_SCHEMES
    """Schemes that round off little enough of a whole vector."""
    TIMES: ClassVar[tuple[str, ...]] = ("at",)
    """Names in a state's numbers that are times by this node's clock."""
    TELLS: ClassVar[bool] = False
    """Whether it tells differences, and answers who has missed one (`telling.Telling`)."""
    COUNTS_SENT: ClassVar[bool] = False
    """See `base.counts_sent`."""

    topology: Topology = field(default_factory=Topology, repr=False, compare=False)
    scheme: str = knob("float32", choices=VECTOR_SCHEMES)
    share: float = knob(0.1, 1e-4, 1.0)
    gossip: float = knob(0.0, 0.0, 1.0)
    forget_s: float = knob(3600.0, 0.1, 1e9)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.PARTS and self.whole_every == 1 and self.scheme not in self.WHOLE:
            remedy = "set snapshot_every 0 or leave it out" if self.TELLS else f"choose {', '.join(self.WHOLE)}"
            raise ValueError(f"scheme {self.scheme} spoils the whole vectors of {self.name}: {remedy}")

    @property
    def name(self) -> str:
        return self.NAME

    @property
    def whole_every(self) -> int:
        """A whole vector is told every so many rounds, in the others differences; 0: the first alone is whole."""
        return 1

    @property
    def remembers(self) -> bool:
        """Whether what was told last is kept."""
        return False

    @property
    def averaging(self) -> float:
        """gamma, as set or as the scheme bears."""
        return self.gossip or 1.0

    # ---- neighbours --------------------------------------------------------------------------------------------------

    def graph(self, state: State) -> Graph:
        """Who hears whom. Raises ValueError: the topology cannot be built for those who are there."""
        return self.topology.graph(state.node, state.peers)

    def neighbours(self, state: State) -> tuple[str, ...]:
        """Whom this node hears."""
        return self.graph(state).neighbours(state.node)

    def _listen(self, state: State) -> list[Action]:
        wanted = frozenset((peer, part) for peer in self.neighbours(state) for part in self.PARTS)
        return [Listen(wanted)] if self.PARTS else []

    def _pruned(self, state: State, at: float) -> State:
        """Without what is known of peers that are no neighbours, but for a few that may come back."""
        near = frozenset(self.neighbours(state))
        gone: dict[str, float] = {}
        for name, copy in state.copies.items():
            peer = name.rpartition("/")[0]
            if peer not in near and at - copy.at <= self.forget_s:
                gone[peer] = max(copy.at, gone.get(peer, copy.at))
        graph = self.graph(state)
        kept = near | set(sorted(gone, key=lambda peer: (gone[peer], peer))[-GONE_LIMIT:])

        def stays(name: str) -> bool:
            kind, _, peer = name.partition("/")
            return kind not in BY_PEER or not peer or peer in kept or state.node in graph.neighbours(peer)

        return changed(
            state,
            copies={name: copy for name, copy in state.copies.items() if name.rpartition("/")[0] in kept},
            numbers={name: value for name, value in state.numbers.items() if stays(name)},
            arrays={name: value for name, value in state.arrays.items() if stays(name)},
        )

    def _restarted(self, state: State, at: float) -> State:
        """Where the clock began anew (a board that was rebooted), ages are as they were when it was last looked at."""
        last = max([state.numbers.get("at", at), *(copy.at for copy in state.copies.values())])
        if last <= at:
            return state
        copies = {name: replace(copy, at=copy.at + at - last) for name, copy in state.copies.items()}
        numbers = {name: value for name, value in state.numbers.items() if not name.startswith("pulled/")}
        times = {name: numbers[name] + at - last for name in self.TIMES if name in numbers}
        return changed(state, copies=copies, numbers={**numbers, **times, "at": at})

    # ---- what is heard -----------------------------------------------------------------------------------------------

    def _heard(self, state: State, event: Received) -> tuple[State, list[Action]]:
        """A neighbour's model, if it is newer than what is known; anything that does not fit is dropped."""
        message, sender = event.message, event.sender
        if not isinstance(message, Weights) or sender == state.node or message.part not in self.PARTS:
            return state, []
        name = f"{sender}/{message.part}"
        known = state.copies.get(name)
        if sender not in self.neighbours(state):  # one of whom something is known has only just left
            return (state, []) if known is not None else refused(state, event, "no_neighbour")
        reason = self._misfit(message)
        if reason:
            return refused(state, event, reason)
        if known is not None and (message.epoch, message.version) <= (known.epoch, known.version):
            return self._again(state, sender, message, known), []
        vector = restore(message.values)
        if message.base != SNAPSHOT:
            if not self.TELLS or known is None or (known.epoch, known.version) != (message.epoch, message.base):
                return self._missed(state, event, message)
            vector = vector + known.vector  # of a whole vector what came is a view of the message
        # The sum of squares says yes in a third of the time.
        if not (np.vdot(vector, vector) <= LARGEST or np.abs(vector).max() <= LARGEST):
            return refused(state, event, "too_large")
        came = event.at - event.waited_s
        copy = Copy(message.epoch, message.version, vector, came, message.age_s, message.samples)
        age_s = message.age_s + event.waited_s
        return changed(state, copies={**state.copies, name: copy}), [Note("age_s", age_s, sender)]

    def _again(self, state: State, sender: str, message: Weights, known: Copy) -> State:
        """A word that is not newer than what is known."""
        return state

    def _missed(self, state: State, event: Received, message: Weights) -> tuple[State, list[Action]]:
        """What a difference builds on is not here."""
        return refused(state, event, "difference")

    def _misfit(self, message: Weights) -> str:
        """Why a message cannot be used, in one countable word; "" when it can."""
        card, _ = self.model()
        if message.schema != self.schema:
            return "other_schema"
        if message.model != model_number(card.hash):
            return "other_model"
        if message.version > MOST_ROUNDS:
            return "too_many_rounds"
        size = {"body": card.body_size, "head": card.size - card.body_size}.get(message.part, card.size)
        if message.values.size != size:
            return "wrong_size"
        return ""

    def heard(self, state: State, part: str, at: float) -> dict[str, Copy]:
        """By neighbour, what is known of that part and not too old."""
        found = {peer: state.copies.get(f"{peer}/{part}") for peer in self.neighbours(state)}
        return {
            peer: copy
            for peer, copy in found.items()
            if copy is not None and copy.age_s + at - copy.at <= self.forget_s
        }

    def mixed(self, state: State, part: str, own: Array, at: float) -> tuple[Array, list[Action]]:
        """sum_j w_ij x_j, the weight of a neighbour that is not known (any more) being this node's own; and `ages`."""
        copies = self.heard(state, part, at)
        row = self.graph(state).row(state.node)
        z = own.astype(np.float32, copy=True)
        seen = state.arrays.get(f"said/{part}", own)  # what is coarse is compared with what is as coarse
        for peer, copy in copies.items():
            z += np.float32(self.averaging * row[peer]) * (copy.vector - seen)
        return z, self.noted(state, copies, at)

    def noted(self, state: State, copies: Mapping[str, Copy], at: float) -> list[Action]:
        """How old what was used is, in rounds, by peer and the oldest (NaN where nobody is heard); and how many were
        heard, of how many."""
        ages = {peer: round((copy.age_s + at - copy.at) / self.period_s, 3) for peer, copy in copies.items()}
        return [
            *(Note("staleness_rounds", age, peer) for peer, age in ages.items()),
            Note("staleness_rounds", max(ages.values(), default=math.nan)),
            Note("neighbours_heard", float(len(copies))),
            Note("neighbours", float(len(self.neighbours(state)))),
        ]

    # ---- what is told ------------------------------------------------------------------------------------------------

    def told(self, state: State, part: str, vector: Array, scheme: str = "") -> Send:
        """The message that lets neighbours hear `vector` as `part` of this node's model. scheme: another than usual."""
        return Send(EVERYONE, self._message(state, part, self._compressed(state, part, vector, scheme or self.scheme)))

    def _compressed(self, state: State, part: str, vector: Array, scheme: str) -> Compressed:
        # Of a difference cut by entropy, what was rounded off is in the next. Making a generator takes longer than a
        # round of a small model.
        drawn = scheme not in ("float32", "float16") and not (scheme == "entropy" and self.whole_every != 1)
        rng = np.random.default_rng((state.seed, state.rounds, len(part))) if drawn else None
        try:
            return compress(vector, scheme, self.share, rng)
        except ValueError:
            raise NotFinite(f"the vector {part} is not finite: lower the rate") from None

    def _message(self, state: State, part: str, values: Compressed) -> Weights:
        number = model_number(self.model()[0].hash)
        return Weights(self.schema, number, part, state.epoch, state.rounds, values, samples=state.samples)


@lru_cache(maxsize=16)
def model_number(model_hash: str) -> int:
    """First 64 bits of a model's hash, which messages carry."""
    return int(model_hash[:16], 16)
