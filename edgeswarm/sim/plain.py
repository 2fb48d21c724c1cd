"""Events, messages and packets as plain data and back: dicts, lists, numbers, strings, bytes and NumPy arrays.

What comes out `strategies.checks.packed` takes. Only the classes of KINDS are made on the way back, whatever the data
says. A parcel that many receivers wait for is written once, and is one object again afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from edgeswarm.agent.peers import Peer
from edgeswarm.messages import Bids, Compressed, Digest, Packed, Predictions, Presence, Prototypes, Pull, Weights
from edgeswarm.strategies.base import Batch, Decision, Linked, Peers, Received, Sent, Started, Tested, Woke
from edgeswarm.transport.packet import Packet
from edgeswarm.transport.parcel import Parcel
from edgeswarm.transport.retained import Kept
from edgeswarm.transport.weather import AccessLink, Weather

KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(Batch, Decision, Linked, Peers, Received, Sent, Started, Tested, Woke),
        *(Bids, Compressed, Digest, Packed, Predictions, Presence, Prototypes, Pull, Weights),
        *(AccessLink, Kept, Packet, Parcel, Peer, Weather),
    )
}
_SIMPLE = (bool, int, float, str, bytes, type(None), np.ndarray)


class Writer:
    """`write` values that may share parcels."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, Parcel]] = {}

    def write(self, value: Any) -> Any:
        """`value` as plain data. Raises TypeError: it holds something else."""
        if isinstance(value, _SIMPLE):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, list):
            return [self.write(each) for each in value]
        if isinstance(value, tuple):
            return {"tuple": [self.write(each) for each in value]}
        if isinstance(value, Mapping):
            return {"map": [[self.write(key), self.write(held)] for key, held in value.items()]}
        if value is Peers:
            return {"kind": "Peers"}
        if isinstance(value, Parcel):
            known = self._seen.get(id(value))
            if known is not None:
                return {"again": known[0]}
            self._seen[id(value)] = (len(self._seen), value)  # held, or another could get its id
        name = type(value).__name__
        if KINDS.get(name) is not type(value):
            raise TypeError(f"a {name} is no plain data")
        return {name: [self.write(getattr(value, each.name)) for each in fields(value) if each.init]}


class Reader:
    """`read` what one Writer wrote, in the same order."""

    def __init__(self) -> None:
        self._parcels: list[Parcel] = []

    def read(self, data: Any) -> Any:
        """The value. Raises ValueError: nothing that `Writer` writes."""
        if isinstance(data, list):
            return [self.read(each) for each in data]
        if not isinstance(data, dict):
            return data
        ((name, held),) = data.items()
        if name == "tuple":
            return tuple(self.read(each) for each in held)
        if name == "map":
            return {self.read(key): self.read(each) for key, each in held}
        if name == "again":
            return self._parcels[held]
        if name == "kind":
            return Peers
        if name not in KINDS:
            raise ValueError(f"{name!r} is no part of a simulation")
        made = KINDS[name](*(self.read(each) for each in held))
        if isinstance(made, Parcel):
            self._parcels.append(made)
        return made
