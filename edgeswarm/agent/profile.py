"""Firmware profiles: what a class of boards can do, and which class this board belongs to.

A profile is data: one TOML file per class of boards in `firmware_profiles/` (in an installed package: `_profiles/`).
It says what to prefer and how much to take; what really imports and how much memory there really is, is found out at
the start (`backends.choose`, `board`), and the smaller number wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from edgeswarm.agent.board import Board
from edgeswarm.agent.board import board as facts_of
from edgeswarm.agent.names import did_you_mean
from edgeswarm.agent.profile_file import in_range, read
from edgeswarm.agent.profile_tables import Profile, Thermal
from edgeswarm.errors import ConfigError

if TYPE_CHECKING:
    from edgeswarm.models.cost import Speed
    from edgeswarm.models.limits import Limits

__all__ = [
    "Board",
    "Budget",
    "Profile",
    "Thermal",
    "budget",
    "choose",
    "detect",
    "load_profile",
    "model_limits",
    "profiles",
    "speed",
]

AUTO = "auto"
GENERIC = "generic-"
_MEGA = 1_000_000
_TRAINING_BYTES_PER_PARAM = 32
"""Start vector, parameters, gradient and two moments of an optimiser, and copies while they change: eight float32."""
_MODEL_FILES_IN_MEMORY = 4
"""A model file is read, unpacked, checked, and its graphs are held by the runtime once more."""
_PROCESS_BYTES = 75_000_000
"""A Python process with NumPy and onnxruntime around a tiny model (measured on x86-64)."""
_CALL_S_AT_1_GFLOPS = 2e-4
"""Calling a runtime takes Python's time, which shrinks with the processor's speed like everything else."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What the agent may take on this very board.

    memory_bytes: of the whole process, None where nothing is known.  memory_reason: which limit that is.  enforced:
    whether the kernel would stop us at a limit; None without control groups.  batch, threads: of training.
    """

    threads: int
    batch: int
    memory_bytes: int | None
    memory_reason: str
    enforced: bool | None
    max_params: int
    max_model_bytes: int
    max_step_s: float


def folder() -> Path:
    """Where the profiles stand: in the installed package, or in a checkout beside it."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "firmware_profiles"


@lru_cache(maxsize=1)
def profiles() -> tuple[Profile, ...]:
    """All that ship with the package, by id. Raises ConfigError if one of them cannot be used."""
    found = tuple(read(path) for path in sorted(folder().glob("*.toml")))
    if not found:
        raise ConfigError(f"no firmware profiles in {folder()}: reinstall edgeswarm")
    return found


def load_profile(name: str | Path) -> Profile:
    """The profile with that id, or the one in that file (a path: it ends in .toml). Raises ConfigError, one line."""
    if str(name).endswith(".toml"):
        return read(Path(name))
    by_id = {profile.id: profile for profile in profiles()}
    if str(name) not in by_id:
        raise ConfigError(f"no firmware profile is called {str(name)!r}{did_you_mean(str(name), by_id)}")
    return by_id[str(name)]


def choose(name: str = AUTO, root: Path = Path("/")) -> tuple[Profile, str]:
    """The profile that is asked for ("auto": what fits this board) and why it is that one.

    Raises ConfigError: no such profile, or one that cannot be used.
    """
    if name in ("", AUTO):
        return detect(root)
    return load_profile(name), "asked for by name"


def detect(root: Path = Path("/"), machine: str | None = None) -> tuple[Profile, str]:
    """The profile that fits the board whose files stand below `root`, and why, in one clause.

    The device tree names a board from the most to the least special, so the earliest name that a profile knows
    decides; among profiles that know the same one, the one that asks for more. No match: the generic one of the
    processor's architecture.
    """
    board = facts_of(root, machine)
    found: list[tuple[int, int, str, Profile]] = []
    near: list[str] = []
    for profile in profiles():
        rank = _rank(profile, board)
        if rank is None:
            continue
        misfit = _misfit(profile, board)
        if misfit:
            near.append(f"it would be {profile.id}, but {misfit}")
            continue
        match = profile.match
        asks = sum(bool(part) for part in (match.model, match.l4t, match.os))
        found.append((rank, -asks, profile.id, profile))
    if found:
        rank, _, _, profile = min(found, key=lambda each: each[:3])
        return profile, f"the device tree says {board.compatible[rank]}"
    wanted = GENERIC + board.machine
    by_id = {profile.id: profile for profile in profiles()}
    if wanted in by_id:
        plain = f"no profile knows {board.model or board.compatible[0]}" if board.compatible else "no device tree"
        return by_id[wanted], f"{near[0] if near else plain}; {board.machine}"
    return by_id[GENERIC + "aarch64"], f"no profile for {board.machine}: the smallest generic one"


