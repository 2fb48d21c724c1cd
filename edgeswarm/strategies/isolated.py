"""The control: a model trained on this node's own samples alone, never told of, never asked about.

What the methods that share models are measured against.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgeswarm.strategies.base import Note
from edgeswarm.strategies.sharing import Sharing
from edgeswarm.strategies.sharing_state import State, Step


@dataclass(frozen=True)
class Isolated(Sharing):
    """The strategy; its settings are `local_model.ModelKnobs`."""

    NAME: ClassVar[str] = "isolated"
    PARTS: ClassVar[tuple[str, ...]] = ()

    def _round(self, state: State, at: float) -> Step:
        state, result = yield from self.trained(state, state.params)
        return replace(state, params=result.params), [Note("loss", float(result.losses.mean()))]
