"""With which settings each method is played where the reader sets none: the same in `plan` and in `compare`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeswarm.agent.fields import settings_of
from edgeswarm.strategies import STRATEGIES

_PLAIN_RATE = 0.1
"""Of methods that take plain steps: what the others' steps of 0.01 come to with momentum 0.9, 0.01 / (1 - 0.9)."""
_QUASI_GLOBAL_RATE = 0.03
"""The same for quasi-global momentum 0.9, as a mean of the first 60 rounds: under a steady gradient g it is after n
rounds 10 (1 - 0.99^n) g, so steps begin as plain ones, are 3.2 times that in this mean, and 10 times in the end."""

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "d_psgd": {"scheme": "int8"},
    "global_update_tracking": {"scheme": "int8", "rate": _PLAIN_RATE},
    "gatta": {"scheme": "int8"},
    "global_update_tracking_paper": {"rate": _PLAIN_RATE},
    "qg_dsgdm": {"scheme": "int8", "rate": _QUASI_GLOBAL_RATE, "form": "nesterov"},
    "gradient_tracking": {"scheme": "int8", "rate": _PLAIN_RATE},
    "gossip_learning": {"scheme": "int8"},
    "body_average": {"scheme": "int8"},
}
"""What is not a method's own value; models travel as int8, except where a method is as published."""


def played_with(method: str, given: Mapping[str, Any], heads: int, hops: int, exam: str) -> dict[str, Any]:
    """Settings for a method: those of the table that are not `given`.

    Where there are auxiliary heads, `heads` in the model: those that learn, for beyond the graph's diameter, `hops`,
    they learn nothing new; and the one that answers, the main one where each device's own mix of classes counts
    (`exam` "own"), the last that learns where all count alike ("common").
    """
    known, found = settings_of(STRATEGIES[method]), dict(SETTINGS.get(method, {}))
    if "serve" in known:
        few = STRATEGIES[method]().ranks or max(1, min(heads, hops), given.get("serve", 0))
        ranks = given.get("ranks", few)
        found |= {"ranks": ranks, "serve": (ranks or heads) if exam == "common" else 0}
    return {key: value for key, value in found.items() if key not in given}
