"""Why a node did something, or did not: what the methods and the agent tell, and `edgeswarm why` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from edgeswarm.values import value


@value(frozen=True, slots=True)
class Decision:
    """Why something was, or was not, done; kept in the node's ledger for `edgeswarm why`.

    kind: "share", "peer", ...  outcome: "sent", "held", "muted", ...  reason: one countable word.
    facts: the numbers the decision rests on, units in their names.
    """

    at: float
    kind: str
    outcome: str
    reason: str
    facts: Mapping[str, float] = field(default_factory=dict)
    peer: str = ""
