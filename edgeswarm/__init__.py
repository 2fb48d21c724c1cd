"""edgeswarm: devices that learn together, with no central server, over MQTT.

Reading order: `messages` (what peers say), `strategies.base` (how a method decides), `strategies.prototype_gossip` (the
first method), `agent.agent` (how decisions become deeds), `sim.world` and `agent.service` (the same agent simulated and
on a device), then `wire` (bytes) and `transport` (the broker). Imports point only this way:
errors, messages, wire, maths, backends, strategies, transport, agent, sim, demo, cli.
"""

from __future__ import annotations

__version__ = "0.1.0"
