#!/usr/bin/env python3
"""What does an agent cost: memory when idle, time until the command line answers, and how many messages per second?

It informs whether an agent fits beside other work on a board with 512 MB, and whether codec and agent, not the network,
are the limit of a busy site.

memory:   `edgeswarm run` with an MQTT sensor as source, connected to Mosquitto on loopback; read when it has been quiet
          for some seconds, from /proc/PID/smaps_rollup. "idle": just started. "knowing": it has learnt 600 samples and
          holds the sets of four peers, 250 prototypes each, for 8 and for 64 features. PSS counts a page that n
          processes share as 1/n of it; this script imports no NumPy while it measures, so nothing of its own makes the
          figure smaller, but other Python programs on the machine do. RSS is what PSS is when nothing is shared.
          `unmapped`: PSS without files, which no sharing can make smaller. The limit is held against PSS, idle.
help:     wall and CPU time of `edgeswarm --help` in a new interpreter, beside `python -c pass`, in turns; medians.
messages: see throughput.py. The limit is held against the ratio of messages per second.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

from edgeswarm.demo.broker import start_broker  # noqa: E402

MOST_IDLE_MIB = 45.0
MOST_HELP_S = 0.3
LEAST_RATIO = 0.6

PEERS, HELD, SAMPLES = 4, 250, 600
CLASSES = ("empty", "occupied")
_PATIENCE_S = 30.0


def environment() -> dict[str, str]:
    """For a child: finds this checkout; thread counts as on a device where nobody has set any."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}


# ---- memory ----------------------------------------------------------------------------------------------------------


def smaps(pid: int) -> dict[str, float]:
    """MiB of a process: pss, rss, and unmapped (PSS of memory that is no file's)."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, kib = line.split()[:2]
        fields[name.rstrip(":")] = int(kib) / 1024
    return {"pss_mib": fields["Pss"], "rss_mib": fields["Rss"], "unmapped_mib": fields["Pss_Anon"]}


def features_of(d: int) -> tuple[str, ...]:
    return tuple(f"f{i}" for i in range(d))


def idle(d: int, knowing: bool, quiet_s: float, folder: Path) -> dict[str, float]:
    """Memory of an agent with d features, fresh or knowing, after `quiet_s` seconds without work."""
    folder.mkdir()
    with start_broker("mosquitto", folder / "broker") as broker:
        settings = {
            "node": "agent",
            "site": "bench",
            "task": "bench",
            "broker": {"url": broker.url},
            "source": {"kind": "mqtt", "topic": "bench/readings", "features": features_of(d), "classes": CLASSES},
            "state": {"folder": str(folder / "state")},
            "report": {"every_s": 1.0},
        }
        (folder / "agent.toml").write_text(toml(settings))
        log = (folder / "agent.log").open("wb")
        command = [sys.executable, "-m", "edgeswarm", "run", "--config", str(folder / "agent.toml")]
        agent = subprocess.Popen(command, env=environment(), stderr=log)
        try:
            status = folder / "state" / "status.json"
            wait(status, lambda said: said["link"]["up"], agent)
            if knowing:
                teacher = multiprocessing.get_context("spawn").Process(target=teach, args=(broker.url, d))
                teacher.start()
                teacher.join(_PATIENCE_S)
                if teacher.exitcode:
                    raise RuntimeError("the peers could not be simulated")
                wait(status, knows, agent)
            time.sleep(quiet_s)
            return smaps(agent.pid)
        finally:
            agent.terminate()
            agent.wait(_PATIENCE_S)
            log.close()


def knows(said: dict[str, Any]) -> bool:
    """Whether a status tells that everything `teach` has to say has arrived."""
    held = [link.get("prototypes") for link in said["links"].values()]
    return said["notes"].get("samples") == SAMPLES and held.count(HELD) == PEERS


def wait(status: Path, wanted: Any, agent: subprocess.Popen[bytes]) -> None:
    """Until the agent's status.json says what is wanted."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until and agent.poll() is None:
        if status.exists() and wanted(json.loads(status.read_text())):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the agent did not get ready; see {status.parent.parent / 'agent.log'}")


