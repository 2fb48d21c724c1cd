from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_process import Node, Stranger

from edgeswarm.demo.broker import RunningBroker, find_mosquitto, start_broker

_SITES = itertools.count(1)


def _need_mosquitto() -> None:
    if find_mosquitto() is None:
        if os.environ.get("REQUIRE_MOSQUITTO") == "1":
            pytest.fail("mosquitto is not installed, and REQUIRE_MOSQUITTO=1 says it must be")
        pytest.skip("mosquitto is not installed")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One for all tests; each has a site of its own. It lets packets of 3 MB through, for those who send too much."""
    _need_mosquitto()
    folder = tmp_path_factory.mktemp("broker")
    with start_broker("mosquitto", folder, extra=("max_packet_size 3000000",)) as running:
        yield running


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[..., RunningBroker]]:
    """For tests that kill their broker: call it for a broker, or for one on the port of an earlier one."""
    _need_mosquitto()
    started: list[RunningBroker] = []

    def start(port: int | None = None) -> RunningBroker:
        started.append(start_broker("mosquitto", tmp_path / f"broker{len(started)}", port))
        return started[-1]

    yield start
    for running in started:
        running.kill()


@pytest.fixture
def site() -> str:
    return f"site-{next(_SITES)}"


@pytest.fixture
def node(tmp_path: Path, site: str) -> Iterator[Callable[..., Node]]:
    """Makes agents, not started yet; their processes end with the test."""
    made: list[Node] = []

    def make(url: str, name: str = "a", folder: str = "", **sections: Any) -> Node:
        made.append(Node(tmp_path / (folder or name), url, name, site, **sections))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def stranger(broker: RunningBroker, site: str) -> Iterator[Stranger]:
    """Sees everything at the site."""
    client = Stranger(broker.port, f"edgeswarm/v1/{site}/#")
    yield client
    client.close()
