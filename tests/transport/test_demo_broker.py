"""The private broker: found, started, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeswarm.demo import broker as module
from edgeswarm.demo.broker import start_broker
from edgeswarm.errors import ConfigError, TransportError

ROOT = Path(module.__file__).resolve().parents[2]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(
    params=[pytest.param("mosquitto", marks=pytest.mark.broker), pytest.param("amqtt", marks=pytest.mark.broker)]
)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "mosquitto":
        request.getfixturevalue("own_mosquitto")
    else:
        pytest.importorskip("amqtt")
    return str(request.param)


def test_it_answers_until_it_is_stopped(kind: str, tmp_path: Path) -> None:
    with start_broker(kind, tmp_path / "new" / "folder") as broker:
        assert broker.kind == kind and broker.url == f"mqtt://127.0.0.1:{broker.port}"
        assert broker.version[0].isdigit() and answers(broker.port)
        assert broker.protocol == ("auto" if kind == "mosquitto" else "3.1.1")
    assert not answers(broker.port)
    broker.stop()


def test_it_dies_with_a_parent_that_is_killed(kind: str, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from edgeswarm.demo.broker import start_broker\n"
        f"b = start_broker({kind!r}, Path({str(tmp_path)!r})); print(b.process.pid, flush=True); time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there to collect it


def test_ctrl_c_is_for_the_demo_alone(kind: str, tmp_path: Path) -> None:
    with start_broker(kind, tmp_path) as broker:
        assert os.getsid(broker.process.pid) != os.getsid(0)
        broker.process.send_signal(signal.SIGKILL)
        broker.process.wait()
        assert not answers(broker.port)


def test_a_port_that_was_taken_meanwhile_is_replaced(
    own_mosquitto: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = module._free_port
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        taken = squatter.getsockname()[1]
        ports = iter([taken, free()])
        monkeypatch.setattr(module, "_free_port", lambda: next(ports))
        with start_broker("mosquitto", tmp_path) as broker:
            assert broker.port != taken


def test_a_broker_that_does_not_start_says_why(own_mosquitto: None, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="no_such_setting"):
        start_broker("mosquitto", tmp_path, extra=["no_such_setting 1"])


def test_the_bundled_broker_is_the_second_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("amqtt")
    monkeypatch.setattr(module, "find_mosquitto", lambda: None)
    with start_broker(None, tmp_path) as broker:
        assert broker.kind == "amqtt"
    with pytest.raises(ConfigError, match="install mosquitto"):
        start_broker("mosquitto", tmp_path)
    with pytest.raises(ConfigError, match="one of"):
        start_broker("emqx", tmp_path)
