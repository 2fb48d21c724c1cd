"""What survives a restart: the strategy's state, the schema it was learnt with, and how far a file was read.

All trouble with the disk ends here as a line in the log and a note in the report; learning goes on without it.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from edgeswarm.agent.ledger import Ledger
from edgeswarm.agent.settings import Config
from edgeswarm.agent.sources import Schema
from edgeswarm.agent.store import Store, epoch_without_disk
from edgeswarm.errors import ConfigError, StateError
from edgeswarm.strategies.base import Strategy

log = logging.getLogger(__name__)


class Memory:
    """The state folder of one agent, as the service needs it. Raises ConfigError when another agent uses the folder.

    epoch: of this start.  fault: the last trouble with the disk in one line, or "".
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.fault = ""
        self.store = Store(config.state.folder)
        self._saved: dict[str, Any] | None = None
        self._durable = True
        try:
            self.store.open()
            self._saved = self.store.load()
            # At least what a node without a disk would take: a re-flashed card must not look like this node's past.
            self.epoch = self.store.next_epoch(epoch_without_disk(time.time()))
        except StateError as error:
            self._durable = False
            self.epoch = epoch_without_disk(time.time())
            self._say(str(error))
        for fault in self.store.faults:
            log.warning("%s", fault)
        self.ledger = Ledger(config.state.folder, epoch=self.epoch)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features the saved state was learnt with; empty when there is none."""
        return tuple(self._saved["features"]) if self._saved else ()

    @property
    def taken(self) -> int:
        """Samples already taken from the source's file, if the saved state read the same one."""
        if self._saved is None or self._saved.get("source_path") != self._config.source.path:
            return 0
        return int(self._saved.get("source_taken", 0))

    def raise_epoch(self, seen: int) -> int:
        """A boot epoch above one that this node's name was seen with. Falls back to memory when the disk refuses."""
        try:
            self.epoch = self.store.next_epoch(seen + 1)
        except StateError as error:
            self._say(str(error))
            self.epoch = max(self.epoch, seen) + 1
        self.ledger.epoch = self.epoch
        return self.epoch

    def restore(self, strategy: Strategy[Any], schema: Schema) -> Any:
        """The strategy's state as saved, or a fresh one.

        Raises ConfigError when what is saved was learnt otherwise: it would be overwritten by the first save.
        """
        node, folder = self._config.node, self.store.folder
        if self._saved is None:
            return strategy.init(node, self._config.seed)
        try:
            state = strategy.load(node, self._saved["strategy"])
        except (ValueError, KeyError, TypeError) as error:
            same = tuple(self._saved.get("features", ())) == schema.features
            why = str(error) if same else "it was learnt from other features"
            raise ConfigError(
                f"{folder}: the saved state does not fit this configuration ({why}); "
                "set another [state] folder, or move this one away to begin anew"
            ) from None
        log.info("continuing with what was learnt before (%s)", folder)
        return state

    def save(self, strategy: Strategy[Any], state: Any, schema: Schema, taken: int) -> None:
        """Write state and decisions to disk. Runs in a worker thread; never raises for the disk."""
        kept = {
            "strategy": strategy.dump(state),
            "features": list(schema.features),
            "source_path": self._config.source.path,
            "source_taken": taken,
        }
        try:
            if not self._durable:  # the disk may have come back: from now on starts are counted there
                self.store.open()
                self.store.next_epoch(self.epoch)
                self._durable = True
            self.store.save(kept)
        except StateError as error:
            self._say(str(error))
        else:
            if self.fault:
                log.info("the state can be saved again (%s)", self.store.folder)
            self.fault = ""
        if not self.ledger.flush() and self.ledger.fault:
            self._say(self.ledger.fault)

    def close(self) -> None:
        self.store.close()

    def _say(self, text: str) -> None:
        if text != self.fault:
            log.error("%s; learning goes on, but would not survive a restart", text)
        self.fault = text
