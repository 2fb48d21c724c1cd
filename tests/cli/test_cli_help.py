"""Help is there for everything, costs nothing, and the page made from it is current."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgeswarm.agent.ledger import Ledger
from edgeswarm.agent.status_file import write_status
from edgeswarm.cli import VERBS, group
from edgeswarm.decision import Decision

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "paho", "msgpack", "asyncio", "sklearn", "torch", "onnxruntime", "onnx", "matplotlib", "rich",
         "scipy", "PIL")  # fmt: skip


def commands(
    command: click.Command = group, path: tuple[str, ...] = (), parent: click.Context | None = None
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every verb by its path. What a command inherits from its parents (`-h`) is settled with its first context."""
    ctx = click.Context(command, parent=parent, info_name=path[-1] if path else "edgeswarm", **command.context_settings)
    command.get_params(ctx)
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from commands(inner, (*path, name), ctx)


ALL = list(commands())
NAMED = pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) or "edgeswarm" for path, _ in ALL])


@NAMED
def test_every_verb_and_option_has_help(path: tuple[str, ...], command: click.Command) -> None:
    assert command.help and command.help.split("\n\n")[0].strip().endswith(".")
    for parameter in command.get_params(click.Context(command)):
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)} {parameter.opts[0]} has no help"


@NAMED
def test_every_verb_answers_to_help_and_knows_the_common_options(path: tuple[str, ...], command: click.Command) -> None:
    for flag in ("-h", "--help"):
        result = CliRunner().invoke(group, [*path, flag], prog_name="edgeswarm")
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage: edgeswarm")
    names = {name for parameter in command.get_params(click.Context(command)) for name in parameter.opts}
    assert {"--help", "--quiet", "--no-color"} <= names


@NAMED
def test_every_verb_that_reports_can_report_json(path: tuple[str, ...], command: click.Command) -> None:
    silent = {(), ("run",), ("demo",), ("model",), ("public",), ("profiles",), ("config",), ("config", "init"),
              ("completion",)}  # fmt: skip
    names = {name for parameter in command.params for name in parameter.opts}
    assert ("--json" in names) or path in silent


def imported_by(*words: str) -> set[str]:
    """Heavy modules that a fresh interpreter has imported after this command line."""
    program = (
        "import sys\n"
        "from edgeswarm.cli import main\n"
        f"sys.argv = ['edgeswarm', *{list(words)!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('heavy:', *[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "words", [("--help",), ("--version",), *((*path, "--help") for path, _ in ALL if path)], ids=" ".join
)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    assert imported_by(*words) == set()


@pytest.mark.parametrize("verb", ["status", "why"])
def test_a_look_at_the_own_agent_imports_nothing_heavy(verb: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(Decision(1.0, "share", "sent", "first"))
    assert ledger.flush()
    write_status(tmp_path, {"pid": os.getpid(), "at_unix": time.time(), "link": {"up": True}})
    config = tmp_path / "agent.toml"
    config.write_text(f'node = "n"\n[strategy]\nname = "d_psgd"\nrate = 0.1\n[state]\nfolder = "{tmp_path}"\n')
    assert imported_by(verb, "--config", str(config)) == set()


def test_the_group_help_loads_no_verb() -> None:
    program = (
        "import sys\nfrom edgeswarm.cli import main\nsys.argv = ['edgeswarm', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*[name for name in sys.modules if name.startswith('edgeswarm.cli.')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    loaded = done.stdout.splitlines()[-1].split()
    assert set(loaded) == {"edgeswarm.cli.groups", "edgeswarm.cli.options", "edgeswarm.cli.output"}


def test_verbs_are_listed_in_help_in_their_order() -> None:
    text = CliRunner().invoke(group, ["--help"], prog_name="edgeswarm").stdout
    places = [text.index(f"\n  {verb} ") for verb in VERBS]
    assert places == sorted(places)
    assert list(VERBS) == [
        "demo", "simulate", "record", "compare", "sweep", "run", "status", "peers", "why", "predict", "model",
        "public", "graph", "plan", "doctor", "profiles", "config", "completion",
    ]  # fmt: skip


def test_no_help_line_is_wider_than_a_terminal() -> None:
    for path, _ in ALL:
        for line in (
            CliRunner().invoke(group, [*path, "--help"], prog_name="edgeswarm", terminal_width=80).stdout.splitlines()
        ):
            assert len(line) <= 100, line


def test_what_help_writes_again_because_its_origin_is_heavy_is_the_same() -> None:
    from edgeswarm import messages
    from edgeswarm.cli import compare, graph, plan
    from edgeswarm.sim import methods, scenario

    assert graph.SCHEMES == messages.VECTOR_SCHEMES and compare.SPLITS == scenario.SPLITS
    assert tuple(methods.GOALS) == plan.GOALS


def test_the_page_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "cli-docs", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_verb_stands_in_the_page() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for path, command in ALL:
        assert f"# {' '.join(['edgeswarm', *path])}\n" in page
        for parameter in command.get_params(click.Context(command)):
            if isinstance(parameter, click.Option):
                assert all(f"`{name}`" in page for name in parameter.opts)
