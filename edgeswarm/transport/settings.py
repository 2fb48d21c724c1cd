"""Where the broker is and how we speak to it, checked before the first packet."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgeswarm.errors import ConfigError

_PORTS = {"mqtt": 1883, "mqtts": 8883}
PROTOCOLS = ("auto", "5", "3.1.1")


@dataclass(frozen=True, slots=True)
class Address:
    """One broker. host: name or IP address; tls: whether the connection is encrypted."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """True if packets to this address never leave the machine. A name other than localhost counts as remote."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_url(url: str) -> Address:
    """`mqtt://host[:port]` or `mqtts://host[:port]` as an Address. Raises ConfigError, naming what is wrong."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ConfigError(f"broker {url!r}: write mqtt://host:port, or mqtts://host:port for TLS")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("broker: user names and passwords do not belong in an address (use username, password_file)")
    try:
        port = parts.port
    except ValueError:
        raise ConfigError(f"broker {url!r}: a port is a number from 1 to 65535") from None
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment or port == 0:
        raise ConfigError(f"broker {url!r}: write {parts.scheme}://host:port and nothing else")
    return Address(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts")


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Everything the MQTT transport is told.

    urls: brokers, tried in turn.  site, node, task: this node's place in the topic tree; node "" makes an observer,
    which reads but has no presence, no last will and no session.
    circle: the only nodes whose presence, prototypes and words to all are asked for; None for everybody's.
    keepalive_s: after silence the broker takes the link for dead within 1.5 times this, and so do we within twice.
    packet_limit_bytes: largest whole MQTT packet sent; the broker's announced maximum counts if it is smaller.
    receive_limit_bytes: largest packet accepted; an MQTT 5 broker is told, and withholds larger ones.
    window: QoS 1 messages under way at once, in each direction.
    outbox_limit_bytes: most bytes of messages waiting for the window; beyond it messages that no newer one replaces
    are dropped, since a stale difference is worse than none.
    session_expiry_s: how long a broker remembers us under MQTT 5. No message that is not retained lives for longer than
    a minute, so a longer session would only collect every snapshot of an absence, the last of which is retained anyway;
    it must exceed will_delay_s, because a session that ends publishes its will at once.
    will_delay_s: time in which a quick return keeps the broker from announcing that we are lost.
    ca_file, cert_file, key_file: PEM files for TLS; without ca_file the system's authorities count.
    username, password_file: the first line of the file is the password, read anew on each connect.
    allow_plain: permit plain text to another machine.
    first_wait_s, most_wait_s: reconnect delays are drawn below first_wait_s * 2**attempt, and below most_wait_s.
    connack_timeout_s: how long a broker may take to answer a CONNECT.
    duplicate_wait_s: shortest wait after another device has shown up under our name; it doubles up to 10 minutes.
    protocol: "auto" speaks MQTT 5 and falls back to 3.1.1 per broker; "5" or "3.1.1" fixes it.
    """

    urls: tuple[str, ...]
    site: str
    node: str = ""
    task: str = ""
    keepalive_s: int = 60
    packet_limit_bytes: int = 120_000
    receive_limit_bytes: int = 262_144
    window: int = 20
    outbox_limit_bytes: int = 1_000_000
    session_expiry_s: int = 60
    will_delay_s: int = 5
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    allow_plain: bool = False
    first_wait_s: float = 0.5
    most_wait_s: float = 60.0
    connack_timeout_s: float = 10.0
    duplicate_wait_s: float = 60.0
    protocol: str = "auto"
    circle: frozenset[str] | None = None

    def addresses(self) -> tuple[Address, ...]:
        """The brokers. Raises ConfigError for an address we will not use, such as plain text to another machine."""
        if not self.urls:
            raise ConfigError("broker: at least one address is needed, for example mqtt://localhost:1883")
        found = tuple(parse_url(url) for url in self.urls)
        for address in found:
            if not (address.tls or address.loopback or self.allow_plain):
                raise ConfigError(
                    f"broker {address}: plain text to another machine; use mqtts://, or set allow_plain = true"
                )
        return found

    def check(self) -> None:
        """Raise ConfigError if these settings can never work."""
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"protocol is one of {', '.join(PROTOCOLS)}, not {self.protocol!r}")
        for name, least in (("keepalive_s", 1), ("packet_limit_bytes", 1024), ("receive_limit_bytes", 1024)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is at least {least}")
        if not 1 <= self.window <= 65535:
            raise ConfigError("window is between 1 and 65535 messages")
        if self.session_expiry_s <= self.will_delay_s:
            raise ConfigError(
                "session_expiry_s must exceed will_delay_s: a session that ends publishes its will at once"
            )
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("cert_file and key_file belong together")
        if self.password_file is not None and not self.username:
            raise ConfigError("password_file needs a username")
        if any(address.tls for address in self.addresses()):
            self.tls_context()
        self.password()

    def password(self) -> str | None:
        """First line of the password file, or None. Raises ConfigError if it cannot be read."""
        if self.password_file is None:
            return None
        try:
            lines = self.password_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"password_file {self.password_file}: {error}") from None
        if not lines:
            raise ConfigError(f"password_file {self.password_file} is empty")
        return lines[0]

    def tls_context(self) -> ssl.SSLContext:
        """TLS 1.2 or later, the broker's name checked. Made for each connection, so that a renewed certificate is
        presented without a restart. Raises ConfigError if a file cannot be used."""
        for what, path in (("ca", self.ca_file), ("cert", self.cert_file), ("key", self.key_file)):
            if path is not None and not path.is_file():
                raise ConfigError(f"[broker] {what} {path}: no such file")
        named = [str(path) for path in (self.ca_file, self.cert_file, self.key_file) if path is not None]
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"certificates ({', '.join(named)}): {error}") from None
        return context
