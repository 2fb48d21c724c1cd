"""What a node says of itself in its presence; a simulated one says as much, since presence is part of the traffic."""

from __future__ import annotations

from collections.abc import Mapping

from edgeswarm import __version__
from edgeswarm.messages import Presence


def announcement(
    node: str,
    epoch: int,
    instance: str,
    method: str,
    task: str,
    features: int,
    schema: int,
    headlines: Mapping[str, float],
) -> Presence:
    """Presence of a node that is up. instance: 8 hexadecimal digits, another one for each process.

    features, schema: how many, and the fingerprint; 0: not known yet.  headlines: a few numbers for a visitor.
    """
    facts: dict[str, float | int | str] = {"version": __version__, "strategy": method, "task": task}
    if features:
        facts |= {"features": features, "schema": f"{schema:016x}"}
    facts |= {name: round(value, 4) for name, value in headlines.items()}
    return Presence(node, "ready", epoch, instance, facts)
