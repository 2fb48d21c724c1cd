"""What a board imports: nothing that only a laptop has, and for help nothing heavy at all."""

from __future__ import annotations

import subprocess
import sys

import pytest

LAPTOP_ONLY = ("sklearn", "scipy", "torch", "matplotlib", "rich", "amqtt", "PIL", "onnxruntime", "river", "pandas")


def loaded_by(*modules: str) -> set[str]:
    """Top-level packages in memory after importing `modules` in a fresh interpreter."""
    lines = [f"import {module}" for module in modules]
    script = "\n".join([*lines, "import sys", "print(*{name.split('.')[0] for name in sys.modules})"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "edgeswarm.strategies",
        "edgeswarm.strategies.checks",
        "edgeswarm.backends.sets",
        "edgeswarm.agent.agent",
        "edgeswarm.agent.service",
        "edgeswarm.transport.mqtt",
        "edgeswarm.sim.world",
        "edgeswarm.cli.run",
    ],
)
def test_a_board_needs_none_of_a_laptops_packages(module: str) -> None:
    assert not loaded_by(module) & set(LAPTOP_ONLY)


def test_a_strategy_brings_no_network() -> None:
    assert not loaded_by("edgeswarm.strategies") & {"paho", "asyncio", "click"}


def test_the_messages_bring_numpy_alone() -> None:
    assert not loaded_by("edgeswarm.messages") & {"msgpack", "paho", "click"}
