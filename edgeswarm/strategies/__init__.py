"""The learning methods, by the name a configuration uses."""

from __future__ import annotations

from typing import Any

from edgeswarm.strategies.body_average import BodyAverage
from edgeswarm.strategies.d_psgd import DPSGD
from edgeswarm.strategies.fedmd import FedMD
from edgeswarm.strategies.gatta import GATTA
from edgeswarm.strategies.global_update_tracking import GlobalUpdateTracking
from edgeswarm.strategies.global_update_tracking_paper import GlobalUpdateTrackingPaper
from edgeswarm.strategies.gossip_learning import GossipLearning
from edgeswarm.strategies.gradient_tracking import GradientTracking
from edgeswarm.strategies.isolated import Isolated
from edgeswarm.strategies.multi_headed_distillation import MultiHeadedDistillation
from edgeswarm.strategies.prototype_distillation import PrototypeDistillation
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from edgeswarm.strategies.prototype_gossip_paper import PrototypeGossipPaper
from edgeswarm.strategies.qg_dsgdm import QGDSGDm

STRATEGIES: dict[str, type[Any]] = {
    "body_average": BodyAverage,
    "d_psgd": DPSGD,
    "fedmd": FedMD,
    "gatta": GATTA,
    "global_update_tracking": GlobalUpdateTracking,
    "global_update_tracking_paper": GlobalUpdateTrackingPaper,
    "gossip_learning": GossipLearning,
    "gradient_tracking": GradientTracking,
    "isolated": Isolated,
    "multi_headed_distillation": MultiHeadedDistillation,
    "prototype_distillation": PrototypeDistillation,
    "prototype_gossip": PrototypeGossip,
    "prototype_gossip_paper": PrototypeGossipPaper,
    "qg_dsgdm": QGDSGDm,
}
