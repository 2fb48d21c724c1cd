"""Scoring against a labelled file that is never learnt from: how good is what this node knows, alone and in company?"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from edgeswarm.agent.encoder import Preparation
from edgeswarm.agent.serving import Serving
from edgeswarm.agent.settings import Config
from edgeswarm.agent.sources import labelled_file
from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.messages import Array

log = logging.getLogger(__name__)


class HoldOut:
    """Rows x (n, d) of a source, n at least 1, with the label of each.

    notes: where the scores go.  counters: unscored (scores that could not be computed).
    """

    def __init__(
        self, x: Array, labels: Sequence[str], serving: Serving, notes: dict[str, float], counters: Counter[str]
    ) -> None:
        self._x, self._labels = x, labels
        self._serving = serving
        self._notes = notes
        self._counters = counters
        self._ready: Array | None = None

    async def score(self) -> None:
        """Note the shares of rows that are given their label: holdout_alone by what this node learnt itself,
        holdout_swarm by all it knows; nothing before there is an answer. What cannot be computed is said in the log,
        and keeps its last value."""
        try:
            if self._ready is None:  # rows in, what the strategy learns from out: the same every time
                self._ready = await self._serving.prepared(self._x)
            for name, alone in (("holdout_alone", True), ("holdout_swarm", False)):
                share = await self._serving.score(self._ready, self._labels, alone)
                if share is not None:
                    self._notes[name] = share
        except (ModelError, OutOfMemory) as error:
            self._counters["unscored"] += 1
            log.error("%s; not scored this time", error)


async def hold_out(
    config: Config, preparation: Preparation, serving: Serving, notes: dict[str, float], counters: Counter[str]
) -> HoldOut:
    """The file that `[evaluate]` names; the rest as `HoldOut` has it. Raises DataError when it cannot be used."""
    held = await asyncio.to_thread(
        labelled_file,
        config.source,
        config.evaluate.path,
        config.evaluate.label,
        preparation.raw,
        seed=config.seed,
        same_form=not preparation.trivial,
    )
    return HoldOut(held.x, held.y, serving, notes, counters)
