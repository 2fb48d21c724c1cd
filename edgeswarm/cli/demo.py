"""`edgeswarm demo`: some agents teach each other over MQTT, live in this terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeswarm.cli import options, output

if TYPE_CHECKING:
    from edgeswarm.demo.screen import Screen
    from edgeswarm.demo.swarm import Outcome

PICTURE = Path("edgeswarm-demo") / "swarm.png"


@click.command(short_help="Five agents teach each other over MQTT, live in this terminal.")
@click.option(
    "--agents", type=click.IntRange(2, 12), default=5, show_default=True, help="How many agents, each a process."
)
@click.option(
    "--data",
    metavar="FILE.csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Learn from this table instead of the built-in digits.",
)
@click.option("--label", metavar="COLUMN", default="", help="The column of --data that holds the class.")
@click.option(
    "--broker",
    metavar="URL",
    default="",
    help="A running broker (mqtt://host), or mosquitto or amqtt to start that one.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=7,
    show_default=True,
    help="Deals the samples out; another seed, other shares.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(5.0, 600.0),
    default=25.0,
    show_default=True,
    help="How long each agent's stream of samples lasts.",
)
@click.option(
    "--picture",
    metavar="FILE.png",
    type=click.Path(dir_okay=False, path_type=Path),
    default=PICTURE,
    show_default=True,
    help="Where the picture goes.",
)
@click.option("--no-picture", is_flag=True, help="Draw none.")
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context, agents: int, data: Path | None, label: str, broker: str, seed: int, seconds: float,
    picture: Path, no_picture: bool, json_wanted: bool,
) -> None:  # fmt: skip
    """Five agents teach each other over MQTT, live in this terminal.

    Starts a private broker on this machine and the agents as processes. Each learns from a skewed share of a data
    set: mostly two kinds of handwritten digits, say. The table shows what each would know alone, what it knows with
    the others' help, and what that cost. Ctrl-C ends everything at any moment.
    """
    if (data is None) != (not label):
        raise click.UsageError("--data FILE.csv and --label COLUMN go together")

    from edgeswarm.demo.processes import Interrupts
    from edgeswarm.demo.summary import as_json, in_words
    from edgeswarm.demo.swarm import Wish, run

    quiet = ctx.meta.get(options.QUIET, False)
    screen = _screen(json_wanted, quiet, ctx.color is False)
    with Interrupts() as interrupts:
        screen.say("Reading the data, starting a broker and the agents ...")
        try:
            outcome = run(Wish(agents, seconds, seed, broker, data, label), screen, interrupts)
        except KeyboardInterrupt:
            screen.say("Stopped. Nothing is left running.")
            raise
        screen.say("")
        for line in in_words(outcome.summary):
            screen.say(line)
        drawn = None
        if not no_picture:
            with interrupts.at_once():
                drawn = _draw(outcome, picture, screen)
    if json_wanted:
        output.emit(
            {
                "broker": outcome.broker,
                "data": {
                    "name": outcome.data.name,
                    "features": len(outcome.data.features),
                    "classes": list(outcome.data.classes),
                    "notes": list(outcome.data.notes),
                },
                "seed": seed,
                "wall_s": round(outcome.wall_s, 3),
                "events": outcome.view.events,
                "picture": None if drawn is None else str(drawn),
                **as_json(outcome.history, outcome.summary),
            }
        )


def _screen(json_wanted: bool, quiet: bool, colourless: bool) -> Screen:
    import sys

    from edgeswarm.demo.screen import PlainScreen, open_screen

    if json_wanted:
        return PlainScreen(None if quiet else sys.stderr)
    return open_screen(colourless=colourless)


def _draw(outcome: Outcome, path: Path, screen: Screen) -> Path | None:
    from edgeswarm.demo.picture import NoPicture, save_picture

    try:
        drawn = save_picture(outcome.history, outcome.summary, f"edgeswarm demo: {outcome.view.title}", path)
    except NoPicture as error:
        screen.say(str(error))
        return None
    screen.say(f"Picture: {drawn}")
    return drawn
