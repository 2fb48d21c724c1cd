"""What every method that shares a model has in common: a window of own rows, rounds, neighbours and what they said.

A node wakes every `period_s` for a round. No round waits for anybody: it uses the newest that each neighbour has said,
however old, and says how old that was. A method is what it does in a round (`_round`), which vector it answers with
(`served`), and which parts of its model it lets others hear (`PARTS`); all else is here, once.

A node without rows of its own goes to its neighbours' mean in every round and answers with that, where all of a model
may be heard; it tells nothing. Words of one whom it does not hear by the graph are refused.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeswarm.backends.base import LocalEpoch, Predict, Trained
from edgeswarm.errors import NotFinite
from edgeswarm.maths import optimisers
from edgeswarm.maths.compress import compress, restore
from edgeswarm.maths.graphs import Graph, Topology
from edgeswarm.maths.optimisers import Moments, rate_at
from edgeswarm.messages import EVERYONE, SNAPSHOT, VECTOR_SCHEMES, Array, Compressed, Pull, Weights
from edgeswarm.strategies.base import (
    Action,
    Answers,
    Batch,
    Decision,
    Event,
    Linked,
    Listen,
    Note,
    Peers,
    Received,
    Request,
    Send,
    Started,
    Tested,
    Wake,
    Woke,
)
from edgeswarm.strategies.gossip_state import knob, seed_of
from edgeswarm.strategies.local_model import ModelKnobs, named, usable
from edgeswarm.strategies.own_rows import LARGEST, OwnRows

TRAIN = "train"
"""Name of the wake-up of a round."""
ASKS = {"ask": 0.5, "ask again": 0.75}
"""Names of the wake-ups between two rounds at which what has not come is asked for, and their share of the period."""
ASKED_ROUNDS = 2
"""For how many rounds a neighbour of which nothing comes is asked."""
PATIENCE_ROUNDS = 10
"""For how long a neighbour is not asked after it was asked for what was on its way."""
STRANGERS_LIMIT = 256
GONE_LIMIT = 16
"""Peers that are no neighbours any more whose copies are kept, in case they come back."""
BY_PEER = ("asked", "wanted", "patient", "pulled", "muted", "met", "ahead")
"""First parts of the names "<...>/<peer>" in a state's numbers and arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """The newest of one part of one peer's model.

    at: when it was heard, by this node's clock; age_s: how old it was then.  samples: its sender had learnt from.
    """

    epoch: int
    version: int
    vector: Array
    at: float
    age_s: float = 0.0
    samples: int = 0


@dataclass(frozen=True, eq=False)
class State:
    """params: (p,) float32.  rounds: wake-ups that trained, the version of what is published; counter: wake-ups.
    samples: rows learnt from; unknown, too_large: rows left out because of their label, or their numbers.

    epoch: of this start.  peers: present.  copies: by "<peer>/<part>".  strange: peers whose refusal was written down.
    arrays, numbers: what the method itself remembers, by name; all of it is in a checkpoint.
    """

    node: str
    seed: int
    params: Array
    moments: Moments
    rows: OwnRows
    rounds: int = 0
    counter: int = 0
    samples: int = 0
    unknown: int = 0
    too_large: int = 0
    epoch: int = 0
    peers: tuple[str, ...] = ()
    copies: Mapping[str, Copy] = field(default_factory=dict)
    strange: frozenset[str] = frozenset()
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


S = TypeVar("S", bound=State)


def changed(state: S, **fields: Any) -> S:
    """`dataclasses.replace` in a fifth of the time, which is a tenth of what a round of a small model takes in all."""
    new = object.__new__(type(state))
    vars(new).update(vars(state), **fields)
    return new


Step: TypeAlias = Generator[Request, Any, tuple[State, list[Action]]]


@dataclass(frozen=True)
class Sharing(ModelKnobs):
    """The skeleton; see the module. topology: set by the agent (`base.equipped`).

    scheme: how a vector travels.  share: of its numbers, with scheme "top".  snapshot_every: 1 sends whole vectors; n,
    differences by `scheme` with a whole float32 vector every n rounds; 0, after the first only where one is pulled
    (`tell`; for methods that use it).  gossip: averaging rate gamma, W becomes I + gamma (W - I); the coarser the
    scheme, the smaller it has to be.  forget_s: a neighbour's model that is older has no weight any more.  restart:
    every round begins with an optimiser that remembers nothing.  ask: neighbours that are there and of which nothing as
    new as one's own has come are asked for it, twice a round (for methods that use `tell`).
    """

    NAME: ClassVar[str]
    PARTS: ClassVar[tuple[str, ...]] = ("all",)
    TELLS: ClassVar[bool] = False
    """Whether it uses `tell`, so that a neighbour that has missed something can ask for it."""

    topology: Topology = field(default_factory=Topology, repr=False, compare=False)
    scheme: str = knob("float32", choices=VECTOR_SCHEMES)
    share: float = knob(0.1, 1e-4, 1.0)
    snapshot_every: int = knob(1, 0, 1_000_000)
    gossip: float = knob(1.0, 1e-3, 1.0)
    forget_s: float = knob(3600.0, 0.1, 1e9)
    restart: bool = knob(False)
    ask: bool = knob(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ask and not self.TELLS:
            raise ValueError(f"ask: {self.name} has no answer to those who ask: leave it out")

    @property
    def name(self) -> str:
        return self.NAME

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
            case Woke(_, name) if name in ASKS:
                return self._asked(state)
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
        kept = self.snapshot_every != 1 or self.scheme != "float32" or self.ask  # else `tell` lets it grow stale
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
        """A round, if there are rows. One that leaves the finite numbers is given up, and the next draws other rows."""
        due = [Wake(self._next_round(state, at), TRAIN)]
        if self.ask:
            due += [Wake(at + share * self.period_s, name) for name, share in ASKS.items()]
        before = changed(state, counter=state.counter + 1, numbers={**state.numbers, "at": at})
        if not len(state.rows):
            state, actions = self._adopted(before, at)
            return state, [*due, *actions]
        try:
            state, actions = yield from self._round(before, at)
        except NotFinite:  # the backend looks at every loss and at the parameters
            facts = {"rate": self.rate, "clip": self.clip}
            return before, [*due, Decision(at, "train", "refused", "not_finite", facts)]
        return state, [*due, *actions, Note("steps", float(state.moments.step)), Note("rounds", float(state.rounds))]

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

    def learnt(self, state: State, moments: Moments) -> State:
        """After the steps of `request`, which left these moments: one round more."""
        offset = self._offset(state)
        moments = Moments(moments.step + offset, moments.slots) if offset else moments
        return changed(state, moments=moments, rounds=state.rounds + 1)

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
        of four, cannot end everybody's schedule; None without news."""
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
        return changed(state, copies=copies, numbers={**numbers, "at": at})

    def _heard(self, state: State, event: Received) -> tuple[State, list[Action]]:
        """A neighbour's model, if it is newer than what is known; anything that does not fit is dropped."""
        message, sender = event.message, event.sender
        if isinstance(message, Pull) and sender != state.node:
            return self._pulled(state, event, message)
        if not isinstance(message, Weights) or sender == state.node or message.part not in self.PARTS:
            return state, []
        name = f"{sender}/{message.part}"
        known = state.copies.get(name)
        if sender not in self.neighbours(state):  # one of whom something is known has only just left
            return (state, []) if known is not None else self._refused(state, event, "no_neighbour")
        reason = self._misfit(message)
        if reason:
            return self._refused(state, event, reason)
        if known is not None and (message.epoch, message.version) <= (known.epoch, known.version):
            return self._twice(state, sender), []
        vector = restore(message.values)
        if message.base != SNAPSHOT:
            if known is None or (known.epoch, known.version) != (message.epoch, message.base):
                return self._missed(state, sender, message)
            vector = vector + known.vector  # of a whole vector what came is a view of the message
        if not (vector.max() <= LARGEST and vector.min() >= -LARGEST):
            return self._refused(state, event, "too_large")
        age_s = message.age_s + event.waited_s
        copy = Copy(message.epoch, message.version, vector, event.at, age_s, message.samples)
        return changed(state, copies={**state.copies, name: copy}), [Note("age_s", age_s, sender)]

    def _missed(self, state: State, sender: str, message: Weights) -> tuple[State, list[Action]]:
        """What a difference builds on is not here: ask for the whole, once a round; until then the old copy stays."""
        asked = f"asked/{sender}"
        if state.numbers.get(asked) == state.counter:
            return state, []
        state = replace(state, numbers={**state.numbers, asked: state.counter})
        return state, [Send(sender, Pull(self.schema, message.epoch, SNAPSHOT))]

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

    def _twice(self, state: State, peer: str) -> State:
        """A neighbour's word came twice. If it had been asked for it was late, not lost: ask this one less often."""
        if state.numbers.get(f"wanted/{peer}") != state.counter:
            return state
        return replace(state, numbers={**state.numbers, f"patient/{peer}": state.counter + PATIENCE_ROUNDS})

    def _pulled(self, state: State, event: Received, pull: Pull) -> tuple[State, list[Action]]:
        """Somebody who hears this node has missed something: what all others take it to be, exactly, and not more often
        than a round has asks."""
        sender, answered = event.sender, f"pulled/{event.sender}"
        known = state.node in self.graph(state).neighbours(sender)
        again = abs(event.at - state.numbers.get(answered, -np.inf)) < 0.2 * self.period_s
        if pull.schema != self.schema or not known or again:
            return state, []
        answers: list[Action] = []
        scheme = self.scheme if self.snapshot_every == 1 else "float32"
        for part in self.PARTS:
            said, version = state.arrays.get(f"said/{part}"), int(state.numbers.get(f"said/{part}", SNAPSHOT))
            if said is not None and (pull.epoch, pull.version) < (state.epoch, version):
                message = self._message(state, part, self._compressed(state, part, said, scheme))
                answers.append(Send(sender, replace(message, version=version)))
        return replace(state, numbers={**state.numbers, answered: event.at}) if answers else state, answers

    def _misfit(self, message: Weights) -> str:
        """Why a message cannot be used, in one countable word; "" when it can."""
        card, _ = self.model()
        sizes = {"body": card.body_size, "head": card.size - card.body_size}
        if message.schema != self.schema:
            return "other_schema"
        if message.model != model_number(card.hash):
            return "other_model"
        if message.values.size != sizes.get(message.part, card.size):
            return "wrong_size"
        return ""

    def _refused(self, state: State, event: Received, reason: str) -> tuple[State, list[Action]]:
        """Written down once per peer."""
        if event.sender in state.strange or len(state.strange) >= STRANGERS_LIMIT:
            return state, []
        state = replace(state, strange=state.strange | {event.sender})
        refused = Note("refused_peers", float(len(state.strange)))
        return state, [refused, Decision(event.at, "peer", "refused", reason, peer=event.sender)]

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
            z += np.float32(self.gossip * row[peer]) * (copy.vector - seen)
        return z, self.noted(state, copies, at)

    def noted(self, state: State, copies: Mapping[str, Copy], at: float) -> list[Action]:
        """How old what was used is, in rounds, by peer and the oldest; and how many were heard, of how many."""
        ages = {peer: round((copy.age_s + at - copy.at) / self.period_s, 3) for peer, copy in copies.items()}
        return [
            *(Note("staleness_rounds", age, peer) for peer, age in ages.items()),
            Note("staleness_rounds", max(ages.values(), default=0.0)),
            Note("neighbours_heard", float(len(copies))),
            Note("neighbours", float(len(self.neighbours(state)))),
        ]

    def told(self, state: State, part: str, vector: Array, scheme: str = "") -> Send:
        """The message that lets neighbours hear `vector` as `part` of this node's model. scheme: another than usual."""
        return Send(EVERYONE, self._message(state, part, self._compressed(state, part, vector, scheme or self.scheme)))

    def tell(self, state: State, part: str, vector: Array) -> tuple[State, Array, Send]:
        """As `told`, or the difference since what was told last (`snapshot_every`); and what all others will take
        `vector` to be once they have heard it, which is what their vectors are to be compared with (CHOCO: 1902.00340).
        """
        name, said = f"said/{part}", state.arrays.get(f"said/{part}")
        every = self.snapshot_every
        if every == 1:
            send = self.told(state, part, vector)
            assert isinstance(send.message, Weights)
            if self.scheme == "float32" and not self.ask:
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

    def _compressed(self, state: State, part: str, vector: Array, scheme: str) -> Compressed:
        drawn = scheme not in ("float32", "float16")  # making a generator takes longer than a round of a small model
        rng = np.random.default_rng((state.seed, state.rounds, len(part))) if drawn else None
        try:
            return compress(vector, scheme, self.share, rng)
        except ValueError:
            raise NotFinite(f"the vector {part} is not finite: lower the rate") from None

    def _message(self, state: State, part: str, values: Compressed) -> Weights:
        number = model_number(self.model()[0].hash)
        return Weights(self.schema, number, part, state.epoch, state.rounds, values, samples=state.samples)


def model_number(model_hash: str) -> int:
    """First 64 bits of a model's hash, which messages carry."""
    return int(model_hash[:16], 16)


_PLAIN = ("seed", "rounds", "counter", "samples", "unknown", "too_large", "epoch")
