from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from transport_world import World, need_mosquitto

from edgeswarm.demo.broker import RunningBroker, start_broker


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    need_mosquitto()
    with start_broker("mosquitto", tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@pytest.fixture
def amqtt(tmp_path: Path) -> Iterator[RunningBroker]:
    """A fresh one for each test: after an unhandled exception of its own it stops delivering to some clients."""
    pytest.importorskip("amqtt")
    with start_broker("amqtt", tmp_path) as broker:
        yield broker


@pytest.fixture
def own_mosquitto() -> None:
    """For tests that start their own broker."""
    need_mosquitto()


@pytest.fixture(
    params=[
        pytest.param("mosquitto-5", marks=pytest.mark.broker),
        pytest.param("mosquitto-3.1.1", marks=pytest.mark.broker),
        pytest.param("amqtt", marks=pytest.mark.broker),
        "memory",
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    """Every transport there is."""
    return str(request.param)


@pytest.fixture
def world(kind: str, request: pytest.FixtureRequest) -> World:
    """Enter it inside the event loop: `async with world: ...`."""
    if kind == "memory":
        return World(None)
    if kind == "amqtt":
        return World(request.getfixturevalue("amqtt"), "3.1.1")
    return World(request.getfixturevalue("mosquitto"), kind.partition("-")[2])
