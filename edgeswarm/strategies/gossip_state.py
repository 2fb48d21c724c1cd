"""What a node of `prototype_gossip` can be set to, what it knows, and how that is kept. No decisions here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from edgeswarm.maths.budget import Purse
from edgeswarm.maths.learner import EXPERTS, Learner, Others, stack
from edgeswarm.maths.publication import Publication
from edgeswarm.maths.replica import Replica
from edgeswarm.maths.votes import Floats

TRIAL_MEMORY = 0.97
TRIALS_LEAST = 30
"""Own samples a peer must have been tried on before it can be muted."""
LEAK_LIMIT = 0.35
"""Mean probability with which a peer may pull own samples into classes the node never saw. Measured: honest nodes
of other digits reach 0.2; one who puts new names on what a node knows, 0.45."""
HEADER_BYTES = 190
"""First guess of a message's size without prototypes; corrected by what is really sent."""


def seed_of(node: str, seed: int) -> int:
    """A node's own 48-bit seed: another for every node, the same whenever it is asked for."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{node}".encode(), digest_size=6).digest(), "big")


def knob(default: Any, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A setting of a strategy with its bounds, which the configuration checks and documents."""
    return field(default=default, metadata={"low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Knobs:
    """Times in seconds, sizes in prototypes, `budget_bytes_per_s` counts one copy of each message.

    schema: fingerprint of the task's features; set by the agent. margin_spreads: how far above its noise floor a
    distance must be, in standard deviations of that floor. least_move: in standard deviations of the features.
    vectors: with the float schemes class summaries travel only if raw float16 can hold them.
    classes_limit: of this node's own; as many again may be learnt of from peers.
    """

    schema: int = 0
    keep_limit: int = knob(250, 8, 4096)
    keep_share: float = knob(0.5, 0.05, 0.95)
    rate_floor: float = knob(0.2, 0.0, 0.9)
    period_s: float = knob(10.0, 0.02, 86_400)
    jitter: float = knob(0.2, 0.0, 0.9)
    schedule: str = knob("parallel", choices=("parallel", "sequential"))
    filter: str = knob("js", choices=("js", "energy", "paper", "off"))
    margin_spreads: float = knob(2.0, 0.0, 100)
    drift_limit: float = knob(2.0, 0.0, 1000)
    budget_bytes_per_s: float = knob(0.0, 0.0, 1e9)
    silence_limit_s: float = knob(300.0, 0.1, 864_000)
    snapshot_every: int = knob(20, 1, 10_000)
    least_move: float = knob(0.05, 0.0, 10)
    vectors: str = knob("int8", choices=("int8", "float16", "float32"))
    peers_limit: int = knob(32, 0, 1000)
    classes_limit: int = knob(256, 2, 256)
    mute_above: float = knob(0.05, 0.0, 1.0)
    forget_s: float = knob(86_400.0, 1.0, 1e9)


@dataclass(frozen=True, slots=True)
class Trial:
    """How a peer does, as means over about the last 30 trials.

    excess: extra loss of listening to it among classes this node has seen, in [-1, 1].  leak: probability that it takes
    from the node's own samples for classes the node never saw, in [0, 1]; own samples cannot say more about those.
    """

    excess: float = 0.0
    leak: float = 0.0
    trials: int = 0
    muted: bool = False

    def after(self, extra: float, leak: float, limit: float) -> Trial:
        """With one more trial. Muted above `limit` or LEAK_LIMIT, heard again when well below both: no flickering."""
        keep = min(self.trials / (1 + self.trials), TRIAL_MEMORY)
        excess = keep * self.excess + (1 - keep) * extra
        leaks = keep * self.leak + (1 - keep) * leak
        count = self.trials + 1
        bad = excess > limit / 2 or leaks > 0.75 * LEAK_LIMIT if self.muted else excess > limit or leaks > LEAK_LIMIT
        return Trial(excess, leaks, count, count >= TRIALS_LEAST and bad)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything a node knows. `learner` is copied before it learns; all else is replaced, never changed.

    steps: events of this node's own, so that what peers send cannot change its dice.  classes: names of its own and of
    all peers' classes, in the order met; labels index it.  losses: (EXPERTS,) discounted, for `votes.hedge`.
    published: what peers were told, at told_at, after told_samples samples.  spoke_at: any word to everyone, digests
    included.  turned_at: last turn to share; due_at: the next.  turn: whose trial is next.
    strange: peers whose refusal was written down.
    pulled_at, answered_at: last request to, and last answer given to, a peer.  memo: replicas stacked, by dimension.
    """

    node: str
    seed: int
    steps: int = 0
    epoch: int = 0
    classes: tuple[str, ...] = ()
    learner: Learner | None = None
    samples: int = 0
    losses: Floats = field(default_factory=lambda: np.zeros(EXPERTS))
    published: Publication = field(default_factory=Publication)
    told_samples: int = 0
    told_at: float | None = None
    spoke_at: float | None = None
    turned_at: float | None = None
    due_at: float | None = None
    must_snapshot: bool = True
    shares: int = 0
    held: Mapping[str, int] = field(default_factory=dict)
    replicas: Mapping[str, Replica] = field(default_factory=dict)
    trials: Mapping[str, Trial] = field(default_factory=dict)
    turn: int = 0
    pulled_at: Mapping[str, float] = field(default_factory=dict)
    answered_at: Mapping[str, float] = field(default_factory=dict)
    peers: tuple[str, ...] = ()
    gone_since: Mapping[str, float] = field(default_factory=dict)
    strange: frozenset[str] = frozenset()
    header_bytes: float = HEADER_BYTES
    purse: Purse = field(default_factory=Purse)
    memo: dict[int, Others] = field(default_factory=dict)

    def rng(self) -> np.random.Generator:
        """Dice of this step, the same whenever it is repeated."""
        return np.random.default_rng((self.seed, self.steps))

    def muted(self) -> frozenset[str]:
        """Peers that are not listened to for now."""
        return frozenset(peer for peer, trial in self.trials.items() if trial.muted)

    def others(self, d: int) -> Others:
        """The replicas of d features as arrays; made when first needed, not when a message comes."""
        if d not in self.memo:
            self.memo.clear()
            self.memo[d] = stack(self.replicas, d)
        return self.memo[d]

    def own_classes(self) -> int:
        """How many classes this node has had samples of."""
        return int(self.learner.seen(len(self.classes)).sum()) if self.learner else 0


# ---- whom to listen to -----------------------------------------------------------------------------------------------


def follows(state: State, peer: str, limit: int) -> bool:
    """Whether a node listens to `peer`: to all while they are few, else to those its own draw of ranks favours.

    Those present come before those that left. The rank depends on both names alone, so everybody is heard by about
    equally many, and a peer that comes or goes changes at most one place.
    """
    candidates = ({*state.peers, *state.replicas} | {peer}) - {state.node}
    if len(candidates) <= limit:
        return True
    present = frozenset(state.peers)
    mine = (peer not in present, rank(state.node, peer))
    return sum((p not in present, rank(state.node, p)) < mine for p in candidates) < limit


@lru_cache(maxsize=4096)
def rank(node: str, peer: str) -> bytes:
    """How much `node` would rather listen to others than to `peer`, drawn by the names alone."""
    return hashlib.blake2b(f"{node}/{peer}".encode(), digest_size=8).digest()


def without(state: State, drop: set[str]) -> State:
    """State as if these peers had never been heard."""
    if not drop:
        return state

    def kept(held: Mapping[str, Any]) -> dict[str, Any]:
        return {peer: value for peer, value in held.items() if peer not in drop}

    return replace(
        state,
        replicas=kept(state.replicas),
        trials=kept(state.trials),
        gone_since=kept(state.gone_since),
        memo={},
    )


# ---- checkpoints -----------------------------------------------------------------------------------------------------

_PLAIN = (
    "seed",
    "steps",
    "epoch",
    "samples",
    "told_samples",
    "told_at",
    "spoke_at",
    "turned_at",
    "due_at",
    "must_snapshot",
    "shares",
    "turn",
    "header_bytes",
)
"""Fields that are plain numbers and travel to a checkpoint as they are."""


def dump(state: State) -> dict[str, Any]:
    """State as plain data. Replicas are kept too: after a power cut the broker may be gone as well."""
    return {
        "classes": list(state.classes),
        "losses": np.asarray(state.losses, np.float64),
        "held": dict(state.held),
        "learner": state.learner.dump() if state.learner else None,
        "published": state.published.dump(),
        "replicas": {peer: replica.dump() for peer, replica in state.replicas.items()},
        "trials": {peer: [t.excess, t.leak, t.trials, t.muted] for peer, t in state.trials.items()},
        "pulled_at": dict(state.pulled_at),
        "answered_at": dict(state.answered_at),
        "gone_since": dict(state.gone_since),
        "peers": list(state.peers),
        "strange": sorted(state.strange),
        "purse": [state.purse.held_bytes, state.purse.at],
        **{name: getattr(state, name) for name in _PLAIN},
    }


def load(node: str, dumped: Mapping[str, Any], rate_floor: float) -> State:
    """State from `dump`. Raises ValueError when something is missing or does not fit."""
    try:
        losses = np.asarray(dumped["losses"], np.float64)
        if losses.shape != (EXPERTS,):
            raise ValueError("the saved state was written with other experts")
        return State(
            node,
            classes=tuple(str(name) for name in dumped["classes"]),
            losses=losses,
            held={str(k): int(v) for k, v in dumped["held"].items()},
            learner=Learner.load(dumped["learner"], rate_floor) if dumped["learner"] else None,
            published=Publication.load(dumped["published"]),
            replicas={str(peer): Replica.load(replica) for peer, replica in dumped["replicas"].items()},
            trials={
                str(peer): Trial(float(excess), float(leak), int(count), bool(muted))
                for peer, (excess, leak, count, muted) in dumped["trials"].items()
            },
            pulled_at={str(p): float(at) for p, at in dumped["pulled_at"].items()},
            answered_at={str(p): float(at) for p, at in dumped["answered_at"].items()},
            peers=tuple(str(p) for p in dumped["peers"]),
            gone_since={str(p): float(at) for p, at in dumped["gone_since"].items()},
            strange=frozenset(str(p) for p in dumped["strange"]),
            purse=Purse(*(float(number) for number in dumped["purse"])),
            **{name: dumped[name] for name in _PLAIN},
        )
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"the saved state lacks or spoils {error}") from error
