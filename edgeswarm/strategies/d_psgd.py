"""D-PSGD: every round average with the neighbours, then take a gradient step at the average.

X. Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?", arXiv 1705.09056; in the form of
2305.04792, combine first: x_i <- sum_j w_ij x_j - eta g_i(sum_j w_ij x_j). With `steps` > 1, several local steps
between two exchanges. The control of `global_update_tracking`, and with every neighbour known, full averaging.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgeswarm.strategies.base import Note
from edgeswarm.strategies.sharing_state import State, Step
from edgeswarm.strategies.telling import Telling


@dataclass(frozen=True)
class DPSGD(Telling):
    """The strategy; its settings are those of `telling.Telling`."""

    NAME: ClassVar[str] = "d_psgd"

    def _round(self, state: State, at: float) -> Step:
        z, notes = self.mixed(state, "all", state.params, at)
        state, result = yield from self.trained(state, z)
        state, _, send = self.tell(replace(state, params=result.params), "all", result.params)
        return state, [*notes, Note("loss", float(result.losses.mean())), send]
