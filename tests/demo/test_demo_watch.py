"""The watcher at a real broker."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeswarm.demo.broker import RunningBroker, find_mosquitto, start_broker
from edgeswarm.demo.watch import Heard, Watcher
from edgeswarm.errors import ConfigError, TransportError
from edgeswarm.messages import Message, Presence
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire.status import encode_report

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(find_mosquitto() is None, reason="Mosquitto is not installed"),
]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    with start_broker("mosquitto", tmp_path) as running:
        yield running


class Deaf:
    """A listener that does not care."""

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None: ...
    def on_refused(self, sender: str, reason: str) -> None: ...
    def on_presence(self, presence: Presence) -> None: ...
    def on_link(self, up: bool, detail: str) -> None: ...


def speak(url: str, site: str, *reports: bytes) -> None:
    """Be node pi-1 for a moment: say that we are ready, publish reports, say goodbye."""

    async def be_it() -> None:
        transport = MqttTransport(MqttSettings((url,), site, "pi-1", "demo"), Deaf(), random.Random(0))
        transport.announce(Presence("pi-1", "ready", 1, "abc"))
        async with transport:
            await transport.wait_up(20.0)
            for report in reports:
                transport.publish_report(report)

    asyncio.run(be_it())


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not ready():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@pytest.mark.parametrize("keep_topics", [False, True])
def test_it_hears_reports_and_presence_of_its_site_alone(broker: RunningBroker, keep_topics: bool) -> None:
    found: list[Heard] = []
    report = {"notes": {"samples": 3.0}, "links": {"pi-2": {"age_s": 1.5}}}
    with Watcher(broker.url, "here", keep_topics=keep_topics) as watcher:
        watcher.start(20.0)
        speak(broker.url, "elsewhere", encode_report({"notes": {"samples": 99.0}}))
        speak(broker.url, "here", b"rubbish", encode_report(report))
        until(lambda: bool(found.extend(watcher.reports()) or found))
        until(lambda: watcher.states == {"pi-1": "disconnected"})
    assert [(heard.node, heard.notes, heard.links) for heard in found] == [("pi-1", report["notes"], report["links"])]


def kept_at(url: str) -> set[str]:
    """Topics with a retained message. The marker is answered after them, since one connection keeps its order."""
    found: set[str] = set()

    async def look() -> None:
        transport = MqttTransport(MqttSettings((url,), "here"), Deaf(), random.Random(0))
        seen = asyncio.Event()
        transport.subscribe_raw("edgeswarm/#", 0, lambda topic, payload, retained: found.add(topic))
        transport.subscribe_raw("marker", 0, lambda topic, payload, retained: seen.set())
        async with transport:
            await transport.wait_up(20.0)
            transport.publish_raw("marker", b"x")
            await asyncio.wait_for(seen.wait(), 20.0)

    asyncio.run(look())
    return found


def test_it_leaves_nothing_at_a_broker_of_others(broker: RunningBroker) -> None:
    with Watcher(broker.url, "here", keep_topics=True) as watcher:
        watcher.start(20.0)
        speak(broker.url, "here")
        until(lambda: watcher.states == {"pi-1": "disconnected"})
        assert kept_at(broker.url) == {"edgeswarm/v1/here/pi-1/state"}
    assert kept_at(broker.url) == set()


def test_no_broker_and_no_address() -> None:
    with pytest.raises(TransportError), Watcher("mqtt://127.0.0.1:1", "here") as watcher:
        watcher.start(1.0)
    with pytest.raises(ConfigError), Watcher("http://here", "here") as watcher:
        watcher.start(1.0)
