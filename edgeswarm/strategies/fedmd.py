"""FedMD-like averaging: one auxiliary head learns the mean of what everybody says of public samples.

D. Li, J. Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", arXiv 1910.03581, without its server
and without labels on the public set. The control of `multi_headed_distillation`: confidence plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.multi_headed_distillation import MultiHeadedDistillation
from edgeswarm.strategies.teaching import CHOICES, OWN


@dataclass(frozen=True)
class FedMD(MultiHeadedDistillation):
    """The strategy; settings as of `multi_headed_distillation`, but for these defaults."""

    NAME: ClassVar[str] = "fedmd"

    choice: str = knob("mean", choices=CHOICES)
    own: str = knob("always", choices=OWN)
    ranks: int = knob(1, 0, 64)
    gate: float = knob(0.0, 0.0, 1e6)
    tested: bool = knob(False)
    cap: float = knob(0.0, 0.0, 1e6)
    ceiling: float = knob(1.0, 0.1, 1.0)
    bids: bool = knob(False)
