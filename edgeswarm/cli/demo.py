"""`edgeswarm demo`: some agents teach each other over MQTT, live in this terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeswarm.cli import options, output

if TYPE_CHECKING:
    from edgeswarm.demo.screen import Screen
    from edgeswarm.demo.swarm import Outcome, Wish

PICTURE = Path("edgeswarm-demo") / "swarm.png"


@click.command(short_help="Five agents teach each other over MQTT, live in this terminal.")
@click.option(
    "--agents", type=click.IntRange(2, 12), default=5, show_default=True, help="How many agents, each a process."
)
@click.option(
    "--images", is_flag=True, help="Learn images through an encoder: MNIST (fetched once), or those of --data FILE.npz."
)
@click.option(
    "--data",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Learn from this table (CSV), or with --images from this archive, instead.",
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
    ctx: click.Context, agents: int, images: bool, data: Path | None, label: str, broker: str, seed: int,
    seconds: float, picture: Path, no_picture: bool, json_wanted: bool,
) -> None:  # fmt: skip
    """Five agents teach each other over MQTT, live in this terminal.

    Starts a private broker on this machine and the agents as processes. Each learns from a skewed share of a data
    set: mostly two kinds of handwritten digits, say. The table shows what each would know alone, what it knows with
    the others' help, and what that cost. Ctrl-C ends everything at any moment.

    With --images the devices see pictures, and learn what a small neural network makes of them: it is trained first,
    on images that no device sees. A second picture then shows accuracy against bytes.
    """
    if images and label:
        raise click.UsageError("--images takes labels from the archive itself; leave --label out")
    if not images and (data is None) != (not label):
        raise click.UsageError("--data FILE.csv and --label COLUMN go together")

    from edgeswarm.demo.processes import Interrupts
    from edgeswarm.demo.summary import as_json, in_words
    from edgeswarm.demo.swarm import Wish, run

    quiet = ctx.meta.get(options.QUIET, False)
    screen = _screen(json_wanted, quiet, ctx.color is False)
    with Interrupts() as interrupts:
        screen.say("Reading the data, starting a broker and the agents ...")
        try:
            outcome = run(Wish(agents, seconds, seed, broker, data, label, images), screen, interrupts)
        except KeyboardInterrupt:
            screen.say("Stopped. Nothing is left running.")
            raise
        screen.say("")
        for line in in_words(outcome.summary):
            screen.say(line)
        drawn = against_bytes = None
        if not no_picture:
            with interrupts.at_once():
                drawn = _draw(outcome, picture, screen)
                against_bytes = _draw_bytes(outcome, Wish(length_s=seconds, seed=seed), picture, screen)
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
                "encoder": None if outcome.encoder is None else outcome.encoder.as_json(),
                "picture": None if drawn is None else str(drawn),
                "picture_bytes": None if against_bytes is None else str(against_bytes),
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
    from edgeswarm.demo.picture import save_picture
    from edgeswarm.sim.canvas import NoPicture

    try:
        drawn = save_picture(outcome.history, outcome.summary, f"edgeswarm demo: {outcome.view.title}", path)
    except NoPicture as error:
        screen.say(str(error))
        return None
    screen.say(f"Picture: {drawn}")
    return drawn


def _draw_bytes(outcome: Outcome, wish: Wish, path: Path, screen: Screen) -> Path | None:
    """The picture of accuracy against bytes, which a demo with images has too."""
    if outcome.encoder is None:
        return None

    from edgeswarm.demo.beside import compare
    from edgeswarm.demo.bytes_picture import live_curve, save_bytes_picture
    from edgeswarm.sim.canvas import NoPicture

    live = live_curve(
        outcome.history, f"swarm through an encoder of {outcome.encoder.model.card.embedding} numbers, measured"
    )
    if live is None:
        return None
    screen.say("For the second picture, simulating what raw pixels would have cost and gained ...")
    try:
        drawn = save_bytes_picture(
            live,
            compare(outcome, wish),
            f"What a device recognises, and what it costs: {outcome.view.title}",
            path.with_name(f"{path.stem}-bytes{path.suffix}"),
        )
    except NoPicture as error:
        screen.say(str(error))
        return None
    screen.say(f"Picture: {drawn}")
    return drawn
