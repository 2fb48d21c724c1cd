"""QG-DSGDm: momentum from how the averaged model moves, so that it points where the swarm goes and not where this
node's own rows pull.

T. Lin et al., "Quasi-Global Momentum", arXiv 2102.04761, algorithm 1: m_half = beta m + g, x_half = x - eta m_half
(nesterov: eta (g + beta m_half)), x <- sum_j w_ij x_half_j, m <- beta m + (1 - beta) (x_old - x) / eta. The authors of
2305.04792 ran another rule by that name, x <- sum_j w_ij x_j - eta g + beta (x - x_before): `form` undamped. A control
of `global_update_tracking`. With `steps` > 1, g is the sum over the local steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgeswarm.maths.tracking import quasi_global
from edgeswarm.strategies.base import Note
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.sharing_state import State, Step
from edgeswarm.strategies.telling import Telling


@dataclass(frozen=True)
class QGDSGDm(Telling):
    """beta: momentum.  form: "original" and "nesterov" as published, "undamped" as 2305.04792 ran it."""

    NAME: ClassVar[str] = "qg_dsgdm"

    optimiser: str = knob("sgd", choices=("sgd",))
    beta: float = knob(0.9, 0.0, 0.999)
    form: str = knob("original", choices=("original", "nesterov", "undamped"))

    def _round(self, state: State, at: float) -> Step:
        z, notes = self.mixed(state, "all", state.params, at)
        rate = self.rate_now(state)
        if self.form == "undamped":
            state, result = yield from self.trained(state, z)
            momentum = np.float32(self.beta) * (state.params - state.arrays.get("x_before", state.params))
            params, arrays = result.params + momentum, {"x_before": state.params}
        else:  # a round begins where the one before ended: with averaging what all have told, then the buffer
            x_before = state.arrays.get("x_before", z)
            momentum = state.arrays.get("momentum", 0 * z)
            before = np.float32(state.numbers.get("rate", rate))
            if before:  # a schedule that has come to its end moves nothing that could be told from noise
                momentum = quasi_global(momentum, x_before, z, np.float32(self.beta), before)
            state, result = yield from self.trained(state, z)
            ahead = np.float32(rate * self.beta)
            gradients = z - result.params
            params = result.params - ahead * momentum
            if self.form == "nesterov":  # eta (g + beta (beta m + g))
                params = z - (1 + np.float32(self.beta)) * gradients - ahead * np.float32(self.beta) * momentum
            arrays = {"x_before": z, "momentum": momentum}
        state = replace(
            state, params=params, arrays={**state.arrays, **arrays}, numbers={**state.numbers, "rate": rate}
        )
        state, _, send = self.tell(state, "all", params)
        return state, [*notes, Note("loss", float(result.losses.mean())), send]
