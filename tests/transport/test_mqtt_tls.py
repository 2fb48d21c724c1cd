"""TLS: both sides prove who they are, and each way of failing has its own words and exit code."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from transport_world import Heard, World, finish, need_mosquitto

from edgeswarm.demo import broker as module
from edgeswarm.demo.broker import RunningBroker, start_broker
from edgeswarm.errors import EXIT_NOT_CONNECTED, EXIT_REFUSED, TransportError
from edgeswarm.messages import Pull

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificates, is not here"),
]

_SETTINGS = """
[ca]
default_ca = ours
[ours]
dir = .
database = index
serial = serial
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[leaf]
basicConstraints = critical, CA:false
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:HOST
"""
_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


class Authority:
    """A private CA in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "index").write_text("")
        (folder / "serial").write_text("01\n")
        usage = "keyUsage=critical,keyCertSign,cRLSign"
        self._run(f"req -x509 {_KEY} -keyout ca.key -out ca.crt -days 2 -subj /CN={folder.name} -addext {usage}")

    def issue(
        self, name: str, start: str = "20250101000000Z", end: str = "20990101000000Z", host: str = "localhost"
    ) -> None:
        """Write name.key and name.crt for a host, valid from start to end."""
        (self.folder / "settings").write_text(_SETTINGS.replace("HOST", host))
        self._run(f"req {_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        dates = f"-startdate {start} -enddate {end}"
        self._run(f"ca -batch -notext -config settings -extensions leaf -in {name}.csr -out {name}.crt {dates}")

    def _run(self, words: str) -> None:
        subprocess.run(["openssl", *words.split()], cwd=self.folder, check=True, capture_output=True)


@dataclass
class Secure:
    broker: RunningBroker
    urls: dict[str, tuple[str]]
    ours: Path
    theirs: Path


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A Mosquitto with TLS listeners: a good one, and three whose certificate is early, late or for elsewhere."""
    need_mosquitto()
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = Authority(folder / "ours"), Authority(folder / "theirs")
    ours.issue("good")
    ours.issue("early", start="20980101000000Z")
    ours.issue("late", start="20200101000000Z", end="20210101000000Z")
    ours.issue("elsewhere", host="elsewhere.example")
    ours.issue("node")
    theirs.issue("node")
    lines, urls = [], {}
    for name in ("good", "early", "late", "elsewhere"):
        port = module._free_port()
        urls[name] = (f"mqtts://localhost:{port}",)
        lines += [
            f"listener {port} 127.0.0.1",
            f"cafile {ours.folder}/ca.crt",
            f"certfile {ours.folder}/{name}.crt",
            f"keyfile {ours.folder}/{name}.key",
            "require_certificate true",
            "allow_anonymous true",
        ]
    with start_broker("mosquitto", folder / "broker", extra=lines) as broker:
        yield Secure(broker, urls, ours.folder, theirs.folder)


def test_both_sides_are_proven_and_messages_pass(secure: Secure) -> None:
    async def test() -> None:
        files = {
            "ca_file": secure.ours / "ca.crt",
            "cert_file": secure.ours / "node.crt",
            "key_file": secure.ours / "node.key",
        }
        async with World(secure.broker, urls=secure.urls["good"], **files) as world:
            a, _ = await world.join("a")
            _, heard = await world.join("b")
            for version in range(50):
                a.send("b", Pull(7, 1, version))
            await heard.until(lambda: len(heard.messages) == 50)
            # larger than one TLS record, so that bytes wait inside the TLS layer where no selector sees them
            topic, got = f"blob/{world.site}", []
            a.subscribe_raw(topic, 1, lambda _, payload, retained: got.append(len(payload)))
            a.publish_raw(topic, b"x" * 100_000, 1, True)
            a.send("b", Pull(7, 1, 99))
            await heard.until(lambda: len(heard.messages) == 51)
            assert a.counters["disconnects"] == 0

    finish(test())


@pytest.mark.parametrize(
    "listener, ca, certificate, words, exit_code, counter",
    [
        ("good", "theirs", "ours", "certificate refused", EXIT_REFUSED, "connect_refused"),
        ("late", "ours", "ours", "certificate has expired", EXIT_REFUSED, "connect_refused"),
        ("elsewhere", "ours", "ours", "certificate refused: Hostname mismatch", EXIT_REFUSED, "connect_refused"),
        ("early", "ours", "ours", "is this machine's clock right", EXIT_NOT_CONNECTED, "connect_clock"),
        ("good", "ours", "theirs", "refused our certificate: .*UNKNOWN_CA", EXIT_REFUSED, "connect_refused"),
        ("good", "ours", None, "refused our certificate: .*CERTIFICATE_REQUIRED", EXIT_REFUSED, "connect_refused"),
    ],
)
def test_each_way_of_failing_has_its_own_words(
    secure: Secure, listener: str, ca: str, certificate: str | None, words: str, exit_code: int, counter: str
) -> None:
    async def test() -> None:
        files = {"ca_file": getattr(secure, ca) / "ca.crt"}
        if certificate is not None:
            folder = getattr(secure, certificate)
            files |= {"cert_file": folder / "node.crt", "key_file": folder / "node.key"}
        async with World(secure.broker, urls=secure.urls[listener], **files) as world:
            transport = world.mqtt("a", Heard("a"))
            async with transport:
                with pytest.raises(TransportError, match=words) as failure:
                    await transport.wait_up(1.0)
                assert failure.value.exit_code == exit_code
                assert transport.counters[counter] >= 1
                assert "fallbacks" not in transport.counters

    finish(test())
