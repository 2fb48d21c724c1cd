"""Words to the service manager: ready, alive, stopping. Silent where there is none (see sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


def notify(word: str, environ: Mapping[str, str] | None = None) -> None:
    """Send one datagram such as READY=1 to $NOTIFY_SOCKET; nothing happens where it is not set or nobody listens.

    Never waits: a manager that does not empty its socket costs the word, not the event loop.
    """
    path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    # ValueError, UnicodeError: a path that is none, such as one with a zero byte in it
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(word.encode(), address)


def watchdog_s(environ: Mapping[str, str] | None = None) -> float | None:
    """Seconds between signs of life: half of what the unit's WatchdogSec allows, or None without one."""
    environ = os.environ if environ is None else environ
    allowed = environ.get("WATCHDOG_USEC", "")
    mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(allowed) / 2e6 if allowed.isdecimal() and int(allowed) > 0 and mine else None
