from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))

from cli_world import Run, need_mosquitto

from edgeswarm.cli import group
from edgeswarm.demo.broker import RunningBroker, start_broker


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Type a command line in an empty folder, without this machine's settings; `code` is what it must end with."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)

    def typed(*words: str, code: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(group, list(words), prog_name="edgeswarm", input=input)
        assert result.exit_code == code, f"ended with {result.exit_code}, not {code}:\n{result.output}{result.stderr}"
        return result

    return typed


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """As `run`, with --json: the object on stdout."""

    def typed(*words: str, **more: Any) -> Any:
        return json.loads(run(*words, "--json", **more).stdout)

    return typed


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A real Mosquitto on loopback."""
    need_mosquitto()
    with start_broker("mosquitto", tmp_path_factory.mktemp("mosquitto")) as running:
        yield running
