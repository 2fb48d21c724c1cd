"""`edgeswarm model`: build, look at, check, train and shrink model files. One verb, one file beside this one."""

from __future__ import annotations

import click

from edgeswarm.cli import groups, options

VERBS = {
    "build": "Make a model file, on a workstation with torch.",
    "show": "What a model file holds, and what it costs where.",
    "check": "Recompute a model's reference values on this board.",
    "train": "Train a model file on local data, without torch.",
    "quantise": "Make an int8 encoder, if it is as good.",
}
"""Verb to its one line of help, in the order in which they are used. `cli/model/<verb>.py` holds it as `command`."""


class Verbs(groups.Lazy):
    """The verbs of `edgeswarm model`."""

    package = "edgeswarm.cli.model"
    verbs = VERBS


@click.group(name="model", cls=Verbs, subcommand_metavar="VERB [ARGS]...")
@options.common
def command() -> None:
    """Make, look at, check, train and shrink model files.

    A model file holds graphs, a start vector and reference values; any board reads it, with or without torch. It is
    a zip archive when its name ends in .esm, and a folder otherwise. docs/models.md tells more.
    """
