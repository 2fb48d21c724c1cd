"""A private broker for the demo and the tests: Mosquitto where it is installed, the bundled amqtt otherwise.

It listens on loopback alone, keeps nothing on disk, and dies with the process that started it, even if that one is
killed (PR_SET_PDEATHSIG). Linux ties that signal to the thread that forked: start the broker from a thread that lives
as long as the broker should, which the main thread does.

amqtt speaks MQTT 3.1.1 only and hands retained messages to clients that did not ask for them; it is good enough to
look at, not to depend on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeswarm.errors import ConfigError, TransportError

KINDS = ("mosquitto", "amqtt")
_CONNECT = bytes.fromhex("100c00044d5154540402000a0000")
"""MQTT 3.1.1 CONNECT, clean session, keep-alive 10 s, empty client identifier."""
_PR_SET_PDEATHSIG = 1
_START_TIMEOUT_S = 20.0
_PORT_TRIES = 5


@dataclass(slots=True)
class RunningBroker:
    """A broker process. kind: "mosquitto" or "amqtt".  url: mqtt://127.0.0.1:port.  version: as it names itself."""

    kind: str
    url: str
    version: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def protocol(self) -> str:
        """What to set `MqttSettings.protocol` to: amqtt meets an MQTT 5 CONNECT with silence, which costs a timeout."""
        return "3.1.1" if self.kind == "amqtt" else "auto"

    def stop(self, patience_s: float = 3.0) -> None:
        """End it, politely first. Does nothing if it has ended already."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process.wait()

    def kill(self) -> None:
        """End it without giving it a chance to say anything, as a power cut does."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> RunningBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def find_mosquitto() -> str | None:
    """Path of the Mosquitto binary, also where Debian puts it outside an ordinary user's PATH."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
    return shutil.which("mosquitto", path=path)


def start_broker(
    prefer: str | None, folder: Path, port: int | None = None, extra: Sequence[str] = (), anonymous: bool = True
) -> RunningBroker:
    """Start a broker on a free loopback port (or on `port`) and wait until it answers a CONNECT.

    prefer: "mosquitto", "amqtt" or None for whichever is there.  folder: for its settings and log, made if needed.
    extra: more lines for Mosquitto's settings file.  anonymous: let clients in without a user name (Mosquitto).
    Raises ConfigError if no broker is installed, TransportError if it does not come up.
    """
    kind = _choose(prefer)
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(_PORT_TRIES):
        chosen = port if port is not None else _free_port()
        command = _mosquitto(chosen, folder, extra, anonymous) if kind == "mosquitto" else _amqtt(chosen)
        broker = _launch(kind, chosen, command, folder / f"{kind}-{chosen}.log")
        if _answers(broker):
            return broker
        said = broker.log.read_text(errors="replace")[-400:].strip()
        broker.stop()
        # somebody may have taken the port between our look and the broker's bind: another one, then
        if attempt == _PORT_TRIES - 1 or "in use" not in said:
            break
    raise TransportError(f"{kind} did not start on port {chosen}: {said or 'it said nothing'}")


def _choose(prefer: str | None) -> str:
    if prefer is not None and prefer not in KINDS:
        raise ConfigError(f"broker is one of {', '.join(KINDS)}, not {prefer!r}")
    there = {"mosquitto": find_mosquitto() is not None, "amqtt": importlib.util.find_spec("amqtt") is not None}
    for kind in KINDS:
        if there[kind] and prefer in (None, kind):
            return kind
    raise ConfigError(
        f"no {prefer or 'MQTT'} broker on this machine: install mosquitto, or pip install 'edgeswarm[demo]' for amqtt"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _mosquitto(port: int, folder: Path, extra: Sequence[str], anonymous: bool) -> list[str]:
    binary = find_mosquitto()
    assert binary is not None
    lines = [
        f"listener {port} 127.0.0.1",
        f"allow_anonymous {'true' if anonymous else 'false'}",
        "persistence false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "sys_interval 1",
        # 1,000 by default: past it, messages to a connected subscriber that lags are dropped without a word
        "max_queued_messages 100000",
        "max_queued_bytes 67108864",
        *([] if any(line.startswith("max_packet_size") for line in extra) else ["max_packet_size 262144"]),
        # as root it would change to a user who may not read this folder
        *(["user root"] if os.geteuid() == 0 else []),
        *extra,
    ]
    settings = folder / f"mosquitto-{port}.conf"
    settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [binary, "-c", str(settings)]


def _amqtt(port: int) -> list[str]:
    return [sys.executable, "-m", "edgeswarm.demo.broker", "--amqtt", str(port)]


def _launch(kind: str, port: int, command: list[str], log: Path) -> RunningBroker:
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": path},
            # its own session: Ctrl-C is for the demo, whose agents still want to say goodbye
            start_new_session=True,
            preexec_fn=_dies_with_parent(),
        )
    return RunningBroker(kind, f"mqtt://127.0.0.1:{port}", _version(kind), port, process, log)


def _dies_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    # looked up here, before the fork: the child of a threaded process must not import or allocate much
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent, kill = os.getpid(), int(signal.SIGKILL)

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, kill, 0, 0, 0)
        if os.getppid() != parent:  # it died in between: the signal would never come
            os._exit(1)

    return ask


def _version(kind: str) -> str:
    if kind == "amqtt":
        from importlib.metadata import version

        return version("amqtt")
    said = subprocess.run([str(find_mosquitto()), "-h"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\S+)", said)
    return found.group(1) if found else "unknown"


def _answers(broker: RunningBroker) -> bool:
    """Whether it sends a CONNACK, accepting or not, within the time limit."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and broker.process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", broker.port), 2.0) as probe:
            probe.sendall(_CONNECT)
            if probe.recv(1) == b"\x20":
                return broker.process.poll() is None
        time.sleep(0.02)
    return False


async def _serve_amqtt(port: int) -> None:
    from amqtt.broker import Broker

    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 1000}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--amqtt":
        sys.exit("usage: python -m edgeswarm.demo.broker --amqtt PORT")
    asyncio.run(_serve_amqtt(int(sys.argv[2])))
