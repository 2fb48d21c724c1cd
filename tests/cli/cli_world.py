"""What tests of the command line share beside fixtures. Its name is its own: many folders have a conftest."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import Result

from edgeswarm.demo.broker import RunningBroker, find_mosquitto
from edgeswarm.messages import Message, Presence
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire.status import encode_report

Run = Callable[..., Result]
"""The fixture `run`: words in, result out; `code` is the exit code it must end with, `input` what stands on stdin."""


def need_mosquitto() -> None:
    """Skip, or fail where the environment says that it must be there."""
    if find_mosquitto() is None:
        if os.environ.get("REQUIRE_MOSQUITTO"):
            pytest.fail("mosquitto is not installed, and REQUIRE_MOSQUITTO says it must be")
        pytest.skip("mosquitto is not installed")


REPORT = {
    "notes": {
        "samples": 1234.0,
        "accuracy_swarm": 0.91,
        "accuracy_alone": 0.84,
        "prototypes": 64.0,
        "bytes_sent": 12345.0,
    },
    "links": {"node-8": {"age_s": 3.5, "muted": 0.0}, "node-9": {"age_s": 42.0, "muted": 1.0}},
}


def told(number: int) -> Mapping[str, Any]:
    """What a node reports, unless the test says otherwise."""
    return REPORT


class Deaf:
    """A listener with nothing to do."""

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None: ...
    def on_refused(self, sender: str, reason: str) -> None: ...
    def on_presence(self, presence: Presence) -> None: ...
    def on_link(self, up: bool, detail: str) -> None: ...


@contextmanager
def nodes(
    broker: RunningBroker, site: str, reporting: int, silent: int = 0, report: Callable[[int], Mapping[str, Any]] = told
) -> Iterator[None]:
    """Nodes that are there, the first of them reporting all the time, over real connections in another thread.

    report: what node number 1, 2, ... says.
    """
    up, done = threading.Event(), threading.Event()

    async def live() -> None:
        transports = []
        for number in range(1, reporting + silent + 1):
            settings = MqttSettings(urls=(broker.url,), site=site, node=f"node-{number}", task="wafer")
            transport = MqttTransport(settings, Deaf(), random.Random(number))
            facts = {"strategy": "prototype_gossip", "version": "0.1.0"}
            transport.announce(Presence(f"node-{number}", "ready", 3, f"life{number}", facts))
            await transport.__aenter__()
            await transport.wait_up(10)
            transports.append(transport)
        up.set()
        while not done.is_set():
            for number, transport in enumerate(transports[:reporting], 1):
                transport.publish_report(encode_report(dict(report(number))))
            await asyncio.sleep(0.05)
        for transport in transports:
            await transport.__aexit__(None, None, None)

    thread = threading.Thread(target=lambda: asyncio.run(live()), name="nodes")
    thread.start()
    try:
        assert up.wait(20)
        yield
    finally:
        done.set()
        thread.join(20)
