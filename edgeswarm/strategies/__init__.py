"""The learning methods, by the name a configuration uses."""

from __future__ import annotations

from typing import Any

from edgeswarm.strategies.isolated import Isolated
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from edgeswarm.strategies.prototype_gossip_paper import PrototypeGossipPaper

STRATEGIES: dict[str, type[Any]] = {
    "isolated": Isolated,
    "prototype_gossip": PrototypeGossip,
    "prototype_gossip_paper": PrototypeGossipPaper,
}
