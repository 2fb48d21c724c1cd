"""What goes wrong while an agent runs, counted and said: loud the first time, but never filling a device's journal."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection

from edgeswarm.errors import ModelError, OutOfMemory

log = logging.getLogger(__name__)


def reason(error: ModelError | OutOfMemory) -> str:
    """The name under which `error` is counted, and stands in the ledger."""
    return "model_error" if isinstance(error, ModelError) else "out_of_memory"


class Trouble:
    """Counts faults (bugs of ours that were survived), model_error, out_of_memory and left_out in `counters`.

    told: the arithmetic that failed last, so that whoever meets it again on its way up does not count it twice.
    unknown_label: a label of this node's samples that the method cannot learn, the last that was seen; "" for none.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self.told: ModelError | OutOfMemory | None = None
        self.unknown_label = ""
        self._counters = counters
        self._last_line = ""

    def fault(self) -> None:
        """A bug of ours, from within `except`: loud, but one bad event must not end a device's learning."""
        self._counters["faults"] += 1
        count = self._counters["faults"]
        if count <= 5 or count & (count - 1) == 0:
            log.exception("something failed and was left out (%d so far). This is a bug in edgeswarm", count)

    def left_out(self, samples: int) -> None:
        """Samples whose step failed: they are not learnt, and a source gives each of them once."""
        self._counters["left_out"] += samples
        log.error("%d samples are left out (%d so far)", samples, self._counters["left_out"])

    def unknown(self, samples: int, label: str, known: Collection[str]) -> None:
        """`samples` so far, `label` among theirs, are not learnt: the method knows the labels `known` alone."""
        few = ", ".join(map(repr, list(known)[:5])) + (", ..." if len(known) > 5 else "")
        log.warning("%d samples left out so far: the method does not know their labels, such as %r; it knows %s",
                    samples, label, few)  # fmt: skip

    def too_large(self, samples: int) -> None:
        """`samples` so far have numbers that are not for training."""
        log.warning("%d samples left out so far: they hold numbers beyond a million; is their unit right?", samples)

    def not_computed(self, error: ModelError | OutOfMemory) -> None:
        """Arithmetic that failed; said once per hundred times it is the same, since a node may try for days."""
        self.told = error
        name = reason(error)
        self._counters[name] += 1
        if str(error) != self._last_line or self._counters[name] % 100 == 0:
            self._last_line = str(error)
            log.error("%s; nothing has changed", error)
