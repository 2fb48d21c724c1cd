"""What survives a restart: the strategy's state, the schema it was learnt with, and how far a file was read.

All trouble with the disk ends here as a line in the log and in `Memory.fault`; learning goes on without it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from edgeswarm.agent.ledger import Ledger
from edgeswarm.agent.settings import Config
from edgeswarm.agent.sources import Schema
from edgeswarm.agent.store import CURRENT, LOCK, PREVIOUS, Store, epoch_without_disk
from edgeswarm.errors import ConfigError, EdgeswarmError, StateError
from edgeswarm.strategies.base import Strategy
from edgeswarm.wire.envelope import MOST_EPOCH

log = logging.getLogger(__name__)

EPOCH_ROOM = 1_000_000
"""Starts that must stay countable. An epoch nearer to the largest was not counted by any node, but invented."""


NO_NOTES: Mapping[str, float] = {}


class Memory:
    """The state folder of one agent, as the service needs it. Raises ConfigError when another agent uses the folder.

    epoch: of this start.  fault: the last trouble with the disk in one line, or "".  also: what is saved beside the
    state, as plain data; set before the first save.  Only `save` and `raise_epoch` may run in a worker thread, and
    only one of them at a time.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.fault = ""
        self.also: Mapping[str, Any] = {}
        self.store = Store(config.state.folder)
        self._saved: dict[str, Any] | None = None
        self._claimed: tuple[int, int] | None = None
        # At least what a node without a disk would take: a re-flashed card must not look like this node's past.
        at_least = epoch_without_disk(time.time())
        try:
            self.store.open()
            self._claimed = self._place()
            self._saved = self.store.load()
            self.epoch = self.store.next_epoch(at_least)
            self._durable = True
        except StateError as error:
            self._durable = False
            if self._saved is None:  # a card that can no longer be written can perhaps still be read
                self._saved = self.store.load()
            read = self.store.loaded
            self.epoch = max(at_least, read.epoch + 1 if read else 0)
            self._say(str(error))
        # Whether what lies in the folder is this agent's own past, so that it may be written over.
        self._own = self._saved is not None
        self._log_finds()
        self.ledger = Ledger(config.state.folder, epoch=self.epoch)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features the saved state was learnt with; empty when there is none."""
        return tuple(str(name) for name in self._saved.get("features", ())) if self._saved else ()

    @property
    def source_features(self) -> tuple[str, ...]:
        """Names of the source's features then; those of `features`, unless an encoder was in between."""
        source = self._saved.get("source") if self._saved else None
        return tuple(str(name) for name in source["features"]) if source else self.features

    @property
    def taken(self) -> int:
        """Samples already taken from the source's file, if the saved state read the same one."""
        if self._saved is None or self._saved.get("source_path") != self._config.source.path:
            return 0
        return max(0, int(self._saved.get("source_taken", 0)))

    @property
    def notes(self) -> dict[str, float]:
        """The numbers saved with the state: what the node could say of itself when it was last saved."""
        saved = self._saved.get("notes", {}) if self._saved else {}
        return {str(name): float(value) for name, value in saved.items()}

    def raise_epoch(self, seen: int) -> int:
        """A boot epoch above one that this node's name was seen with; kept in memory alone when the disk refuses.

        One that no node can have reached by counting is not followed: soon there would be none left.
        """
        if seen > MOST_EPOCH - EPOCH_ROOM:
            log.error(
                "the broker holds a presence of %s with epoch %d, which no node can have reached: delete that retained "
                "message, until then peers may ignore this node",
                self._config.node,
                seen,
            )
            return self.epoch
        try:
            self.epoch = self.store.next_epoch(max(self.epoch, seen) + 1)
        except EdgeswarmError as error:
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
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            same = self.features == schema.features
            why = str(error) if same else "it was learnt from other features"
            raise ConfigError(
                f"{folder}: the saved state does not fit this configuration ({why}); "
                "set another [state] folder, or move this one away to begin anew"
            ) from None
        self._saved = {key: value for key, value in self._saved.items() if key != "strategy"}  # it is in memory twice
        log.info("continuing with what was learnt before (%s)", folder)
        return state

    def save(
        self, strategy: Strategy[Any], state: Any, schema: Schema, taken: int, notes: Mapping[str, float] = NO_NOTES
    ) -> None:
        """Write state, decisions and a few numbers to show after a restart to disk.

        Never raises: whatever is wrong, learning goes on.
        """
        try:
            kept = {
                "strategy": strategy.dump(state),
                "features": list(schema.features),
                "source_path": self._config.source.path,
                "source_taken": taken,
                "notes": dict(notes),
                **self.also,
            }
            self._claim()
            self.store.save(kept)
            self._own = True
            trouble = ""
        except EdgeswarmError as error:  # also that another agent has taken a folder that was away
            trouble = str(error)
        except OSError as error:
            trouble = f"cannot use {self.store.folder}: {error}"
        except Exception:
            log.exception("the state could not be saved. This is a bug in edgeswarm")
            trouble = "the state could not be saved (a bug in edgeswarm)"
        self._log_finds()
        if trouble:
            self._say(trouble)
        if not self.ledger.flush() and not trouble:
            self._say(self.ledger.fault or "")
        elif not trouble and self.fault:
            log.info("the state can be saved again (%s)", self.store.folder)
            self.fault = ""

    def close(self) -> None:
        """Let the folder go."""
        with contextlib.suppress(OSError):
            self.store.close()

    def _claim(self) -> None:
        """Make sure that the folder is this process's; it may have been away, or come only now. Raises EdgeswarmError.

        From here on starts are counted there too.
        """
        if self._claimed is not None and self._claimed != self._place():  # removed or unmounted under us
            self.close()
            self._durable = False
        if self._durable:
            return
        self.store.open()
        self._claimed = self._place()
        if not self._own and self.store.load() is not None:
            self._set_aside()
        self.store.next_epoch(self.epoch)
        self._durable = True

    def _place(self) -> tuple[int, int] | None:
        """Which lock file stands in the folder now; another one if the folder is not the one it was."""
        try:
            found = (self.store.folder / LOCK).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _set_aside(self) -> None:
        """Keep states that could not be read at the start: this agent began without them, and would write over them."""
        for name in (CURRENT, PREVIOUS):
            path = self.store.folder / name
            kept = path.with_name(f"{name}.before-{self.epoch}")
            with contextlib.suppress(FileNotFoundError):
                path.replace(kept)
                log.warning("%s could not be read at the start and can be now; kept as %s", path, kept.name)
        self._own = True

    def _log_finds(self) -> None:
        for fault in self.store.faults:
            log.warning("%s", fault)
        self.store.faults.clear()

    def _say(self, text: str) -> None:
        if text != self.fault:
            log.error("%s; learning goes on, but would not survive a restart", text)
        self.fault = text
