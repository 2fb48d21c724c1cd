"""`edgeswarm simulate`: a swarm in virtual time, on this machine, as a file describes it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm.agent.settings import BACKENDS
from edgeswarm.cli import options, output
from edgeswarm.readable import counted

if TYPE_CHECKING:
    from edgeswarm.sim.outcome import Outcome
    from edgeswarm.sim.replay import Comparison
    from edgeswarm.sim.scenario import Scenario

EXIT_INTERRUPTED = 130


def scenario_options(function: options.F) -> options.F:
    """`--config` and `--set`, passed on as `config_file` and `settings`."""
    for option in reversed((
        click.option("--config", "config_file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
                     help="The swarm: swarm.toml. Without it: eight devices and handwritten digits."),
        click.option("--set", "settings", metavar="KEY=VALUE", multiple=True,
                     help="Set a key otherwise: --set strategy.rate=0.05. May be given again."),
    )):  # fmt: skip
        function = option(function)
    return function


def backend_option(function: options.F) -> options.F:
    """`--backend`, passed on as `backend`."""
    return click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True,
                        help="Who does the arithmetic.")(function)  # fmt: skip


@click.command()
@scenario_options
@click.option("--folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
              help="Keep checkpoints, report.md, report.json and pictures there.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --folder.")
@click.option("--replay", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Play what `edgeswarm record` saw of a real run, and compare.")  # fmt: skip
@click.option("--example", is_flag=True, help="Print a commented swarm.toml to begin with, and end.")
@backend_option
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, settings: tuple[str, ...], folder: Path | None, resume: bool,
    replay: Path | None, example: bool, backend: str, json_wanted: bool,
) -> None:  # fmt: skip
    """Play a swarm in virtual time: the very agents, methods and bytes of real devices, hours in seconds.

    FILE says how many devices, what each has to learn from, the method, who hears whom, and what goes wrong
    (`edgeswarm simulate --example > swarm.toml`). Every run with one seed is the same. Ctrl-C keeps a checkpoint in
    --folder, and --resume goes on from there, after a power cut too.
    """
    if example:
        click.echo(example_file(), nl=False)
        return
    if resume and folder is None:
        raise click.UsageError("--resume needs --folder DIR: the run to go on with")
    from edgeswarm.errors import StateError
    from edgeswarm.sim.report import title
    from edgeswarm.sim.run import Paused, run
    from edgeswarm.sim.screen import open_screen

    scenario = _scenario(config_file, settings, folder, resume, whole=replay is None)
    recording = arranged = None
    if replay is not None:
        from edgeswarm.sim.recording import read
        from edgeswarm.sim.replay import arrange, fitted

        recording = read(replay)
        scenario = fitted(scenario, recording)
        arranged = arrange(recording)
    screen = None
    try:
        with asked_to_stop() as asked:
            screen = open_screen(f"edgeswarm simulate: {_words(scenario)}", colourless=ctx.color is False,
                                 quiet=bool(ctx.meta.get(options.QUIET)))  # fmt: skip
            outcome = run(scenario, screen.show, folder if resume else None, folder=folder, backend=backend,
                          pause=lambda: bool(asked), arranged=arranged, warn=output.say)  # fmt: skip
    except Paused as paused:
        if screen is not None:
            screen.close()
        if paused.kept_s is None:
            kept = "nothing is kept" + ("" if folder else "; with --folder DIR it could be gone on with")
        else:
            since = "" if paused.kept_s == paused.at_s else f"what is kept is that of {paused.kept_s:.0f} s; "
            kept = f"{since}go on with: edgeswarm simulate --folder {folder} --resume"
        output.say(f"stopped at {paused.at_s:.0f} of {scenario.swarm.duration_s:.0f} s; {kept}")
        ctx.exit(EXIT_INTERRUPTED)
    finally:
        if screen is not None:
            screen.close()
    compared = None
    if recording is not None:
        from edgeswarm.sim.replay import compare

        compared = compare(recording, outcome)
    written: list[Path] = []
    unwritten: StateError | None = None
    try:
        written = _written(outcome, folder)
    except StateError as error:  # what was simulated is shown all the same
        unwritten = error
    if json_wanted:
        data = outcome.plain() | {"files": [str(path) for path in written]}
        replayed = {} if compared is None else {"replay": compared.plain(), "not_recorded_s": compared.unseen_s}
        output.emit(data | replayed)
    else:
        click.secho(title(outcome), bold=True)
        _print(outcome, written)
        if compared is not None:
            _print_comparison(compared)
    if unwritten is not None:
        raise unwritten


def parsed(settings: Sequence[str]) -> dict[str, str]:
    """ "key=value" each. Raises UsageError."""
    found = {}
    for text in settings:
        key, mark, value = text.partition("=")
        if not mark or not key.strip():
            raise click.UsageError(f"--set takes KEY=VALUE, as strategy.rate=0.05, not {text!r}")
        found[key.strip()] = value.strip()
    return found


def _scenario(
    config_file: Path | None, settings: Sequence[str], folder: Path | None, resume: bool, whole: bool
) -> Scenario:
    from edgeswarm.errors import ConfigError
    from edgeswarm.sim.run import kept_scenario
    from edgeswarm.sim.scenario import load

    kept = kept_scenario(folder) if folder is not None else None
    if resume and kept is None:
        raise ConfigError(f"{folder}: holds no checkpoint to go on from; leave --resume out to begin")
    if kept is not None and not resume:
        raise ConfigError(f"{folder}: holds a run already; go on with it by --resume, or take another folder")
    if kept is not None and config_file is None:
        if settings:
            raise click.UsageError("--resume goes on with the run as it is: leave --set out, or give its --config, too")
        return kept
    return load(config_file, parsed(settings), whole=whole)


def _words(scenario: Scenario) -> str:
    data, devices = scenario.data, counted(scenario.swarm.nodes, "device")
    return f"{scenario.strategy.name} on {Path(data.path).name or data.name}, {devices}"


@contextlib.contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that gets an entry at the first Ctrl-C (or SIGTERM), which is answered in a line; the second one ends the
    program at once."""
    asked: list[int] = []
    ctx = click.get_current_context(silent=True)
    quiet = ctx is not None and bool(ctx.meta.get(options.QUIET))

    def heard(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        if not quiet:  # straight to the descriptor: sys.stderr may be in the middle of a line
            with contextlib.suppress(OSError):
                os.write(2, b"\n" * os.isatty(2) + b"stopping; once more ends it at once\n")

    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _written(outcome: Outcome, folder: Path | None) -> list[Path]:
    from edgeswarm.sim.canvas import NoPicture
    from edgeswarm.sim.report import write
    from edgeswarm.sim.report_picture import draw

    if folder is None:
        return []
    written = write(outcome, folder)
    try:
        return written + draw(outcome, folder)
    except NoPicture as error:
        output.say(str(error))
        return write(outcome, folder, pictures=())


def _print(outcome: Outcome, written: Sequence[Path]) -> None:
    from edgeswarm.sim.report import HEADS, RIGHT, headlines, left_out, rows

    output.pairs(headlines(outcome))
    for note in outcome.notes:
        click.echo(f"note: {note}")
    click.echo()
    output.table(HEADS, rows(outcome), RIGHT)
    if left_out(outcome):
        click.echo(left_out(outcome))
    if written:
        click.echo(f"\n{written[1]}, and {', '.join(path.name for path in written if path != written[1])}")


def _print_comparison(compared: Comparison) -> None:
    click.echo()
    click.secho("recorded and replayed", bold=True)
    output.table(compared.HEADS, compared.rows(), compared.RIGHT)
    for line in compared.sentences():
        click.echo(line)


_EXAMPLE: dict[str, Any] = {
    "swarm.nodes": 8, "swarm.seed": 1, "swarm.duration_s": 600.0,
    "data.name": "digits", "data.split": "dirichlet", "data.alpha": 0.3,
    "graph.kind": "ring",
    "network.delay_s": (0.02, 0.2), "network.loss": 0.02,
    "report.every_s": 30.0,
}  # fmt: skip
_EXAMPLE_STRATEGY: dict[str, Any] = {"name": "d_psgd", "period_s": 10.0, "rate": 0.05}
_EXAMPLE_END = """
# Boards: what their arithmetic takes is estimated from the firmware profiles. Without this section it takes no time.
[boards]
pi-4 = 0.75
pi-zero-2w = 0.25

# What happens meanwhile. kind: partition, heal, crash, revive, leave, join, broker_restart or sleep. nodes: names or
# patterns ("n1*"). for_s: how long; without it, until another event ends it.
[[event]]
at_s = 200
kind = "crash"
nodes = ["n2"]
for_s = 60

[[event]]
at_s = 300
kind = "partition"
nodes = ["n1", "n2", "n3"]
for_s = 120
"""


def example_file() -> str:
    """A swarm.toml that `load` accepts, every key in it explained."""
    from edgeswarm.agent.config import SET_BY_THE_AGENT
    from edgeswarm.agent.fields import settings_of
    from edgeswarm.cli.config import setting_lines
    from edgeswarm.sim.scenario import BY_SECTION
    from edgeswarm.strategies import STRATEGIES

    lines = [
        "# A swarm for `edgeswarm simulate --config swarm.toml`. What is commented out has its built-in value.",
        "# docs/simulator.md says what is modelled and what is not.",
    ]
    for section, settings in BY_SECTION.items():
        lines += ["", f"[{section}]"]
        known = dict(settings)
        if section == "strategy":
            known |= {name: setting for name, setting in settings_of(STRATEGIES[_EXAMPLE_STRATEGY["name"]]).items()
                      if name not in SET_BY_THE_AGENT}  # fmt: skip
        for name, setting in known.items():
            given = _EXAMPLE_STRATEGY.get(name) if section == "strategy" else _EXAMPLE.get(f"{section}.{name}")
            lines += setting_lines(name, setting, given)
    return "\n".join(lines) + "\n" + _EXAMPLE_END
