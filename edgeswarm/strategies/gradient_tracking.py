"""Gradient tracking: beside its model every node tells a direction that tracks the mean gradient of all.

G. Qu, N. Li, "Harnessing Smoothness to Accelerate Distributed Optimization", arXiv 1605.07112; P. Di Lorenzo, G.
Scutari, arXiv 1602.00391: c <- sum_j w_ij c_j + g - g_before, x <- sum_j w_ij x_j - eta c. Twice the traffic of
`global_update_tracking`, whose control it is, and a smaller step. With `steps` > 1, g is the mean over the local steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgeswarm.maths.tracking import tracked
from edgeswarm.strategies.base import Note
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.sharing_state import State, Step
from edgeswarm.strategies.telling import Telling


@dataclass(frozen=True)
class GradientTracking(Telling):
    """The strategy; its settings are those of `telling.Telling`."""

    NAME: ClassVar[str] = "gradient_tracking"
    PARTS: ClassVar[tuple[str, ...]] = ("all", "track")

    optimiser: str = knob("sgd", choices=("sgd",))

    def _round(self, state: State, at: float) -> Step:
        z, notes = self.mixed(state, "all", state.params, at)
        direction, _ = self.mixed(state, "track", state.arrays.get("direction", 0 * z), at)
        rate, before = self.rate_now(state), state.arrays.get("gradient", 0 * z)
        state, result = yield from self.trained(state, z)
        gradient = (z - result.params) / np.float32(rate * self.steps) if rate else before
        direction = tracked(direction, gradient, before)
        params = z - np.float32(rate * self.steps) * direction
        arrays = {**state.arrays, "direction": direction, "gradient": gradient}
        state = replace(state, params=params, arrays=arrays)
        state, _, model = self.tell(state, "all", params)
        state, _, track = self.tell(state, "track", direction)
        return state, [*notes, Note("loss", float(result.losses.mean())), model, track]
