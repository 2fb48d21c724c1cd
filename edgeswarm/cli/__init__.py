"""The command line. One verb, one file: this one lists the verbs and turns exceptions into exit codes.

A verb's module is imported when the verb is used, and reaches for anything heavy (NumPy, MQTT) inside its function:
`--help` answers at once on the slowest board.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from edgeswarm.cli import groups, options, output
from edgeswarm.errors import EXIT_TRY_LATER, EdgeswarmError

VERBS = {
    "demo": "Five agents teach each other over MQTT, live.",
    "simulate": "A swarm in virtual time, as a file describes it.",
    "record": "Write down what a running swarm does, to play it again.",
    "compare": "All methods on your data, at equal bytes and time.",
    "sweep": "Many simulations: methods, settings, seeds, in parallel.",
    "run": "Learn on this device and share with the others.",
    "status": "How the agent on this device is doing.",
    "peers": "Every node at the site, as the broker knows them.",
    "why": "What was sent, held back or muted, with the numbers.",
    "predict": "Name the class of samples with what was learnt.",
    "model": "Build, check, train and shrink model files.",
    "public": "Make and show public sets, for methods that teach.",
    "graph": "Draw who hears whom; say what it means for a method.",
    "plan": "Which method for a site, with reasons and figures.",
    "doctor": "Check machine, config and broker; say what to fix.",
    "profiles": "The classes of boards, and which this one is.",
    "config": "Show, check or begin a config file.",
    "completion": "Script that completes verbs and options in a shell.",
}
"""Verb to its one line of help, in the order a newcomer meets them. `cli/<verb>.py` holds it as `command`."""

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_EPILOG = """\b
Exit codes: 0 fine, 1 error, 2 wrong usage or config, 3 not connected, 4 refused,
5 timed out, 6 a check failed, 75 try again later, 130 interrupted.
"""


class Verbs(groups.Lazy):
    """All verbs, and what becomes of an error."""

    package = "edgeswarm.cli"
    verbs = VERBS

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb. The one place where an exception becomes a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException):
            raise
        except (KeyboardInterrupt, click.Abort):
            code = EXIT_INTERRUPTED
        except BrokenPipeError:
            _close_stdout()
            code = EXIT_BROKEN_PIPE
        except EdgeswarmError as error:
            output.error(str(error))
            code = error.exit_code
        except MemoryError:
            output.error("out of memory: free some, or ask for less at once")
            code = EXIT_TRY_LATER
        except Exception as error:
            code = 1
            if _of_output(error):
                reason = getattr(error, "strerror", None) or error
                output.error(f"what this prints cannot be written: {reason}")
                _close_stdout()
            else:
                _report_bug()
        raise click.exceptions.Exit(code)


def _of_output(error: Exception) -> bool:
    """Whether printing failed: a full disk behind stdout, not a file of the verb's own."""
    import traceback

    frames = traceback.walk_tb(error.__traceback__)
    return isinstance(error, OSError) and any(frame.f_code is click.echo.__code__ for frame, _ in frames)


def _close_stdout() -> None:
    """The reader (`head`, a pager) has gone, or its disk is full: the interpreter's last flush shall go nowhere
    instead of complaining."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # stdout is no real file (a test's buffer): nothing to keep quiet


def _report_bug() -> None:
    import traceback

    traceback.print_exc()
    output.error("this is a bug in edgeswarm, not in what you did; please report it with the lines above")


@click.group(cls=Verbs, context_settings=options.CONTEXT, epilog=_EPILOG, subcommand_metavar="VERB [ARGS]...")
@click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=options.print_version,
    help="Show the version and exit.",
)  # fmt: skip
@options.common
def group() -> None:
    """Devices that learn together over MQTT, with no central server."""


def main() -> None:
    """Entry point of `edgeswarm`; ends the process with the exit code."""
    group(prog_name="edgeswarm")
