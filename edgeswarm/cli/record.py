"""`edgeswarm record`: what a running swarm does, as its broker sees it, in a file that a simulation can play again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeswarm import readable
from edgeswarm.cli import options, output
from edgeswarm.cli.simulate import EXIT_INTERRUPTED, asked_to_stop

if TYPE_CHECKING:
    from edgeswarm.sim.recording import Recorder
    from edgeswarm.transport.settings import MqttSettings


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@options.config
@click.option("--broker", metavar="URL", help="Ask this broker instead of the config's.")
@click.option("--site", metavar="NAME", help="The site to record.  [default: the config's]")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="End after so long. Without it: at Ctrl-C.")
@click.option("--limit-mb", type=click.FloatRange(min=0.01), default=100.0, show_default=True,
              help="End when the file has grown to that.")  # fmt: skip
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context, file: Path, config_file: Path | None, broker: str | None, site: str | None,
    seconds: float | None, limit_mb: float, json_wanted: bool,
) -> None:  # fmt: skip
    """Record the running swarm of a site into FILE, for `edgeswarm simulate --replay FILE`.

    Presences, status reports, and of every message its time, kind and size are written down; what it says is not. The
    observer needs the right to read all topics of the site, and sends nothing. How exactly latencies and ages are
    known depends on how often nodes report ([report] every_s).
    """
    with asked_to_stop() as asked:  # before anything that takes time: a slow board loads modules for seconds
        import asyncio
        import dataclasses

        from edgeswarm.sim.recording import Recorder, open_file

        config = options.load_config(config_file, {"broker.url": broker, "site": site})
        if not config.broker.url:
            raise click.UsageError("which broker? Give --broker mqtt://host, or --config FILE")
        settings = dataclasses.replace(options.mqtt_settings(config), node="")
        with open_file(file) as out:
            recorder = Recorder(out, config.site, int(limit_mb * 1e6))
            try:
                length_s = asyncio.run(_record(settings, config.site, recorder, seconds, asked))
            finally:
                if not recorder.connected:  # never connected: there is nothing to keep, and the name is free again
                    file.unlink(missing_ok=True)
    if length_s is None:
        output.say("stopped before the broker was reached; nothing is kept")
        ctx.exit(EXIT_INTERRUPTED)
    full = f"; stopped at the limit of {limit_mb:g} MB" if recorder.full else ""
    lost = f"; {readable.span(recorder.unseen_s)} of it without the broker, not recorded" if recorder.losses else ""
    if json_wanted:
        output.emit({"file": str(file), "length_s": round(length_s, 3), "nodes": sorted(recorder.nodes),
                     "lines": recorder.lines, "full": recorder.full, "losses": recorder.losses,
                     "not_recorded_s": round(recorder.unseen_s, 3)})  # fmt: skip
    else:
        output.say(
            f"{file}: {recorder.lines:,} lines about {len(recorder.nodes)} nodes in {length_s:.0f} s{lost}{full}"
        )


async def _record(
    settings: MqttSettings, site: str, recorder: Recorder, seconds: float | None, asked: list[int]
) -> float | None:
    """Until somebody asks to stop, time is over or the file is full; how long it was, None if it never began.

    Raises TransportError: the broker refused, or was not reached.
    """
    import asyncio
    import random

    from edgeswarm.sim.recording import Watching
    from edgeswarm.transport.mqtt import MqttTransport
    from edgeswarm.wire.topics import ROOT

    loop = asyncio.get_running_loop()
    began = loop.time()
    recording = False

    def changed(up: bool) -> None:
        if not recording:
            return
        losses = recorder.losses
        recorder.link(loop.time() - began, up)
        if recorder.losses > losses:
            output.say("the broker is away; what happens until it is back is not recorded")
        elif up and losses:
            output.say("the broker is back")

    transport = MqttTransport(settings, Watching(changed), random.Random())
    transport.subscribe_raw(
        f"{ROOT}/{site}/#", 1, lambda topic, payload, kept: recorder.take(loop.time() - began, topic, payload, kept)
    )
    running = asyncio.ensure_future(transport.run())
    connecting = asyncio.ensure_future(transport.wait_up(10.0))
    length_s = None
    try:
        while not connecting.done():
            if asked:
                return None
            await asyncio.wait([connecting], timeout=0.05)
        await connecting
        recording = recorder.connected = True
        output.say(f"recording site {site}; Ctrl-C ends it")
        while not asked and not recorder.full and (seconds is None or loop.time() - began < seconds):
            await asyncio.sleep(0.05)
        length_s = loop.time() - began
    finally:
        recording = False
        recorder.end(loop.time() - began)
        await transport.stop()
        connecting.cancel()
        running.cancel()
        await asyncio.wait([running, connecting])
    return length_s
