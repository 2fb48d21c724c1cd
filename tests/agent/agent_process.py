"""Agents as processes of their own with a configuration file, and what a test wants to know about them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edgeswarm.agent.store import Store
from edgeswarm.demo.processes import AgentProcess, start_agent
from edgeswarm.wire.status import decode_presence

PATIENCE_S = 30.0
"""Most time anything may take on a machine that is busy with other things; nothing is measured with it."""


def wait_for(what: Callable[[], Any], timeout_s: float = PATIENCE_S, say: Callable[[], str] = lambda: "") -> Any:
    """What `what` says once it is true."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if value := what():
            return value
        time.sleep(0.03)
    raise AssertionError(f"it did not happen within {timeout_s:g} s\n{say()}")


def lessons(count: int, d: int = 4, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count, d) samples around one centre per class, and their labels."""
    centres = np.random.default_rng(7).normal(size=(classes, d)) * 4
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=count)
    return (centres[y] + rng.normal(size=(count, d))).astype(np.float32), y


def csv_file(path: Path, count: int = 2000, **more: Any) -> Path:
    x, y = lessons(count, **more)
    lines = [",".join(f"x{at}" for at in range(x.shape[1])) + ",label"]
    lines += [",".join(f"{v:.4f}" for v in row) + f",{label}" for row, label in zip(x, y, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def npz_file(path: Path, count: int = 2000, **more: Any) -> Path:
    x, y = lessons(count, **more)
    np.savez(path, x=x, y=y)
    return path


class Node:
    """One agent: its folder, its configuration, and at most one process at a time."""

    def __init__(self, folder: Path, url: str, name: str = "a", site: str = "home", **sections: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.site = folder, name, site
        self.sections: dict[str, dict[str, Any]] = {
            "broker": {"url": url},
            "state": {"folder": str(folder / "state"), "every_s": 1},
            "report": {"every_s": 0.2},
            "strategy": {"period_s": 0.2},
        }
        for section, values in sections.items():
            self.sections[section] = {**self.sections.get(section, {}), **values}
        self.agent: AgentProcess | None = None

    @property
    def state(self) -> Path:
        return Path(self.sections["state"]["folder"])

    def write(self) -> Path:
        """The configuration as a file."""
        lines = [f'node = "{self.name}"', f'site = "{self.site}"']
        for section, values in self.sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        config = self.folder / f"{self.name}.toml"
        config.write_text("\n".join(lines) + "\n")
        return config

    def start(self) -> Node:
        self.agent = start_agent(self.name, self.write())
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self.agent is not None
        return self.agent.process

    @property
    def log(self) -> str:
        return "" if self.agent is None else self.agent.log.read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        """What this process last said; {} before it has."""
        with contextlib.suppress(OSError, ValueError):
            said: dict[str, Any] = json.loads((self.state / "status.json").read_text())
            if said["pid"] == self.process.pid:
                return said
        return {}

    def note(self, name: str) -> float:
        return float(self.status().get("notes", {}).get(name, 0.0))

    def wait(self, what: Callable[[dict[str, Any]], Any], timeout_s: float = PATIENCE_S) -> Any:
        """What `what(status)` says once it is true; the agent must live meanwhile."""

        def look() -> Any:
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.log}"
            status = self.status()
            return status and what(status)

        return wait_for(look, timeout_s, lambda: f"{json.dumps(self.status(), indent=1)}\n{self.log}")

    def wait_samples(self, more_than: float = 0) -> float:
        return float(self.wait(lambda s: s["notes"].get("samples", 0) > more_than and s["notes"]["samples"]))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, number: int = signal.SIGTERM, timeout_s: float = PATIENCE_S) -> int:
        """Exit code after this signal."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def exit_code(self) -> int:
        """Exit code of a process that ends by itself."""
        return self.process.wait(PATIENCE_S)

    def saved(self) -> dict[str, Any]:
        return Store(self.state).load() or {}

    def saved_epoch(self) -> int:
        """The boot epoch that the newest state on disk was written in."""
        store = Store(self.state)
        store.load()
        assert store.loaded is not None
        return store.loaded.epoch

    def close(self) -> None:
        if self.agent is not None and self.process.poll() is None:
            self.kill()


class Stranger:
    """A plain MQTT client: publishes anything, sees everything at a site (and what else it is told)."""

    def __init__(self, port: int, *filters: str) -> None:
        self.seen: list[tuple[str, bytes, bool]] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_message = lambda client, data, m: self.seen.append((m.topic, m.payload, m.retain))
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        wait_for(self.client.is_connected)
        for name in filters:
            self.client.subscribe(name, 1)

    def say(self, topic: str, payload: Any, retain: bool = False) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.client.publish(topic, data, 1, retain).wait_for_publish(PATIENCE_S)

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for name, payload, _ in list(self.seen) if name == topic]

    def wait_presence(self, site: str, node: str, state: str) -> Any:
        """The newest presence of `node`, once it says `state`."""
        topic = f"edgeswarm/v1/{site}/{node}/state"

        def look() -> Any:
            said = [decode_presence(node, payload) for payload in self.payloads(topic)[-1:] if payload]
            return said and said[0].state == state and said[0]

        return wait_for(look, say=lambda: str(self.payloads(topic)[-3:]))

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small file system in memory at `folder`. Raises OSError where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        raise OSError(made.stderr.decode(errors="replace").strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def resident_bytes(pid: int) -> int:
    with Path(f"/proc/{pid}/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