def _rank(profile: Profile, board: Board) -> int | None:
    """Position of the first name of the board's device tree that the profile knows."""
    for position, entry in enumerate(board.compatible):
        if any(fnmatchcase(entry, known) for known in profile.match.compatible):
            return position
    return None


def _misfit(profile: Profile, board: Board) -> str:
    """Why the profile is not for this board although it knows its name; "" if it is."""
    match = profile.match
    if board.machine != profile.cpu.arch:
        return f"this system is {board.machine}"
    if match.model and not fnmatchcase(board.model, match.model):
        return f"the model is {board.model!r}"
    if board.l4t and match.l4t and not in_range(board.l4t, match.l4t):
        return f"L4T {'.'.join(map(str, board.l4t))} is not {match.l4t}"
    if board.ram_bytes is not None and board.ram_bytes < profile.memory.ram_mb_min * _MEGA:
        return f"that has at least {profile.memory.ram_mb_min:,} MB of memory"
    name, version = board.os
    if match.os and name and not {name, f"{name} {version}"} & set(match.os):
        return f"the system is {name} {version}".rstrip()
    lacking = sorted(set(profile.cpu.features_required) - board.features) if board.features else []
    return f"the processor lacks {', '.join(lacking)}" if lacking else ""


def budget(profile: Profile, board: Board) -> Budget:
    """The profile's figures, cut down to what this board has: a model with less memory, a unit with a lower limit."""
    limits: list[tuple[int, str]] = []
    if profile.memory.memory_max_mb:
        limits.append((profile.memory.memory_max_mb * _MEGA, f"memory_max_mb of {profile.id}"))
    if board.ram_bytes is not None:
        share = profile.memory.memory_max_share
        limits.append((int(board.ram_bytes * share), f"{share:.0%} of this board's memory"))
    if board.cgroup_limit_bytes is not None:
        limits.append((board.cgroup_limit_bytes, "the memory limit of this process's control group"))
    memory_bytes, reason = min(limits) if limits else (None, "nothing is known about the memory")
    training = profile.training
    return Budget(
        threads=max(1, min(training.threads, board.cores)),
        batch=training.batch,
        memory_bytes=memory_bytes,
        memory_reason=reason,
        enforced=board.limit_enforced,
        max_params=_cut(training.max_params, memory_bytes, _TRAINING_BYTES_PER_PARAM),
        max_model_bytes=_cut(training.max_model_bytes, memory_bytes, _MODEL_FILES_IN_MEMORY),
        max_step_s=training.max_step_s,
    )


def _cut(most: int, memory_bytes: int | None, cost: int) -> int:
    return most if memory_bytes is None else max(1, min(most, memory_bytes // cost))


def model_limits(profile: Profile, found: Board | None = None) -> Limits:
    """How large a model file may be on boards of this class, with `found` on this very one: for `models.file.read`."""
    from edgeswarm.models.limits import Limits  # not at the top: to say what a board is needs no models

    if found is None:
        return Limits(file_bytes=profile.training.max_model_bytes, parameters=profile.training.max_params)
    cut = budget(profile, found)
    return Limits(file_bytes=cut.max_model_bytes, parameters=cut.max_params)


def speed(profile: Profile) -> Speed:
    """How fast boards of this class compute with one thread, as `models.cost` wants it; estimates."""
    from edgeswarm.models.cost import Speed  # as above

    gflops = profile.speed.gflops_float32_estimate
    bytes_per_s = profile.speed.memory_mb_s_estimate * _MEGA
    return Speed(gflops * 1e9, bytes_per_s, _CALL_S_AT_1_GFLOPS / gflops, _PROCESS_BYTES)
