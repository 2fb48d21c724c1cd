"""What `plan` and `compare` know of each method: what it is for, and with which settings it is played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeswarm.agent.fields import settings_of
from edgeswarm.strategies import STRATEGIES

GOALS = {"common": "all classes alike", "own": "classes as each device sees them"}
"""What devices are to recognise, and are examined on."""
_BOTH = tuple(GOALS)

_PLAIN_RATE = 0.1
"""Of methods that take plain steps: what the others' steps of 0.01 come to with momentum 0.9, 0.01 / (1 - 0.9)."""
_QUASI_GLOBAL_RATE = 0.01
"""The same for quasi-global momentum 0.9, in the end: under a steady gradient g it is after n rounds 10 (1 - 0.99^n) g,
so steps begin as plain ones and are 10 times that in the end. A rate for the first rounds is too long later: 0.03 fell
from 76 to 71 % between round 60 and 600 of a swarm of six, where 0.01 rose from 75 to 79 %."""


@dataclass(frozen=True, slots=True)
class Method:
    """goals: for which `plan` may recommend it, of GOALS.  control: there to compare with.

    settings: where the reader sets none, what is not the method's own value; models travel as int8, except where a
    method is as published.  vectors: of the model's size that a node keeps for each neighbour.
    """

    goals: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    control: bool = False
    vectors: int = 1


METHODS: Mapping[str, Method] = {
    "global_update_tracking": Method(("common",), {"scheme": "int8", "rate": _PLAIN_RATE}, vectors=4),
    "d_psgd": Method(("common",), {"scheme": "int8"}),
    "qg_dsgdm": Method(("common",), {"scheme": "int8", "rate": _QUASI_GLOBAL_RATE, "form": "nesterov"}),
    "gatta": Method(("own",), {"scheme": "int8"}),
    "multi_headed_distillation": Method(_BOTH),
    "prototype_gossip": Method(_BOTH),
    "prototype_distillation": Method(_BOTH),
    "isolated": Method(_BOTH, control=True),
    "body_average": Method(settings={"scheme": "int8"}, control=True),
    "fedmd": Method(control=True),
    "global_update_tracking_paper": Method(settings={"rate": _PLAIN_RATE}, control=True),
    "gossip_learning": Method(settings={"scheme": "int8"}, control=True),
    "gradient_tracking": Method(settings={"scheme": "int8", "rate": _PLAIN_RATE}, control=True),
    "prototype_gossip_paper": Method(control=True),
}
"""Of what fits, `plan` takes the first for a goal where nothing is simulated."""
CANDIDATES = tuple(name for name, method in METHODS.items() if method.goals)


def by_rule(goal: str) -> tuple[str, ...]:
    """Methods for that goal, the one to take before the others first."""
    return tuple(name for name, method in METHODS.items() if goal in method.goals)


def played_with(method: str, given: Mapping[str, Any], heads: int, hops: int, exam: str) -> dict[str, Any]:
    """Settings for a method: those of the table that are not `given`.

    Where there are auxiliary heads, `heads` in the model: those that learn, for beyond the graph's diameter, `hops`,
    they learn nothing new; and the one that answers, the main one where each device's own mix of classes counts
    (`exam` "own"), the last that learns where all count alike ("common").
    """
    known, found = settings_of(STRATEGIES[method]), dict(METHODS[method].settings)
    if "serve" in known:
        few = STRATEGIES[method]().ranks or max(1, min(heads, hops), given.get("serve", 0))
        ranks = given.get("ranks", few)
        found |= {"ranks": ranks, "serve": (ranks or heads) if exam == "common" else 0}
    return {key: value for key, value in found.items() if key not in given}


def not_own(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some settings that are not the method's own values."""
    own = settings_of(STRATEGIES[method])
    return {key: value for key, value in given.items() if key in own and value != own[key].default}


def told(played: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences about settings, by method, that are not its own."""
    who: dict[str, list[str]] = {}
    for method, settings in played.items():
        for key, value in settings.items():
            who.setdefault(f"{key} {value}", []).append(method)
    return [
        f"{what}, not the method's own: {'all' if len(methods) == len(played) > 1 else ', '.join(methods)}"
        for what, methods in sorted(who.items())
    ]
