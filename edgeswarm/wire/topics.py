"""Topic names, and which message goes where. The tree, with the ACL that goes with it, is in `docs/wire.md`.

The sender's name stands at a fixed level of every topic, so the broker's ACL can prove it against the certificate; what
a message says about its sender is never believed, because it says nothing.

A retained topic holds one message, so a snapshot in several parts needs several topics: part 0 goes to `proto/<task>`
and part i to `proto/<task>_<i>`. No name contains an underscore, so a task can be called anything a name may be, and
both forms are one level, which `proto/+` in the ACL and in a subscription covers. The chunks of a model or of
predictions that are larger than a packet are named likewise.

Everybody hears prototypes; models, predictions and bids are heard only from peers that a node asked for, by topic, so
that a sparse graph costs what a sparse graph should (`strategies.base.Listen`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from edgeswarm.errors import ConfigError
from edgeswarm.messages import (
    EVERYONE,
    PARTS,
    SNAPSHOT,
    Bids,
    Digest,
    Message,
    Predictions,
    Prototypes,
    Pull,
    Weights,
)
from edgeswarm.values import value
from edgeswarm.wire.envelope import DEFAULT_LIMITS

ROOT = "edgeswarm/v1"
CONTENT_TYPE = "application/x-edgeswarm+msgpack"

PACKET_LIMIT_BYTES = 120_000
"""Largest packet sent to any broker: fits the smallest limit of the common ones (128 KB)."""
SNAPSHOT_EXPIRY_S = 3600
MESSAGE_EXPIRY_S = 60

NAME_LIMIT = 63
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MOST_NAMES, _MOST_TOPICS = 16_384, 65_536
"""Remembered with what they mean: those of a board's few peers, or of a simulation's thousands of nodes."""
_LONG = ("model", "public", "bids")
"""Channels of retained messages that may be long; in an inbox, their kinds."""
_PART = re.compile(r"[1-9][0-9]{0,3}")


@value(frozen=True, slots=True)
class Route:
    """Where and how a message is published. expiry_s: seconds it lives at the broker (None: until replaced)."""

    topic: str
    qos: int
    retain: bool
    expiry_s: int | None


@value(frozen=True, slots=True)
class Parsed:
    """A topic taken apart.

    node: the sender, proven by the ACL.  channel: state, info, health, proto, model, diff, public, bids, inbox or all.
    kind: last level of inbox and all (delta, digest, pull, proto, ...); of model and diff one of `PARTS`, or public.
    task: of proto, model, diff, public and bids, else "".  part: number of a part or chunk that has a topic of its own,
    else 0.  to: the addressee of inbox, else EVERYONE.
    """

    site: str
    node: str
    channel: str
    kind: str = ""
    task: str = ""
    part: int = 0
    to: str = EVERYONE

    @property
    def wanted(self) -> tuple[str, str] | None:
        """The (peer, channel) of `strategies.base.Listen` that this topic belongs to; None if it needs no asking."""
        if self.channel in ("model", "diff"):
            return self.node, self.kind
        return (self.node, self.channel) if self.channel in ("public", "bids") else None


# ---- names ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_MOST_NAMES)
def is_name(text: str) -> bool:
    """Whether `text` may name a site, node, task or kind: 1 to 63 of a-z, 0-9 and -, no hyphen at either end, not
    "all"."""
    return _NAME.fullmatch(text) is not None and text != EVERYONE


def valid_name(name: str, what: str = "name") -> str:
    """`name` itself. Raises ConfigError, which calls it `what` and proposes the nearest right one."""
    if is_name(name):
        return name
    if name == EVERYONE:
        raise ConfigError(f'{what} "{EVERYONE}" is taken: it addresses every node')
    nearest = re.sub(r"[^a-z0-9]+", "-", name.lower())[:NAME_LIMIT].strip("-")
    advice = f', for example "{nearest}"' if is_name(nearest) else ""
    raise ConfigError(
        f'{what} "{name}" is not usable in a topic: 1 to {NAME_LIMIT} of a-z, 0-9 and -, no - at either end{advice}'
    )


# ---- topics ---------------------------------------------------------------------------------------------------------


def state_topic(site: str, node: str) -> str:
    """Presence of a node, retained; also the topic of its will."""
    return f"{ROOT}/{site}/{node}/state"


def health_topic(site: str, node: str) -> str:
    """Reports of a node, not retained."""
    return f"{ROOT}/{site}/{node}/health"


def proto_topic(site: str, node: str, task: str, part: int = 0) -> str:
    """A part of a node's newest snapshot for a task, retained."""
    return piece_topic(f"{ROOT}/{site}/{node}/proto/{task}", part)


