"""Topic names, and which message goes where. The tree, with the ACL that goes with it, is in `docs/wire.md`.

The sender's name stands at a fixed level of every topic, so the broker's ACL can prove it against the certificate; what
a message says about its sender is never believed, because it says nothing.

A retained topic holds one message, so a snapshot in several parts needs several topics: part 0 goes to `proto/<task>`
and part i to `proto/<task>_<i>`. No name contains an underscore, so a task can be called anything a name may be, and
both forms are one level, which `proto/+` in the ACL and in a subscription covers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from edgeswarm.errors import ConfigError
from edgeswarm.messages import EVERYONE, SNAPSHOT, Digest, Message, Prototypes
from edgeswarm.wire.envelope import DEFAULT_LIMITS

ROOT = "edgeswarm/v1"
CONTENT_TYPE = "application/x-edgeswarm+msgpack"

PACKET_LIMIT_BYTES = 120_000
"""Largest packet sent to any broker: fits the smallest limit of the common ones (128 KB)."""
SNAPSHOT_EXPIRY_S = 3600
MESSAGE_EXPIRY_S = 60

NAME_LIMIT = 63
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PART = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class Route:
    """Where and how a message is published. expiry_s: seconds it lives at the broker (None: until replaced)."""

    topic: str
    qos: int
    retain: bool
    expiry_s: int | None


@dataclass(frozen=True, slots=True)
class Parsed:
    """A topic taken apart.

    node: the sender, proven by the ACL.  channel: state, info, health, proto, inbox or all.
    kind: last level of inbox and all (delta, digest, pull, proto), else "".  task, part: of proto, else "" and 0.
    to: the addressee of inbox, else EVERYONE.
    """

    site: str
    node: str
    channel: str
    kind: str = ""
    task: str = ""
    part: int = 0
    to: str = EVERYONE


# ---- names ----------------------------------------------------------------------------------------------------------


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


def info_topic(site: str, node: str) -> str:
    """What a node is (profile, versions), retained."""
    return f"{ROOT}/{site}/{node}/info"


def health_topic(site: str, node: str) -> str:
    """Reports of a node, not retained."""
    return f"{ROOT}/{site}/{node}/health"


def proto_topic(site: str, node: str, task: str, part: int = 0) -> str:
    """A part of a node's newest snapshot for a task, retained."""
    return f"{ROOT}/{site}/{node}/proto/{task}_{part}" if part else f"{ROOT}/{site}/{node}/proto/{task}"


def inbox_topic(site: str, to: str, sender: str, kind: str) -> str:
    """A message to one node."""
    return f"{ROOT}/{site}/{to}/inbox/{sender}/{kind}"


def all_topic(site: str, sender: str, kind: str) -> str:
    """A message to every node at the site."""
    return f"{ROOT}/{site}/{EVERYONE}/{sender}/{kind}"


def subscriptions(site: str, node: str, task: str) -> tuple[tuple[str, int], ...]:
    """(filter, most QoS) of everything a learning node listens to, its own messages excluded by no-local.

    Snapshots of other tasks at the site arrive too, because MQTT cannot ask for one task in all its parts: drop them by
    `Parsed.task` before decoding. Raises ConfigError for an unusable name.
    """
    valid_name(site, "site")
    valid_name(node, "node")
    valid_name(task, "task")
    return (
        (state_topic(site, "+"), 1),
        (proto_topic(site, "+", "+"), 1),
        (all_topic(site, "+", "+"), 1),
        (inbox_topic(site, node, "+", "+"), 1),
    )


@lru_cache(maxsize=2048)
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
        case [site, node, "proto", level] if is_name(node):
            task, mark, number = level.partition("_")
            if is_name(task) and (not mark or (_PART.fullmatch(number) and int(number) < DEFAULT_LIMITS.max_parts)):
                return Parsed(site, node, "proto", task=task, part=int(number or 0))
        case [site, to, "inbox", sender, kind] if is_name(to) and is_name(sender) and is_name(kind):
            return Parsed(site, sender, "inbox", kind=kind, to=to)
    return None


# ---- routes ---------------------------------------------------------------------------------------------------------


def route(message: Message, site: str, node: str, task: str, to: str) -> Route:
    """Where `message` of `node` goes. to: a node's name or EVERYONE. Raises ValueError: a Pull to EVERYONE (all would
    answer at once)."""
    if isinstance(message, Prototypes):
        if to != EVERYONE:
            return _passing(inbox_topic(site, to, node, "proto"), 1)
        if message.base == SNAPSHOT:
            return Route(proto_topic(site, node, task, message.part), 1, True, SNAPSHOT_EXPIRY_S)
        return _passing(all_topic(site, node, "delta"), 1)
    if isinstance(message, Digest):
        return _passing(all_topic(site, node, "digest") if to == EVERYONE else inbox_topic(site, to, node, "digest"), 0)
    if to == EVERYONE:
        raise ValueError("a pull goes to one node")
    return _passing(inbox_topic(site, to, node, "pull"), 1)


@lru_cache(maxsize=2048)
def _passing(topic: str, qos: int) -> Route:
    """Where a message goes that is not retained. Cached for the same reason as `parse`."""
    return Route(topic, qos, False, MESSAGE_EXPIRY_S)


def presence_route(site: str, node: str) -> Route:
    """Birth, orderly goodbye and will."""
    return Route(state_topic(site, node), 1, True, None)


def health_route(site: str, node: str) -> Route:
    """Reports: losing one is fine."""
    return Route(health_topic(site, node), 0, False, MESSAGE_EXPIRY_S)
