"""What the broker holds about this node, and what it means when the broker holds something else.

Will and birth go to one retained topic and both carry epoch and instance. MQTT promises an order per client only, so
a will of our former life can overwrite the birth of the present one, and only we can notice. Nothing here has a
socket: `judge` is told what was seen and says what it is.
"""

from __future__ import annotations

from dataclasses import replace

from edgeswarm.messages import Presence

GONE = "gone"
"""State of a node whose retained presence was deleted: told to listeners, never sent. Epoch 0, instance ""."""

ECHO = "echo"
"""Our own announcement, back from the broker, or what the coming birth replaces."""
OVERWRITTEN = "overwritten"
"""The broker holds something outdated about us: announce again."""
EARLIER_LIFE = "earlier life"
"""Of a process that is no more, with an epoch that is not below ours: peers would take us for outdated."""
DUPLICATE = "duplicate"
"""Another living device uses our name."""


def judge(ours: Presence, seen: Presence, retained: bool, said_before: bool, waited_out: bool = False) -> str:
    """What a presence on our own topic is.

    retained: it lay at the broker, so its writer need not be alive.  said_before: this process has announced itself to
    this broker before, so whatever replaced that announcement is younger than this process.  waited_out: we have
    stepped back for this other device once already.

    A namesake that said goodbye has left: no reason to step back, but its epoch must be outlived like that of any
    former life. One that is "lost" may live: the broker ends its session when we take over the name. So we step back
    for it, but once only, or a device that is dead for good would keep us out for as long as its last will is kept.
    """
    alive = seen.state not in ("lost", "disconnected", GONE)
    left = seen.state in ("disconnected", GONE)
    if retained:
        # it came with the subscription, and our birth follows every subscription: nothing to repair
        if seen.instance == ours.instance or (seen.epoch < ours.epoch and not (said_before and alive)):
            return ECHO
        return DUPLICATE if said_before and not left and (alive or not waited_out) else EARLIER_LIFE
    if seen.instance == ours.instance:
        # one process has one instance, so this is ours: a late echo, or the will of a link we have replaced
        return ECHO if alive or seen.state == ours.state else OVERWRITTEN
    if alive:
        return DUPLICATE
    return EARLIER_LIFE if left and seen.epoch >= ours.epoch else OVERWRITTEN


def yields(ours: Presence, other: Presence) -> bool:
    """Whether of two devices with one name it is ours that steps back: exactly one of the two finds that it does."""
    return (ours.epoch, ours.instance) < (other.epoch, other.instance)


def will_of(presence: Presence) -> Presence:
    """What the broker shall say when we vanish: same life, no facts."""
    return replace(presence, state="lost", facts={})


def same_life(one: Presence | None, other: Presence | None) -> bool:
    """True if both speak of one process with one epoch, so that a will made for one is right for the other."""
    return (one and (one.epoch, one.instance)) == (other and (other.epoch, other.instance))
