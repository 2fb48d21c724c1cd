from __future__ import annotations

import os
import socket

import pytest

from edgeswarm.agent.systemd import notify, watchdog_s


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def test_words_arrive(manager, tmp_path, monkeypatch):
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert manager.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("STOPPING=1")
    assert manager.recv(100) == b"STOPPING=1"


def test_abstract_sockets():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"edgeswarm-test-{os.getpid()}"
        sock.bind("\0" + name)
        sock.settimeout(5)
        notify("READY=1", {"NOTIFY_SOCKET": "@" + name})
        assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize("path", ["", "/nowhere/at/all", "x" * 300, "a\0b", "@" + "y" * 200])
def test_nobody_listens(path):
    notify("READY=1", {"NOTIFY_SOCKET": path})
    notify("READY=1", {})


def test_a_manager_that_does_not_listen_is_not_waited_for(manager, tmp_path):
    for _ in range(5_000):  # far more than the socket's queue holds
        notify("WATCHDOG=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "\N{SUPERSCRIPT TWO}"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_signs_of_life_are_twice_as_frequent_as_asked(environ, wanted):
    assert watchdog_s(environ) == wanted
