"""Every error edgeswarm raises on purpose, and what the caller does about it.

EdgeswarmError
├── ConfigError      the operator can fix it: one line, exit code 2, no traceback
├── DataError        a file or stream of samples cannot be used: one line, exit code 2
├── ModelError       a model file, or rows given to a model, cannot be used here: one line, exit code 2
│   └── NotFinite    a loss, or what came of it, is no number any more
├── OutOfMemory      this board cannot hold what a step needs: nothing changed, one line, exit code 75
├── StateError       the state folder cannot be read or written: report, keep learning
├── WireError        a peer sent bytes we refuse: drop, count, carry on
├── TransportError   the link is down or the broker refused us: keep learning alone, try again later
└── TooManyDimensions  an estimator was asked for more dimensions than it can honour

Anything else that escapes is a bug of ours and should be loud.
"""

from __future__ import annotations

EXIT_USAGE = 2
EXIT_NOT_CONNECTED = 3
EXIT_REFUSED = 4
EXIT_TIMED_OUT = 5
EXIT_CHECK_FAILED = 6
EXIT_TRY_LATER = 75


class EdgeswarmError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(EdgeswarmError):
    """A setting is wrong. The text names the place, the setting and the nearest right one."""

    exit_code = EXIT_USAGE


class DataError(EdgeswarmError):
    """A file of samples cannot be used. The text names the file and the line or array."""

    exit_code = EXIT_USAGE


class ModelError(EdgeswarmError):
    """A model file cannot be used on this board, or rows do not fit it. The text names file, member and remedy."""

    exit_code = EXIT_USAGE


class NotFinite(ModelError):
    """A loss or what came of it is no number any more: the rate is too high, or the samples are not finite."""


class OutOfMemory(EdgeswarmError):
    """A step needs more memory than there is; whoever asked still has what it had before."""

    exit_code = EXIT_TRY_LATER


class StateError(EdgeswarmError):
    """The state folder cannot be read or written."""

    exit_code = EXIT_TRY_LATER


class WireError(EdgeswarmError):
    """Bytes from a peer that we refuse. `reason` is one of a fixed, countable set of words."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason


class TransportError(EdgeswarmError):
    """The broker cannot be reached or refused us; `exit_code` says which."""

    exit_code = EXIT_NOT_CONNECTED

    def __init__(self, text: str, exit_code: int = EXIT_NOT_CONNECTED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class TooManyDimensions(EdgeswarmError):
    """An estimator was asked for more dimensions than it can honour."""

    exit_code = EXIT_USAGE
