"""What a node has learnt, read from its state folder without touching it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeswarm.errors import StateError

if TYPE_CHECKING:
    from edgeswarm.messages import Array
    from edgeswarm.strategies.base import Answers, Request

READER = "reader"
"""Name that a state is loaded under which does not say whose it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """A strategy with its state as last saved. features: names of a sample's numbers, in order, as the source gives
    them.  prepared(rows): a generator of requests that ends with what the strategy learns from in their place.
    answer: who does the arithmetic."""

    features: tuple[str, ...]
    strategy: Any
    state: Any
    prepared: Callable[[Array], Generator[Request, Any, Array]]
    answer: Callable[[Request], Any]

    def predict(self, x: Array, alone: bool = False) -> tuple[list[str | None], Array]:
        """Class names (None: nothing learnt yet) and confidences for rows x (n, d) of the source's features."""
        from edgeswarm.strategies.base import finish

        steps: Answers = self.strategy.predict(self.state, finish(self.prepared(x), self.answer), alone)
        return finish(steps, self.answer)


def load(folder: Path) -> Learnt:
    """The newest whole state in `folder`.

    Raises StateError when there is none, or none that this version can use; ConfigError and ModelError when the model
    or the encoder that it was learnt with cannot be used any more.
    """
    from edgeswarm.agent.equipment import PROBES, as_described
    from edgeswarm.agent.settings import ComputeConfig
    from edgeswarm.agent.sources import Schema
    from edgeswarm.agent.store import Store
    from edgeswarm.strategies import STRATEGIES
    from edgeswarm.strategies.base import finish

    if not folder.is_dir():
        raise StateError(f"there is no state folder {folder}: has an agent run, and is this the folder of its config?")
    store = Store(folder)
    saved = store.load()
    if saved is None:
        why = f" ({store.faults[0]})" if store.faults else ": the first is saved some seconds after the start"
        raise StateError(f"nothing is saved in {folder} yet{why}")
    try:
        dumped = saved["strategy"]
        plain = {"task": "", "features": saved["features"], "encoder": "", "form": ""}
        source = {**plain, **saved.get("source", {})}
        features = tuple(str(name) for name in source["features"])
        raw = Schema(str(source["task"]), features, str(source["encoder"]), str(source["form"]))
        equipment = as_described(saved, ComputeConfig(), folder / PROBES)
        bare = STRATEGIES[dumped["strategy"]](**{**saved.get("knobs", {}), "schema": dumped["schema"]})
        preparation = equipment.preparation(raw, bare)
        public = finish(equipment.prepared(preparation), equipment.backend.answer)
        strategy = equipment.equipped(bare, dumped["schema"], public)
        state = strategy.load(str(saved.get("node", READER)), dumped)
        return Learnt(raw.features, strategy, state, preparation.rows, equipment.backend.answer)
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"the state in {folder} is not one this version can use: {error}") from None
