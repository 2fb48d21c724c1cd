"""Peers whose words cannot be used: each is written down once, with the reason of the first, and none is answered."""

from __future__ import annotations

from dataclasses import Field, replace
from typing import Any, ClassVar, Protocol, TypeVar

from edgeswarm.strategies.base import Action, Decision, Note, Received

STRANGERS_LIMIT = 256
"""Peers that are written down; more come from nobody who means well."""


class Wary(Protocol):
    """A state that knows who was refused. strange: peers whose refusal was written down."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def strange(self) -> frozenset[str]: ...


S = TypeVar("S", bound=Wary)


def refused(state: S, event: Received, reason: str, outcome: str = "refused") -> tuple[S, list[Action]]:
    """The state after words that cannot be used, and what is to be written down of it. reason: one countable word, for
    which `edgeswarm why` has a sentence."""
    if event.sender in state.strange or len(state.strange) >= STRANGERS_LIMIT:
        return state, []
    state = replace(state, strange=state.strange | {event.sender})
    number = Note("refused_peers", float(len(state.strange)))
    return state, [number, Decision(event.at, "peer", outcome, reason, peer=event.sender)]
