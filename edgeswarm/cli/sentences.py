"""A decision as a sentence: what was done, why, and the numbers it rests on.

One table: (kind, outcome, reason) to the words, with the facts' names in braces; where methods rest such a decision on
other facts, words for each. A decision without an entry, or with a fact missing, still says all it knows; so a new
method is explained from its first day, and better later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress

from edgeswarm import readable

_COMPARED = "distance {distance} is above floor {floor} + margin {margin}"

SENTENCES: Mapping[tuple[str, str, str], str | tuple[str, ...]] = {
    ("share", "sent", "first"): "sent the whole set: the first since this start",
    ("share", "sent", "linked"): "sent the whole set: the link came up, the broker may have forgotten it",
    ("share", "sent", "news"): "sent {changed} changed and {removed} removed prototypes: " + _COMPARED,
    ("share", "sent", "drift"): "sent: the classes moved, drift {drift} is above {drift_limit} "
    "(distance {distance}, floor {floor})",
    ("share", "sent", "growth"): "sent {changed} changed and {removed} removed prototypes: "
    "learnt from twice as many samples as at the last message",
    ("share", "sent", "max_age"): "sent although little is new: silent for {silence_s} "
    "(distance {distance}, floor {floor})",
    ("share", "sent", "always"): (
        "sent {changed} changed and {removed} removed prototypes: the filter is off",
        "sent {prototypes} prototypes to {peer}: distance {distance} is above {limit}",
        "sent {prototypes} prototypes to {peer}: there is nothing to compare them with",
    ),
    ("share", "sent", "refresh"): "sent what it answers to {rows} public samples: they changed by {changed}",
    ("share", "answered", "pulled"): "gave {peer} the {prototypes} prototypes and {removed} removals it had missed",
    ("share", "held", "nothing_learnt"): "held back: nothing learnt yet",
    ("share", "held", "nothing_new"): (
        "held back: no prototype changed since the last message (drift {drift})",
        "held back: what it answers to public samples changed by {changed}, which is too little",
    ),
    ("share", "held", "alike"): "held {prototypes} prototypes back from {peer}: "
    "distance {distance} is not above {limit}",
    ("share", "held", "over_budget"): "held back: about {bytes_saved} would exceed the byte budget "
    "({changed} prototypes wait)",
    ("share", "held", "no_news"): "held back: distance {distance} is not above floor {floor} + margin {margin}, "
    "drift {drift} not above {drift_limit}; saved about {bytes_saved}",
    ("peer", "muted", "hurts"): "muted {peer}: listening costs {excess_loss} in loss, above {limit} ({trials} trials)",
    ("peer", "muted", "misleads"): "muted {peer}: it takes samples of this node for classes this node never saw, "
    "with probability {leak} ({trials} trials)",
    ("peer", "heard", "helps_again"): "listens to {peer} again: its extra loss is down to {excess_loss} "
    "({trials} trials)",
    ("peer", "ignored", "other_schema"): "ignores {peer}: it learns another task, or from other features",
    ("peer", "ignored", "wrong_dimension"): "ignores {peer}: its prototypes have another number of features",
    ("peer", "ignored", "too_many_classes"): "ignores {peer}: its classes would exceed this node's limit of classes",
    ("peer", "refused", "other_model"): "does not use what {peer} sends: it trains another model; "
    "give it the same file",
    ("peer", "refused", "other_schema"): "does not use what {peer} sends: it learns another task, "
    "or from other features",
    ("peer", "refused", "other_public_set"): "does not use what {peer} sends: it has another public set, "
    "or another version of it",
    ("peer", "refused", "wrong_size"): "does not use what {peer} sends: "
    "its length fits neither this node's model nor its public set",
    ("peer", "refused", "no_neighbour"): "does not use what {peer} sends: by this node's graph it is no neighbour; "
    "give all devices the same [graph]",
    ("peer", "refused", "too_large"): "does not use what {peer} sends: "
    "its model has numbers that no training leads to; lower the rate there, or look who it is",
    ("peer", "refused", "too_many_rounds"): "does not use what {peer} sends: "
    "it says it has had more rounds than a device can have; look who it is",
    ("peer", "refused", "difference"): "does not use what {peer} sends: it is the difference to a model, "
    "of which this method keeps none; give both the same method",
    ("head", "skipped", "small_weight"): "does without the head of {peer}: it counts {weight}; it is not subscribed to",
    ("head", "heard", "probe"): "hears the head of {peer} again, to see whether it has become of use",
    ("training", "paused", "too_hot"): "training pauses: the board is at {temperature_c} °C, "
    "near its limit of {limit_c} °C",
    ("training", "resumed", "cooled_down"): "training goes on: the board is down to {temperature_c} °C",
    ("step", "given_up", "out_of_memory"): "gave a step up: not enough memory for it; nothing changed "
    "({failures} times since the start)",
    ("step", "given_up", "model_error"): "gave a step up: the model could not be computed; nothing changed "
    "({failures} times since the start)",
    ("train", "refused", "not_finite"): "gave an epoch up: it left the finite numbers, so the rate {rate} "
    "is too high for this model (clip {clip})",
    ("sample", "dropped", "wrong_dimension"): "dropped samples: they have {d} features, "
    "the first ones had another number",
    ("sample", "dropped", "unknown_label"): "left samples out, {samples} so far: the method does not know their label; "
    "`edgeswarm status` names one",
    ("sample", "dropped", "too_large"): "left samples out, {samples} so far: they hold numbers beyond a million; "
    "is their unit right?",
    ("sample", "dropped", "too_many_classes"): "dropped a sample: its class would exceed the limit of classes",
}  # fmt: skip

_VERBS = {"sent": "sent", "held": "held back", "muted": "muted {peer}", "heard": "listens to {peer} again",
          "ignored": "ignores {peer}", "refused": "refused {peer}", "dropped": "dropped",
          "answered": "answered {peer}"}  # fmt: skip


def sentence(kind: str, outcome: str, reason: str, facts: Mapping[str, float], peer: str = "") -> str:
    """The decision in words. facts: numbers with units in their names (`_s`, `bytes`)."""
    known = {name: fact(name, value) for name, value in facts.items()}
    if peer:
        known["peer"] = peer
    words = SENTENCES.get((kind, outcome, reason), ())
    for each in (words,) if isinstance(words, str) else words:
        with suppress(KeyError):
            return each.format_map(known)
    return _generic(kind, outcome, reason, known)


def _generic(kind: str, outcome: str, reason: str, known: dict[str, str]) -> str:
    peer = known.pop("peer", "")
    done = _VERBS.get(outcome, outcome).format(peer=peer or "a peer")
    numbers = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in known.items())
    about = "" if kind in ("share", "peer") else f" ({kind})"
    return f"{done}{about}: {reason.replace('_', ' ')}" + (f"; {numbers}" if numbers else "")


def fact(name: str, value: float) -> str:
    """A fact's value with the unit its name tells: `silence_s` 12 s, `bytes_saved` 1,240 bytes."""
    if math.isinf(value):
        return "unlimited" if value > 0 else "minus infinity"
    if name.endswith("_s"):
        return readable.span(value)
    if "bytes" in name.split("_"):
        return f"{readable.count(value)} bytes"
    return readable.number(value)
