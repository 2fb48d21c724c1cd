"""Exit codes, and what an error looks like: one place decides, whatever the verb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_world import Run
from click.testing import CliRunner

from edgeswarm import errors
from edgeswarm.cli import group, status

ROOT = Path(__file__).resolve().parents[2]

RAISED = [
    (errors.EdgeswarmError("something else"), 1),
    (errors.ConfigError("a.toml:3: unknown key"), 2),
    (errors.DataError("a.csv:7: not a number"), 2),
    (errors.TransportError("no broker"), 3),
    (errors.TransportError("bad password", errors.EXIT_REFUSED), 4),
    (errors.TransportError("silence", errors.EXIT_TIMED_OUT), 5),
    (errors.StateError("disk full"), 75),
    (KeyboardInterrupt(), 130),
    (click.Abort(), 130),
    (BrokenPipeError(), 141),
]


@pytest.mark.parametrize(("error", "code"), RAISED, ids=[f"{type(error).__name__}-{code}" for error, code in RAISED])
def test_exit_codes(error: BaseException, code: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(status, "read_status", fail)
    result = run("status", "--state", "anywhere", code=code)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if isinstance(error, errors.EdgeswarmError):
        assert result.stderr == f"edgeswarm: {error}\n"


def test_errors_say_which_codes_they_end_with() -> None:
    fixed = {"USAGE": 2, "NOT_CONNECTED": 3, "REFUSED": 4, "TIMED_OUT": 5, "CHECK_FAILED": 6, "TRY_LATER": 75}
    assert {name: getattr(errors, f"EXIT_{name}") for name in fixed} == fixed


def test_a_bug_is_loud_and_called_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(status, "read_status", fail)
    result = run("status", "--state", "anywhere", code=1)
    assert "ZeroDivisionError: oh" in result.stderr
    assert "this is a bug in edgeswarm" in result.stderr


def test_errors_are_red_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise errors.StateError("no")

    monkeypatch.setattr(status, "read_status", fail)
    words = ["status", "--state", "anywhere"]
    assert "\x1b[31m" in CliRunner().invoke(group, words, color=True).stderr
    assert "\x1b" not in CliRunner().invoke(group, words).stderr
    for plain in (["--no-color", *words], [*words, "--no-color"]):
        assert "\x1b" not in CliRunner().invoke(group, plain, color=True).stderr
    for variable, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        assert "\x1b" not in CliRunner(env={variable: value}).invoke(group, words, color=True).stderr


def test_a_wrong_verb_names_the_nearest(run: Run) -> None:
    assert "there is no verb 'statu'; did you mean 'status'?" in run("statu", code=2).stderr
    assert "there is no verb 'chek'; did you mean 'check'?" in run("config", "chek", code=2).stderr
    assert "the verbs are demo, simulate, " in run("xyzzy", code=2).stderr


def test_a_wrong_option_is_a_usage_error(run: Run) -> None:
    assert "--stat" in run("status", "--stat", "x", code=2).stderr


def test_no_verb_prints_the_help(run: Run) -> None:
    result = run(code=2)
    assert "Verbs:" in result.output


def test_version(run: Run) -> None:
    from edgeswarm import __version__

    for flag in ("-V", "--version"):
        assert run(flag).stdout.startswith(f"edgeswarm {__version__}, Python 3.")


def test_state_and_config_exclude_one_another(run: Run) -> None:
    assert "not both" in run("status", "--state", "a", "--config", "b", code=2).stderr


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    """`edgeswarm ... | head`: nothing on stderr, and the code a shell gives to SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgeswarm", "completion", "bash"],
            stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=environ,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [("graph", "ring", "--json"), ("graph", "full", "--nodes", "120", "--json")])
def test_a_full_disk_behind_the_output_is_said_in_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgeswarm", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["edgeswarm: what this prints cannot be written: No space left on device"]
