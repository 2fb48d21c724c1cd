"""Global update tracking as published, in its compact form, with the newest copy of each neighbour's model.

S. A. Aketi, A. Hashemi, K. Roy, arXiv 2305.04792: x <- z - eta g + mu ((z - z_before) + step_before), and QG-GUTm with
momentum beta (`maths.tracking`). For lock-step networks that lose nothing; `global_update_tracking` is the same there
and holds elsewhere. The authors send differences; a difference that is lost is lost for good, a model is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgeswarm.maths.tracking import global_update_momentum
from edgeswarm.strategies.base import Note
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.sharing_state import State, Step
from edgeswarm.strategies.telling import Telling


@dataclass(frozen=True)
class GlobalUpdateTrackingPaper(Telling):
    """mu: 0.9 on rings without momentum, 0.06 with beta 0.9. With mu 0, QG-DSGDm as the authors ran it."""

    NAME: ClassVar[str] = "global_update_tracking_paper"

    optimiser: str = knob("sgd", choices=("sgd",))
    mu: float = knob(0.9, 0.0, 1.0)
    beta: float = knob(0.0, 0.0, 0.99)

    def _round(self, state: State, at: float) -> Step:
        x, known = state.params, state.arrays
        z, notes = self.mixed(state, "all", x, at)
        state, result = yield from self.trained(state, z)
        step = z - result.params
        x_before, z_before = known.get("x_before", x), known.get("z_before", z)
        step_before = known.get("step_before", 0 * step)
        params = global_update_momentum(x, z, step, x_before, z_before, step_before, self.beta, self.mu)
        arrays = {**state.arrays, "x_before": x, "z_before": z, "step_before": step}
        state, _, send = self.tell(replace(state, params=params, arrays=arrays), "all", params)
        return state, [*notes, Note("loss", float(result.losses.mean())), send]
