"""What the verbs of `edgeswarm model` share: this board's profile and limits, a model file read under them, a backend.

Imported for every `--help` of theirs, so the options come first and everything of weight is inside functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeswarm.cli import output

if TYPE_CHECKING:
    from edgeswarm.agent.profile import Budget, Profile
    from edgeswarm.backends.base import Backend
    from edgeswarm.models.file import Model
    from edgeswarm.models.limits import Limits

F = TypeVar("F", bound=Callable[..., Any])

BACKENDS = ("auto", "onnx", "torch", "reference", "onnx-cuda", "onnx-tensorrt", "torch-cuda")
"""`auto`, and every name of `backends.choose.NAMES`, which cannot be imported for a help text; a test compares."""


@dataclass(frozen=True, eq=False)
class Here:
    """This board as the agent would see it. why: it has this profile.  limits: of model files."""

    profile: Profile
    why: str
    budget: Budget
    limits: Limits


def file_argument(function: F) -> F:
    """The model file, passed on as `file` (a Path; a file or a folder)."""
    return click.argument("file", metavar="FILE", type=click.Path(path_type=Path))(function)


def backend(function: F) -> F:
    """`--backend NAME`, passed on as `backend_name`."""
    return click.option(
        "--backend", "backend_name", type=click.Choice(BACKENDS), default="auto", show_default=True,
        help="Who does the arithmetic. auto: what the profile prefers and this board can run.",
    )(function)  # fmt: skip


def profile(function: F) -> F:
    """`--profile NAME`, passed on as `profile_name`."""
    return click.option(
        "--profile", "profile_name", metavar="PROFILE", default="auto", show_default=True,
        help="Firmware profile whose limits and preferences hold, by name or .toml file. auto: this board's.",
    )(function)  # fmt: skip


def out(help_text: str) -> Callable[[F], F]:
    """`-o FILE`, required, passed on as `out_file` (a Path)."""

    def decorated(function: F) -> F:
        return click.option(
            "-o", "--out", "out_file", metavar="FILE", required=True, type=click.Path(path_type=Path),
            help=f"{help_text} A name ending in .esm makes one archive, any other a folder.",
        )(function)  # fmt: skip

    return decorated


def here(profile_name: str) -> Here:
    """Raises ConfigError: no such profile."""
    from edgeswarm.agent.board import board
    from edgeswarm.agent.profile import budget, choose
    from edgeswarm.models.limits import Limits

    chosen, why = choose(profile_name)
    allowance = budget(chosen, board())
    limits = Limits(file_bytes=allowance.max_model_bytes, parameters=allowance.max_params)
    return Here(chosen, why, allowance, limits)


def load(file: Path, limits: Limits) -> Model:
    """The model file, read within `limits` and with operators that boards run. Raises ModelError."""
    from edgeswarm.backends.operators import OPERATORS
    from edgeswarm.models.file import read

    return read(file, limits, OPERATORS)


def start_backend(place: Here, wanted: str) -> tuple[Backend, list[str]]:
    """The backend and why it is that one, a line for each that was looked at. Raises ConfigError."""
    from edgeswarm.backends.choose import choose

    runtime = place.profile.runtime
    for name, value in runtime.env.items():
        os.environ.setdefault(name, value)
    cache = probe_cache()
    return choose(runtime.backends, wanted, threads=place.budget.threads, arena=runtime.memory_arena, cache=cache)


def probe_cache() -> Path | None:
    """Where it is kept which backends work, so that only the first verb tries them; None without a home."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "edgeswarm"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder / "backends.json"


def say_backend(chosen: Backend, reasons: list[str], place: Here) -> None:
    """Which backend and which profile, on stderr; what was passed over and why, too."""
    for reason in reasons[:-1]:
        output.say(f"not used: {reason}")
    last = reasons[-1] if reasons else chosen.name
    output.say(f"backend {last}; profile {place.profile.id} ({place.why})")
