"""`edgeswarm doctor`: is everything this node needs in order, and if not, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeswarm.cli import options, output
from edgeswarm.errors import EXIT_CHECK_FAILED

if TYPE_CHECKING:
    from edgeswarm.agent.config import Config
    from edgeswarm.cli.checks import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": None}


@click.command()
@options.config
@click.option(
    "--root",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/"),
    help="Look at a copy of a board's files instead of /.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="Longest wait for each answer of a broker.",
)
@options.as_json
@options.common
@click.pass_context
def command(ctx: click.Context, config_file: Path | None, root: Path, timeout_s: float, json_wanted: bool) -> None:
    """Check this machine, its config and its broker, and say what to fix.

    Each check has a stable name and is ok, warn, fail or skip (does not apply here). Nothing is changed. Ends with 6
    when a check fails.
    """
    findings = []
    for finding in examine(config_file, root, timeout_s):
        findings.append(finding)
        if not json_wanted:
            print_finding(finding)  # at once: a check of the network may take seconds
    counts = {status: sum(f.status == status for f in findings) for status in _COLOURS}
    if json_wanted:
        output.emit({
            "ok": not counts["fail"],
            "counts": counts,
            "checks": [
                {"name": f.name, "status": f.status, "text": f.text, "todo": f.todo, "facts": f.facts} for f in findings
            ],
        })  # fmt: skip
    else:
        click.echo()
        click.echo(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed, {counts['skip']} skipped")
    ctx.exit(EXIT_CHECK_FAILED if counts["fail"] else 0)


def print_finding(finding: Finding) -> None:
    """One line, and one more with what to do."""
    status = click.style(f"{finding.status:<4}", fg=_COLOURS[finding.status], dim=finding.status == "skip")
    click.echo(f"{status}  {finding.name:<15}  {finding.text}")
    if finding.todo:
        click.echo(f"{'':<4}  {'':<15}  -> {finding.todo}")


def examine(config_file: Path | None, root: Path, timeout_s: float) -> Iterator[Finding]:
    """Every check in turn. NumPy's comes before anything that imports it: a bad wheel would end this process."""
    from edgeswarm.cli.checks import FAIL, SKIP, Finding, compute, look, machine, software

    yield from look("python", software.python)
    yield from look("board", lambda: machine.board(root))
    for name, check in (
        ("memory", machine.memory),
        ("cgroup-memory", machine.cgroup_memory),
        ("temperature", lambda root: machine.temperature(root, compute.chosen(None, root)[0].thermal)),
        ("throttling", machine.throttling),
        ("clock", machine.clock),
    ):
        yield from look(name, lambda check=check: check(root))  # type: ignore[misc]
    yield from look("open-files", software.open_files)
    probed = software.numpy()
    yield probed
    if probed.status == FAIL:
        yield Finding("config", SKIP, "not read: that needs numpy")
        return

    from edgeswarm.cli.checks import files, sharing

    found, config = files.config(config_file)
    yield found
    yield from look("profile", lambda: compute.profile(config, root))
    yield from look("memory-budget", lambda: compute.memory_budget(config, root))
    yield from look("backend", lambda: compute.backend(config, root))
    yield from look("extras", lambda: software.extras(config))
    if config is None:
        yield Finding("broker", SKIP, "not tried: there is no usable config")
        return
    yield from look("source", lambda: files.source(config))
    for section in ("model", "encoder"):
        yield from look(f"{section}-file", lambda section=section: compute.model_file(config, section, root))  # type: ignore[misc]
    yield from look("graph", lambda: sharing.graph(config))
    yield from look("public-set", lambda: sharing.public_set(config))
    yield from look("method", lambda: sharing.method(config))
    yield from look("labels", lambda: sharing.labels(config))
    folder = Path(config.state.folder)
    yield from look("state-folder", lambda: files.state_folder(folder, root))
    yield from look("broker", lambda: _broker(config, folder, timeout_s))


def _broker(config: Config, folder: Path, timeout_s: float) -> list[Finding]:
    import asyncio

    from edgeswarm.cli.checks import broker, files, sharing

    has_identity = bool(config.broker.cert or config.broker.username)
    running = files.lock_holder(folder) is not None
    if has_identity and running:
        return broker.running_agent(folder)
    output.say(f"asking {', '.join(config.broker.url)} (at most {timeout_s:g} s for each answer)")
    return asyncio.run(broker.check_all(options.mqtt_settings(config), timeout_s, running, sharing.channels(config)))