def model_topic(site: str, node: str, part: str, task: str) -> str:
    """The newest of one of `PARTS` of a node's model, retained."""
    return f"{ROOT}/{site}/{node}/model/{part}/{task}"


def diff_topic(site: str, node: str, part: str, task: str) -> str:
    """What changed in it, or, part "public", in a node's predictions; not retained."""
    return f"{ROOT}/{site}/{node}/diff/{part}/{task}"


def public_topic(site: str, node: str, task: str) -> str:
    """A node's newest predictions of public samples, retained."""
    return f"{ROOT}/{site}/{node}/public/{task}"


def bids_topic(site: str, node: str, task: str) -> str:
    """What a node would still learn from, retained."""
    return f"{ROOT}/{site}/{node}/bids/{task}"


def piece_topic(topic: str, number: int) -> str:
    """Where piece `number` of a retained message lies whose first is at `topic`."""
    return f"{topic}_{number}" if number else topic


def inbox_topic(site: str, to: str, sender: str, kind: str) -> str:
    """A message to one node."""
    return f"{ROOT}/{site}/{to}/inbox/{sender}/{kind}"


def all_topic(site: str, sender: str, kind: str) -> str:
    """A message to every node at the site."""
    return f"{ROOT}/{site}/{EVERYONE}/{sender}/{kind}"


def subscriptions(
    site: str, node: str, task: str, circle: Collection[str] | None = None
) -> tuple[tuple[str, int], ...]:
    """(filter, most QoS) of everything a learning node listens to, its own messages excluded by no-local.

    circle: the nodes whose presence, prototypes and words to all it wants; None for everybody's. Its own presence it
    wants in any case, for that is how it learns of a namesake.

    Snapshots of other tasks at the site arrive too, because MQTT cannot ask for one task in all its parts: drop them by
    `Parsed.task` before decoding. Raises ConfigError for an unusable name.
    """
    valid_name(site, "site")
    valid_name(node, "node")
    valid_name(task, "task")
    inbox = (inbox_topic(site, node, "+", "+"), 1)
    if circle is None:
        return (state_topic(site, "+"), 1), (proto_topic(site, "+", "+"), 1), (all_topic(site, "+", "+"), 1), inbox
    near = sorted(set(circle) - {node})
    return (
        *((state_topic(site, name), 1) for name in sorted({*near, node})),
        *((proto_topic(site, name, "+"), 1) for name in near),
        *((all_topic(site, name, "+"), 1) for name in near),
        inbox,
    )


def listen_filters(site: str, task: str, peer: str, channel: str) -> tuple[tuple[str, int], ...]:
    """(filter, most QoS) of one pair of `strategies.base.Listen`. Raises ValueError: no such channel.

    QoS 1, because brokers drop QoS 0 messages in bursts, and a model in chunks is one. As with `subscriptions`, models
    of other tasks arrive too; here only if that very peer has another task.
    """
    if channel == "bids":
        return ((bids_topic(site, peer, "+"), 1),)
    if channel != "public" and channel not in PARTS:
        raise ValueError(f"a channel is one of {', '.join(PARTS)}, public, bids, not {channel!r}")
    kept = public_topic(site, peer, "+") if channel == "public" else model_topic(site, peer, channel, "+")
    return (kept, 1), (diff_topic(site, peer, channel, task), 1)


def whole_topic(topic: str) -> str:
    """The topic of the message that a piece belongs to: no name has an underscore."""
    return topic.partition("_")[0]


def expiry_s(parsed: Parsed) -> int:
    """Seconds that a message with this topic lives at the broker (presence, which has no end, left aside)."""
    return SNAPSHOT_EXPIRY_S if parsed.channel == "proto" or parsed.channel in _LONG else MESSAGE_EXPIRY_S


def takes_chunk(parsed: Parsed, index: int) -> bool:
    """Whether chunk `index` of a long message may come by this topic: of a retained message each has its own."""
    if parsed.channel in _LONG:
        return parsed.part == index
    return parsed.channel == "diff" or (parsed.channel == "inbox" and parsed.kind in _LONG)


