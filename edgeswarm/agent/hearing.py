"""What the broker tells a node: messages of its peers, who is there, whether the link is up, its own earlier lives."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor

from edgeswarm.agent.inbox import Inbox
from edgeswarm.agent.memory import Memory
from edgeswarm.agent.peers import PeerTable
from edgeswarm.messages import Message, Presence
from edgeswarm.strategies.base import Linked, Peers, Received, Started

log = logging.getLogger(__name__)

TOLD_LIMIT = 1000
"""Pairs of a peer and a reason that the log names, at most: both come from strangers."""


class Hearing:
    """The transport's `Listener`: puts what matters to the agent into its inbox.

    link: whether the broker is there, and the newest line about it.  link_changed: set at every such line.
    stopping: set once the node wants to end; a link that goes is no warning then.  counters: inbox_full.
    """

    def __init__(
        self, node: str, silence_s: float, inbox: Inbox, memory: Memory, stopping: asyncio.Event, counters: Counter[str]
    ) -> None:
        """silence_s: as `PeerTable` has it."""
        self.link = (False, "not connected yet")
        self.link_changed = asyncio.Event()
        self._node = node
        self._peers = PeerTable(node, silence_s)
        self._inbox = inbox
        self._memory = memory
        self._stopping = stopping
        self._counters = counters
        self._outdated = asyncio.Event()
        self._seen_epoch = 0
        self._told_refused: set[tuple[str, str]] = set()

    def sweep(self) -> None:
        """Take peers that were silent for too long for lost."""
        now = asyncio.get_running_loop().time()
        if self._peers.sweep(now):
            self._inbox.put(Peers(now, self._peers.present()))

    async def outlive(self, disk: Executor, announce: Callable[[], None]) -> None:
        """Take a boot epoch above one that the broker knows this name by, or peers would take us for our own past.

        Until cancelled.  disk: where the epoch is kept.  announce: tells everybody the new one.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._outdated.wait()
            self._outdated.clear()
            seen, before = self._seen_epoch, self._memory.epoch
            if seen < before:
                continue
            epoch = await loop.run_in_executor(disk, self._memory.raise_epoch, seen)
            if epoch > before:
                log.warning("the broker knows this name with epoch %d; going on as %d", seen, epoch)
                announce()
                self._inbox.put(Started(loop.time(), epoch))

    # ---- the transport's listener ------------------------------------------------------------------------------------

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None:
        """A peer's message came."""
        now = asyncio.get_running_loop().time()
        if self._peers.heard(sender, now):
            self._inbox.put(Peers(now, self._peers.present()))
        if not self._inbox.put(Received(now, sender, message, waited_s), size_bytes):
            self._counters["inbox_full"] += 1

    def on_refused(self, sender: str, reason: str) -> None:
        """A peer sent bytes that are no message; said once per peer and reason (the transport counts them)."""
        if (sender, reason) not in self._told_refused and len(self._told_refused) < TOLD_LIMIT:
            self._told_refused.add((sender, reason))
            log.warning("dropped a message from %s: %s", sender, reason)

    def on_presence(self, presence: Presence) -> None:
        """Somebody came, went or reported; or this node's own name was seen in an earlier life."""
        now = asyncio.get_running_loop().time()
        if presence.node == self._node:
            self._seen_epoch = max(self._seen_epoch, presence.epoch)
            self._outdated.set()
            if presence.state == "ready":  # a crash may have left it, but so does a twin that has just stepped back
                log.warning(
                    "the broker says that %s is there already: unless it was this node a moment ago, two devices have "
                    "one name; rename one of the two",
                    presence.node,
                )
        elif self._peers.saw(presence, now):
            self._inbox.put(Peers(now, self._peers.present()))

    def on_link(self, up: bool, detail: str) -> None:
        """The connection came or went, or there is something to say about it."""
        news = up and not self.link[0]
        (log.info if news or self._stopping.is_set() else log.warning)("%s", detail)
        self.link = (up, detail)
        self.link_changed.set()
        if news:
            self._inbox.put(Linked(asyncio.get_running_loop().time()))
