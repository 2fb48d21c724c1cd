"""What a node has learnt, read from its state folder without touching it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeswarm.errors import StateError

READER = "reader"
"""Name the state is loaded under. A node's name matters when it learns and talks, and here it does neither."""


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """A strategy with its state as last saved. features: names of the dimensions, in order."""

    features: tuple[str, ...]
    strategy: Any
    state: Any


def load(folder: Path) -> Learnt:
    """The newest whole state in `folder`. Raises StateError when there is none, or none that this version can use."""
    from edgeswarm.agent.store import Store
    from edgeswarm.strategies import STRATEGIES

    if not folder.is_dir():
        raise StateError(f"there is no state folder {folder}: has an agent run, and is this the folder of its config?")
    store = Store(folder)
    saved = store.load()
    if saved is None:
        why = f" ({store.faults[0]})" if store.faults else ": the first is saved some seconds after the start"
        raise StateError(f"nothing is saved in {folder} yet{why}")
    try:
        dumped = saved["strategy"]
        features = tuple(str(name) for name in saved["features"])
        strategy = STRATEGIES[dumped["strategy"]](schema=dumped["schema"])
        return Learnt(features, strategy, strategy.load(READER, dumped))
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"the state in {folder} is not one this version can use: {error}") from None