def toml(tree: dict[str, Any]) -> str:
    """A flat TOML text: JSON's strings, numbers and lists are TOML's too."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for section, inner in tree.items():
        if isinstance(inner, dict):
            plain += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in inner.items())]
    return "\n".join(plain) + "\n"


def teach(url: str, d: int) -> None:
    """In a process of its own: four peers each publish a whole set, and a sensor labelled readings."""
    import asyncio
    import random

    import numpy as np
    from throughput import Ear

    from edgeswarm.agent.sources import Schema
    from edgeswarm.maths.quantise import pack
    from edgeswarm.messages import EVERYONE, SNAPSHOT, Presence, Prototypes
    from edgeswarm.transport.mqtt import MqttTransport
    from edgeswarm.transport.settings import MqttSettings

    rng = np.random.default_rng(0)
    schema = Schema("bench", features_of(d)).fingerprint

    def whole_set() -> Prototypes:
        return Prototypes(
            schema=schema,
            epoch=1,
            version=1,
            base=SNAPSHOT,
            classes=CLASSES,
            ids=np.arange(HELD, dtype=np.uint32),
            vectors=pack(rng.random((HELD, d)).astype(np.float32), "int8"),
            labels=rng.integers(0, 2, HELD).astype(np.uint16),
            counts=np.ones(HELD, np.float32),
        )

    async def speak() -> None:
        for number in range(PEERS):
            name = f"peer-{number}"
            settings = MqttSettings((url,), "bench", name, "bench")
            transport = MqttTransport(settings, Ear(), random.Random(number))
            transport.announce(Presence(name, "ready", 1, name))
            async with transport:
                await transport.wait_up(10.0)
                transport.send(EVERYONE, whole_set())
                for reading in rng.random((SAMPLES // PEERS, d)):
                    label = CLASSES[int(reading[0] + reading[1] > 1.0)]
                    payload = json.dumps({"features": reading.round(4).tolist(), "label": label}).encode()
                    transport.publish_raw("bench/readings", payload, 1)

    asyncio.run(speak())


# ---- the command line ------------------------------------------------------------------------------------------------


def timed(command: Sequence[str], env: dict[str, str]) -> tuple[float, float]:
    """(wall, CPU) seconds of one run of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - clock
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def help_time(repeats: int) -> dict[str, float]:
    """Medians over `repeats` runs of each command, in turns; one run of each before that does not count."""
    env = environment()
    commands = {"help": [sys.executable, "-m", "edgeswarm", "--help"], "pass": [sys.executable, "-c", "pass"]}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(repeats + 1):
        for name, command in commands.items():
            spent = timed(command, env)
            if turn:
                times[name].append(spent)
    figures = {}
    for name, spent in times.items():
        figures[f"{name}_wall_s"], figures[f"{name}_cpu_s"] = (
            statistics.median(column) for column in zip(*spent, strict=True)
        )
    return figures


# ---- all of it -------------------------------------------------------------------------------------------------------


def shortfalls(figures: dict[str, float]) -> list[str]:
    """One line for each figure that misses what is promised."""
    missed = []
    for name, most in (("idle_pss_mib", MOST_IDLE_MIB), ("help_wall_s", MOST_HELP_S)):
        if figures[name] > most:
            missed.append(f"{name} is {figures[name]:.4g}, above {most:g}")
    if figures["ratio_messages"] < LEAST_RATIO:
        missed.append(f"ratio_messages is {figures['ratio_messages']:.3f}, below {LEAST_RATIO:g}")
    return missed


def main() -> int:
    from report import end
    from report import parser as options_of

    parser = options_of(__doc__, "fewer repeats")
    options = parser.parse_args()

    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [("idle", 8, False), ("knowing_8", 8, True), ("knowing_64", 64, True)]
        for case, d, knowing in cases:
            quiet_s = 3.0 if options.quick else 10.0
            figures |= {f"{case}_{k}": v for k, v in idle(d, knowing, quiet_s, folder / case).items()}
        figures |= help_time(7 if options.quick else 21)
        from throughput import side_by_side  # NumPy comes in here, after memory has been measured

        repeats, count = (5, 1500) if options.quick else (11, 5000)
        figures |= side_by_side(repeats, count, folder / "throughput")

    def show() -> None:
        limits = {
            "idle_pss_mib": f"at most {MOST_IDLE_MIB:g}",
            "help_wall_s": f"at most {MOST_HELP_S:g}",
            "ratio_messages": f"at least {LEAST_RATIO:g}",
        }
        for name, value in figures.items():
            print(f"  {name:32} {value:12.4g}  {limits.get(name, '')}".rstrip())

    return end(options, figures, shortfalls(figures), show)


if __name__ == "__main__":
    sys.exit(main())
