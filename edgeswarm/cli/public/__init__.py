"""`edgeswarm public`: make and show public sets. One verb, one file beside this one."""

from __future__ import annotations

import click

from edgeswarm.cli import groups, options

VERBS = {
    "make": "Choose samples that every board shall have.",
    "show": "What a public set holds, and what it costs to teach by it.",
}
"""Verb to its one line of help, in the order in which they are used. `cli/public/<verb>.py` holds it as `command`."""


class Verbs(groups.Lazy):
    """The verbs of `edgeswarm public`."""

    package = "edgeswarm.cli.public"
    verbs = VERBS


@click.group(name="public", cls=Verbs, subcommand_metavar="VERB [ARGS]...")
@options.common
def command() -> None:
    """Make and show public sets: samples without labels that every board of a swarm has.

    Boards that teach one another by predictions (multi_headed_distillation, fedmd, prototype_distillation) speak of
    these samples by their place, so all need the very same file, named as [public] path. Its hash tells sets apart.
    """
