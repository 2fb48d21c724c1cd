"""Open a TCP or TLS connection without ever blocking the event loop, and say in plain words why it failed.

Name look-up is the only part without a non-blocking form. It runs in a daemon thread rather than in the event loop's
executor, because the interpreter waits for the executor's threads at exit, and a dead name server takes half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from edgeswarm.errors import EXIT_NOT_CONNECTED, EXIT_REFUSED, TransportError
from edgeswarm.transport.settings import Address

_NOT_YET_VALID = 9
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID: seen when a board without a battery clock has started in the past."""


class ClockFault(TransportError):
    """The broker's certificate is not valid yet: most likely this machine's clock is wrong, so try again soon."""


async def dial(address: Address, context: ssl.SSLContext | None, timeout_s: float = 10.0) -> socket.socket:
    """A connected non-blocking socket; with `context`, TLS has been agreed on. Raises TransportError."""
    try:
        return await asyncio.wait_for(_dial(address, context), timeout_s)
    except asyncio.TimeoutError:
        raise TransportError(f"{address} did not answer within {timeout_s:g} s") from None


async def _dial(address: Address, context: ssl.SSLContext | None) -> socket.socket:
    try:
        found = await _look_up(address)
    except OSError as error:
        raise TransportError(f"{address}: name look-up failed: {error.strerror or error}") from None
    failure: OSError = OSError(errno.EADDRNOTAVAIL, "no address found")
    for family, kind, protocol, _, place in found:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, place)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is None:
                return sock
            # wrap_socket takes the descriptor over: from here on `sock` is the one that must be closed
            sock = context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
            await _handshake(sock)
            return sock
        except ssl.SSLCertVerificationError as error:
            sock.close()
            if error.verify_code == _NOT_YET_VALID:
                raise ClockFault(
                    f"{address}: the broker's certificate is not valid yet; is this machine's clock right?"
                ) from None
            raise TransportError(f"{address}: certificate refused: {error.verify_message}", EXIT_REFUSED) from None
        except ssl.SSLError as error:
            sock.close()
            raise TransportError(f"{address}: TLS failed: {error.reason or error}", EXIT_REFUSED) from None
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    # asyncio puts its own words in place of the system's
    text = os.strerror(failure.errno) if failure.errno else str(failure)
    raise TransportError(f"{address}: {text}", EXIT_NOT_CONNECTED)


async def _look_up(address: Address) -> list[Any]:
    """What getaddrinfo says, as a list of (family, kind, protocol, name, place)."""
    try:
        return socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def settle(act: Callable[[Any], None], value: Any) -> None:
        if not answer.done():
            act(value)

    def ask() -> None:
        try:
            value = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            hand_over(answer.set_exception, error)
        else:
            hand_over(answer.set_result, value)

    def hand_over(act: Callable[[Any], None], value: Any) -> None:
        # the loop may have been closed while the name server kept us waiting
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, act, value)

    threading.Thread(target=ask, name=f"look up {address.host}", daemon=True).start()
    return await answer


async def _handshake(sock: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock.do_handshake()
            return
        except ssl.SSLWantReadError:
            await _ready(sock.fileno(), loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _ready(sock.fileno(), loop.add_writer, loop.remove_writer)


async def _ready(descriptor: int, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ready() -> None:
        if not waiting.done():
            waiting.set_result(None)

    add(descriptor, ready)
    try:
        await waiting
    finally:
        remove(descriptor)
