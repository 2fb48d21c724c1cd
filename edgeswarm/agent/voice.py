"""What a node says of itself: presence and report to the broker, its status to whoever is on its own machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections import Counter
from concurrent.futures import Executor
from typing import Any

from edgeswarm import __version__
from edgeswarm.agent.agent import Agent
from edgeswarm.agent.announcement import announcement
from edgeswarm.agent.compute import Compute
from edgeswarm.agent.hearing import Hearing
from edgeswarm.agent.learner import LEFT_OUT
from edgeswarm.agent.memory import Memory
from edgeswarm.agent.settings import Config
from edgeswarm.agent.sources import FileSource, MqttSource, Schema
from edgeswarm.agent.status_file import write_status
from edgeswarm.agent.trouble import Trouble
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.wire.status import encode_report

LINKS_LIMIT = 1000
"""Links one report may hold."""
HEADLINES = ("samples", "prototypes", "rounds", "staleness_rounds", "accuracy_alone", "accuracy_swarm")
HEADLINES_EVERY_S = 120.0
"""Presence is retained, so it is what a visitor sees at once; a few numbers in it are renewed this often."""
PACKET_HEAD_BYTES = 256


class Voice:
    """Reads, and changes nothing but what others see.

    agent, schema: None until it is known what the samples look like.  compute: whose pauses are reported; None where
    the temperature does not matter.  finished: whether the source was read to its end.  All four are set by whoever
    runs the node, as it learns of them.
    """

    def __init__(
        self,
        config: Config,
        memory: Memory,
        source: FileSource | MqttSource,
        transport: MqttTransport,
        hearing: Hearing,
        stopping: asyncio.Event,
        counters: Counter[str],
        disk: Executor,
        trouble: Trouble,
    ) -> None:
        """hearing: for the link.  counters: what the report adds to those of transport and source.  disk: the one
        thread that touches the state folder.  trouble: for a label that cannot be learnt."""
        self.agent: Agent[Any] | None = None
        self.schema: Schema | None = None
        self.compute: Compute | None = None
        self.finished = False
        self._config = config
        self._memory = memory
        self._source = source
        self._transport = transport
        self._hearing = hearing
        self._stopping = stopping
        self._counters = counters
        self._disk = disk
        self._trouble = trouble
        self._instance = secrets.token_hex(4)
        self._started_at = self._announced_at = time.monotonic()

    def headlines(self) -> dict[str, float]:
        """The few numbers that presence carries; those known so far."""
        notes = self.agent.notes if self.agent is not None else {}
        return {name: notes[name] for name in HEADLINES if name in notes}

    def kept(self) -> dict[str, float]:
        """The numbers that are saved with the state, to be shown at once after a restart."""
        notes = self.agent.notes if self.agent is not None else {}
        return self.headlines() | {name: notes[name] for name in LEFT_OUT if name in notes}

    def announce(self) -> None:
        """Presence, with what is known so far: a node whose sensor is silent is there too."""
        config, schema = self._config, self.schema
        features, fingerprint = (len(schema.features), schema.fingerprint) if schema is not None else (0, 0)
        self._announced_at = time.monotonic()
        self._transport.announce(
            announcement(
                config.node,
                self._memory.epoch,
                self._instance,
                config.strategy.name,
                config.task,
                features,
                fingerprint,
                self.headlines(),
            )
        )

    def report(self) -> dict[str, Any]:
        """Everything an operator could want to know, as numbers: notes of this node, and of its link to each peer."""
        agent = self.agent
        notes = dict(agent.notes) if agent else {}
        counters = {**self._transport.counters, **self._counters}
        counters |= {f"dropped_{reason}": count for reason, count in self._source.dropped.items()}
        notes |= {name: float(value) for name, value in counters.items()}
        notes["uptime_s"] = time.monotonic() - self._started_at
        notes["finished"] = float(self.finished)
        notes["disk_fault"] = float(bool(self._memory.fault))
        if self.compute is not None:
            notes["training_paused"] = float(self.compute.verdict.too_hot)
            if self.compute.verdict.temperature_c is not None:
                notes["temperature_c"] = self.compute.verdict.temperature_c
        return {"notes": notes, "links": agent.link_report() if agent else {}}

    async def speak(self) -> None:
        """Report and, now and then, presence to the broker, where there is one; the status file."""
        if self._hearing.link[0]:
            self._transport.publish_report(self._encoded_report())
            if time.monotonic() - self._announced_at > HEADLINES_EVERY_S:
                self.announce()
        await self.write_status()

    async def keep_status(self) -> None:
        """Status at once when the link changes: whoever asks right after a start or a failure wants the truth.

        Until cancelled.
        """
        while True:
            await self._hearing.link_changed.wait()
            self._hearing.link_changed.clear()
            await self.write_status()

    async def write_status(self) -> None:
        """See `status_file`. Whoever saves the state reports trouble with the folder, so none is reported here."""
        up, detail = self._hearing.link
        config, report = self._config, self.report()
        status = {
            "node": config.node,
            "site": config.site,
            "task": config.task,
            "pid": os.getpid(),
            "at_unix": time.time(),
            "report_every_s": config.report.every_s,
            "uptime_s": report["notes"]["uptime_s"],
            "epoch": self._memory.epoch,
            "version": __version__,
            "link": {"up": up, "detail": detail},
            "disk_fault": self._memory.fault,
            "unknown_label": self._trouble.unknown_label,
            "stopped": self._stopping.is_set(),
            **report,
        }
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().run_in_executor(self._disk, write_status, config.state.folder, status)

    def _encoded_report(self) -> bytes:
        """The report, with as many links as one packet holds; all of them are in this node's own status."""
        report = self.report()
        room = self._config.broker.packet_limit_bytes - PACKET_HEAD_BYTES
        links = sorted(report["links"].items())[:LINKS_LIMIT]
        while True:
            try:
                data = encode_report({"notes": report["notes"], "links": dict(links)})
            except ValueError:
                if not links:
                    raise
            else:
                if len(data) <= room or not links:
                    return data
            links = links[: len(links) // 2]