@lru_cache(maxsize=_MOST_TOPICS)
def parse(topic: str) -> Parsed | None:
    """A topic taken apart, or None if it is none of ours. Cached: a node hears the same few topics all the time."""
    prefix, levels = topic[: len(ROOT) + 1], topic[len(ROOT) + 1 :].split("/")
    if prefix != ROOT + "/" or not 3 <= len(levels) <= 5 or not is_name(levels[0]):
        return None
    match levels:
        case [site, "all", sender, kind] if is_name(sender) and is_name(kind):
            return Parsed(site, sender, "all", kind=kind)
        case [site, node, ("state" | "info" | "health") as channel] if is_name(node):
            return Parsed(site, node, channel)
        case [site, node, ("proto" | "public" | "bids") as channel, level] if is_name(node):
            return _pieces(site, node, channel, "", level)
        case [site, node, "model", part, level] if is_name(node) and part in PARTS:
            return _pieces(site, node, "model", part, level)
        case [site, node, "diff", part, task] if is_name(node) and part in (*PARTS, "public") and is_name(task):
            return Parsed(site, node, "diff", part, task)
        case [site, to, "inbox", sender, kind] if is_name(to) and is_name(sender) and is_name(kind):
            return Parsed(site, sender, "inbox", kind=kind, to=to)
    return None


def _pieces(site: str, node: str, channel: str, kind: str, level: str) -> Parsed | None:
    """A topic whose last level is "<task>" or "<task>_<i>"."""
    task, mark, number = level.partition("_")
    if is_name(task) and (not mark or (_PART.fullmatch(number) and int(number) < DEFAULT_LIMITS.max_parts)):
        return Parsed(site, node, channel, kind, task, int(number or 0))
    return None


# ---- routes ---------------------------------------------------------------------------------------------------------


def route(message: Message, site: str, node: str, task: str, to: str) -> Route:
    """Where `message` of `node` goes. to: a node's name or EVERYONE. Raises ValueError: a Pull to EVERYONE (all would
    answer at once)."""
    if to != EVERYONE:
        kind, qos = _INBOX[type(message)]
        return _passing(inbox_topic(site, to, node, kind), qos)
    if isinstance(message, Prototypes):
        if message.base == SNAPSHOT:
            return _lasting(proto_topic(site, node, task, message.part))
        return _passing(all_topic(site, node, "delta"), 1)
    if isinstance(message, Weights):
        if message.base == SNAPSHOT:
            return _lasting(model_topic(site, node, message.part, task))
        return _passing(diff_topic(site, node, message.part, task), 1)
    if isinstance(message, Predictions):
        if message.base == SNAPSHOT:
            return _lasting(public_topic(site, node, task))
        return _passing(diff_topic(site, node, "public", task), 1)
    if isinstance(message, Bids):
        return _lasting(bids_topic(site, node, task))
    if isinstance(message, Digest):
        return _passing(all_topic(site, node, "digest"), 0)
    raise ValueError("a pull goes to one node")


def belongs(message: Message, topic: str, parsed: Parsed, site: str, task: str) -> bool:
    """Whether `message` may come by `topic` (parsed) to somebody who has this task at this site."""
    if parsed.channel == "inbox":
        return parsed.site == site and parsed.kind == _INBOX[type(message)][0]
    try:
        return route(message, site, parsed.node, task, parsed.to).topic == topic
    except ValueError:  # it goes to one node only
        return False


_INBOX: dict[type, tuple[str, int]] = {
    Prototypes: ("proto", 1),
    Weights: ("model", 1),
    Predictions: ("public", 1),
    Bids: ("bids", 1),
    Digest: ("digest", 0),
    Pull: ("pull", 1),
}
"""Last level and QoS of what goes to one node."""


def _lasting(topic: str) -> Route:
    """Where a message goes that is retained, and replaces the one before."""
    return Route(topic, 1, True, SNAPSHOT_EXPIRY_S)


def _passing(topic: str, qos: int) -> Route:
    """Where a message goes that is not retained."""
    return Route(topic, qos, False, MESSAGE_EXPIRY_S)


def presence_route(site: str, node: str) -> Route:
    """Birth, orderly goodbye and will."""
    return Route(state_topic(site, node), 1, True, None)


def health_route(site: str, node: str) -> Route:
    """Reports: losing one is fine."""
    return Route(health_topic(site, node), 0, False, MESSAGE_EXPIRY_S)
