"""What a firmware profile says of one class of boards, table by table. `firmware_profiles/README.md` explains each key.

Every file has every key, so a default here would only hide an omission: there is none. Empty text, an empty list and 0
mean "does not apply".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1
"""Version of the tables. A profile of another one is refused: its keys may mean something else."""

BACKENDS = ("torch-cuda", "onnx-tensorrt", "onnx-cuda", "onnx", "torch", "reference")
"""Names of `backends.choose`, which also imports what it finds; a profile is data only, so they stand here again."""
ARCHITECTURES = ("aarch64", "x86_64")


def _key(**checks: Any) -> Any:
    """A field with checks as `fields` reads them: low, high, choices, unit."""
    return field(metadata=checks)


@dataclass(frozen=True, slots=True)
class Match:
    """[match]: which boards are meant. Entries of the device tree may hold * for any text; most specific first."""

    compatible: tuple[str, ...]
    model: str
    l4t: str
    os: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cpu:
    """[cpu]: the processor. features_required: words of the Features line without which wheels of this class crash."""

    arch: str = _key(choices=ARCHITECTURES)
    isa: str = _key()
    cores: int = _key(low=1, high=1024)
    clock_mhz: int = _key(low=1, high=10_000, unit="MHz")
    features_required: tuple[str, ...] = _key()


@dataclass(frozen=True, slots=True)
class Memory:
    """[memory]: what the agent may take: the smaller of memory_max_mb (0: no such limit) and a share of the RAM."""

    ram_mb_min: int = _key(low=64, unit="MB")
    memory_max_mb: int = _key(low=0, unit="MB")
    memory_max_share: float = _key(low=0.05, high=1.0)
    swap: str = _key(choices=("zram", "file", "zram+file", "none", "any"))
    cgroup_flag_needed: bool = _key()


@dataclass(frozen=True, slots=True)
class System:
    """[os]: the operating systems this profile is meant for. python: versions that may run the agent there."""

    release: tuple[str, ...]
    python: tuple[str, ...]
    manylinux: str
    systemd: int = _key(low=0)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """[accelerator]: what computes beside the processor. kind "none": nothing this software uses."""

    kind: str = _key(choices=("none", "cuda"))
    sm: str = _key()
    cuda: str = _key()
    cudnn: str = _key()
    tensorrt: str = _key()
    groups: tuple[str, ...] = _key()
    devices: tuple[str, ...] = _key()


@dataclass(frozen=True, slots=True)
class Runtime:
    """[runtime]: how models are computed. backends in order of preference: the first that works here is taken.

    env: variables of the service, set before Python starts; the numerical libraries read them once.
    """

    backends: tuple[str, ...] = _key(choices=BACKENDS)
    memory_arena: bool = _key()
    env: Mapping[str, str] = _key()


@dataclass(frozen=True, slots=True)
class Wheels:
    """[wheels]: where packages come from, and which never to install here."""

    index: str
    lock: str
    never: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Power:
    """[power]: mode by its name (numbers differ between boards)."""

    mode: str
    fanless: bool


@dataclass(frozen=True, slots=True)
class Thermal:
    """[thermal]: when training pauses. Margins are degrees below the lowest trip point of a zone.

    zones: types of zones to heed, with * for any text; empty: all.  limit_c: where the board slows itself down, if its
    trip points do not say so earlier.
    """

    zones: tuple[str, ...] = _key()
    read: str = _key()
    pause_margin_c: float = _key(low=0.0, high=50.0, unit="°C")
    resume_margin_c: float = _key(low=0.0, high=60.0, unit="°C")
    limit_c: float = _key(low=40.0, high=125.0, unit="°C")
    poll_s: float = _key(low=0.1, high=60.0, unit="s")
    throttle_source: str = _key()


@dataclass(frozen=True, slots=True)
class Storage:
    """[storage]: what writes cost here."""

    kind: str = _key(choices=("sd", "emmc", "nvme", "any"))
    journal: str = _key(choices=("volatile", "persistent", "any"))
    state_every_s: float = _key(low=1.0, unit="s")
    tmpdir: str = _key()


@dataclass(frozen=True, slots=True)
class Watchdog:
    """[watchdog]: of the machine (runtime_s; 0: leave alone) and of the service."""

    device: str = _key()
    runtime_s: int = _key(low=0, unit="s")
    service_s: int = _key(low=0, unit="s")


@dataclass(frozen=True, slots=True)
class Clock:
    """[clock]: whether the date survives a power cut, and how long a start may wait for the right one."""

    rtc: bool = _key()
    wait_for_sync_s: int = _key(low=0, unit="s")


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits]: of the service unit. cpu_quota_percent: 100 is one core; 0: no quota."""

    cpu_quota_percent: int = _key(low=0)
    nice: int = _key(low=-20, high=19)
    io_class: str = _key(choices=("idle", "best-effort", "realtime", "none"))


@dataclass(frozen=True, slots=True)
class Mqtt:
    """[mqtt]: sizes of what travels and waits."""

    chunk_bytes: int = _key(low=1_024, high=268_000_000, unit="bytes")
    receive_maximum: int = _key(low=1, high=65_535)
    inflight: int = _key(low=1, high=65_535)
    queue_messages: int = _key(low=1)
    queue_bytes: int = _key(low=1_024, unit="bytes")
    keepalive_s: int = _key(low=5, high=3_600, unit="s")


@dataclass(frozen=True, slots=True)
class Training:
    """[training]: the largest model a peer may hand to this board, and how it is trained."""

    max_params: int = _key(low=1)
    max_model_bytes: int = _key(low=1_024, unit="bytes")
    batch: int = _key(low=1, high=4_096)
    threads: int = _key(low=1, high=256)
    max_step_s: float = _key(low=0.01, unit="s")


@dataclass(frozen=True, slots=True)
class Speed:
    """[speed]: estimates for `edgeswarm model show`: sustained in training steps, one thread. derivation: how they
    were arrived at.  verified: date and board of a measurement; empty: none was made.
    """

    gflops_float32_estimate: float = _key(low=0.001)
    memory_mb_s_estimate: int = _key(low=1, unit="MB/s")
    accelerator_gflops_float32_estimate: float = _key(low=0.0)
    derivation: str = _key()
    verified: str = _key()


@dataclass(frozen=True)
class Profile:
    """One class of boards. tier: 1 learns and hands models on, 2 does so within small budgets, 3 prototypes only.

    verified: date and by what it was tried on a real board; empty: it was not.  hash: sha256 (hex) of the file.
    """

    id: str
    title: str
    tier: int
    verified: str
    match: Match
    cpu: Cpu
    memory: Memory
    os: System
    accelerator: Accelerator
    runtime: Runtime
    wheels: Wheels
    power: Power
    thermal: Thermal
    storage: Storage
    watchdog: Watchdog
    clock: Clock
    limits: Limits
    mqtt: Mqtt
    training: Training
    speed: Speed
    hash: str = ""


TABLES: Mapping[str, type] = {
    "match": Match, "cpu": Cpu, "memory": Memory, "os": System, "accelerator": Accelerator, "runtime": Runtime,
    "wheels": Wheels, "power": Power, "thermal": Thermal, "storage": Storage, "watchdog": Watchdog, "clock": Clock,
    "limits": Limits, "mqtt": Mqtt, "training": Training, "speed": Speed,
}  # fmt: skip
"""Tables of a profile file, by name, in the order of the files. What the rollout alone reads: see the README there."""
