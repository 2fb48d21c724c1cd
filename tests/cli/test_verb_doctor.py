"""`doctor` as a whole, and its questions to real brokers with real access rules."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_world import Run, need_mosquitto

from edgeswarm.agent.store import Store
from edgeswarm.cli.checks.broker import check_all
from edgeswarm.demo.broker import RunningBroker, start_broker
from edgeswarm.messages import Presence
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire.status import encode_presence

pytestmark = pytest.mark.broker

ACL = """\
topic write edgeswarm/v1/+/node-1/state
topic write edgeswarm/v1/+/node-1/proto/+
topic write edgeswarm/v1/+/all/node-1/+
topic write edgeswarm/v1/+/+/inbox/node-1/+
topic read edgeswarm/v1/+/+/state
topic read edgeswarm/v1/+/+/proto/+
topic read edgeswarm/v1/+/all/+/+
topic read edgeswarm/v1/+/node-1/inbox/+/+
"""
"""The rules of the wire document, for one node without a password."""


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    """A config for a broker's address; its samples are there."""
    (tmp_path / "samples.csv").write_text("a,label\n1,x\n")

    def write(url: str, more: str = "") -> Path:
        path = tmp_path / "agent.toml"
        path.write_text(
            f'node = "node-1"\nsite = "hall"\n[broker]\nurl = "{url}"\n{more}\n'
            '[source]\nkind = "csv"\npath = "samples.csv"\n[state]\nfolder = "state"\n'
        )
        return path

    return write


def by_name(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in data["checks"]}


def test_all_is_well(
    run: Run,
    run_json: Callable[..., Any],
    broker: RunningBroker,
    config: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EDGESWARM_CARRIED_MODELS", raising=False)  # the tests' own variable, no setting of an agent
    path = str(config(broker.url))
    data = run_json("doctor", "--config", path)
    assert data["ok"] and data["counts"]["fail"] == 0 and sum(data["counts"].values()) == len(data["checks"])
    checks = by_name(data)
    for name in ("config", "source", "state-folder", "broker-reach", "broker-connect", "packet-limit", "presence",
                 "acl-state", "acl-proto", "acl-all", "acl-inbox"):  # fmt: skip
        assert checks[name]["status"] == "ok", checks[name]
    assert checks["broker-connect"]["facts"]["protocol"] == "5"
    assert checks["packet-limit"]["facts"]["broker_bytes"] == 262144
    assert all(set(check) == {"name", "status", "text", "todo", "facts"} for check in data["checks"])
    text = run("doctor", "--config", path).stdout
    assert "ok    acl-inbox" in text and text.splitlines()[-1].endswith("skipped")


def test_the_names_are_unique_and_stable(
    run_json: Callable[..., Any], broker: RunningBroker, config: Callable[[str], Path]
) -> None:
    names = [check["name"] for check in run_json("doctor", "--config", str(config(broker.url)))["checks"]]
    assert names == [
        "python", "board", "memory", "cgroup-memory", "temperature", "throttling", "clock", "open-files",
        "numpy", "config", "profile", "memory-budget", "backend", "extra-onnx", "extra-torch", "extra-demo",
        "extra-images", "extra-sim", "extra-cluster", "source", "model-file", "encoder-file", "graph", "public-set",
        "method", "labels", "state-folder", "state-space", "state-lock", "broker-reach", "broker-connect",
        "packet-limit", "presence", "acl-state", "acl-proto", "acl-all", "acl-inbox",
    ]  # fmt: skip


def test_without_a_config_the_machine_is_checked(run_json: Callable[..., Any]) -> None:
    checks = by_name(run_json("doctor"))
    assert checks["config"]["status"] == checks["broker"]["status"] == "skip"


def test_a_wrong_config_fails_with_6(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('nod = "x"\n')
    text = run("doctor", "--config", str(path), code=6).stdout
    assert "fail  config" in text and "did you mean 'node'?" in text


def test_no_broker(run: Run, config: Callable[[str], Path]) -> None:
    text = run("doctor", "--config", str(config("mqtt://127.0.0.1:1")), code=6).stdout
    assert "fail  broker-connect" in text and "is the broker running" in text


def test_a_broker_that_says_nothing(config: Callable[[str], Path], run: Run) -> None:
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"mqtt://127.0.0.1:{deaf.getsockname()[1]}"
        text = run("doctor", "--config", str(config(url)), "--timeout", "0.3", code=6).stdout
    assert "said nothing" in text


def asked(broker: RunningBroker, **changes: Any) -> dict[str, Any]:
    running = changes.pop("running", False)
    settings = MqttSettings(urls=(broker.url,), site="hall", node="node-1", task="wafer", **changes)
    return {found.name: found for found in asyncio.run(check_all(settings, 1.0, running))}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_both_protocols(broker: RunningBroker, protocol: str) -> None:
    found = asked(broker, protocol=protocol)
    assert all(each.status == "ok" for each in found.values()), found
    assert found["broker-connect"].facts["protocol"] == protocol


def with_rules(folder: Path, rules: str, *more: str) -> RunningBroker:
    need_mosquitto()
    acl = folder / "acl"
    acl.write_text(rules)
    acl.chmod(0o600)
    return start_broker("mosquitto", folder, extra=(f"acl_file {acl}", *more))


def test_the_documented_rules_are_enough(tmp_path: Path) -> None:
    with with_rules(tmp_path, ACL) as broker:
        found = asked(broker)
    assert all(each.status == "ok" for each in found.values()), found


@pytest.mark.parametrize(
    ("missing", "name"),
    [
        ("topic read edgeswarm/v1/+/+/state", "acl-state"),
        ("topic read edgeswarm/v1/+/+/proto/+", "acl-proto"),
        ("topic read edgeswarm/v1/+/all/+/+", "acl-all"),
        ("topic read edgeswarm/v1/+/node-1/inbox/+/+", "acl-inbox"),
        ("topic write edgeswarm/v1/+/node-1/proto/+", "acl-proto"),
        ("topic write edgeswarm/v1/+/+/inbox/node-1/+", "acl-inbox"),
    ],
)
def test_each_rule_that_is_missing_is_found(tmp_path: Path, missing: str, name: str) -> None:
    """The broker says "granted" and "success" to most of these."""
    assert f"{missing}\n" in ACL
    with with_rules(tmp_path, ACL.replace(f"{missing}\n", "")) as broker:
        found = asked(broker)
    assert found[name].status == "fail" and found[name].todo
    assert [each.name for each in found.values() if each.status == "fail"] == [name]
    if missing.startswith("topic write"):
        assert found[name].text.startswith("may not write")


def test_a_broker_with_accounts_refuses_strangers(tmp_path: Path) -> None:
    need_mosquitto()
    with start_broker("mosquitto", tmp_path, anonymous=False) as broker:
        found = asked(broker)
    assert list(found) == ["broker-reach", "broker-connect"]
    assert found["broker-connect"].status == "fail" and "refused us" in found["broker-connect"].text


def test_a_small_packet_limit_is_mentioned(tmp_path: Path) -> None:
    need_mosquitto()
    with start_broker("mosquitto", tmp_path, extra=("max_packet_size 20000",)) as broker:
        found = asked(broker)["packet-limit"]
    assert (found.status, found.facts["broker_bytes"]) == ("warn", 20000)


def retained(broker: RunningBroker, payload: bytes) -> None:
    import paho.mqtt.publish as publish

    publish.single(
        "edgeswarm/v1/hall/node-1/state", payload, qos=1, retain=True, hostname="127.0.0.1", port=broker.port
    )


@pytest.mark.parametrize(
    ("state", "running", "status"),
    [("ready", False, "warn"), ("ready", True, "ok"), ("lost", False, "ok"), ("junk", False, "warn")],
)
def test_what_the_broker_holds_about_this_name(tmp_path: Path, state: str, running: bool, status: str) -> None:
    need_mosquitto()
    payload = b"junk" if state == "junk" else encode_presence(Presence("node-1", state, 7, "abc"))
    with start_broker("mosquitto", tmp_path) as broker:
        retained(broker, payload)
        found = asked(broker, running=running)
        again = asked(broker, running=running)
    assert found["presence"].status == status
    assert again["presence"].text == found["presence"].text, "what is retained was changed by looking"
    assert found["acl-state"].status == "ok"


def test_an_agent_with_an_identity_is_not_thrown_off(
    run: Run, run_json: Callable[..., Any], config: Callable[..., Path], tmp_path: Path
) -> None:
    """No connection is made: the address leads nowhere, and the running agent's own word counts."""
    (tmp_path / "pw").write_text("secret\n")
    path = str(config("mqtt://127.0.0.1:1", 'username = "node-1"\npassword_file = "pw"'))
    folder = tmp_path / "state"
    with Store(folder):
        checks = by_name(run_json("doctor", "--config", path))
        assert checks["broker-connect"]["status"] == "warn" and "acl" not in checks
        for up, status in ((True, "ok"), (False, "fail")):
            report = {"at_unix": time.time(), "link": {"up": up, "detail": "so it says"}}
            (folder / "status.json").write_text(json.dumps(report))
            checks = by_name(run_json("doctor", "--config", path, code=0 if up else 6))
            assert checks["broker-connect"]["status"] == status and "so it says" in checks["broker-connect"]["text"]
            assert checks["acl"]["status"] == "skip"


# ---- TLS ------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str, days: int, *more: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key; `days` may be negative for one that has expired where openssl can."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(key), "-out", str(cert), "-days", str(days), "-subj", f"/CN={name}", *more]
    subprocess.run(words, check=True, capture_output=True)
    return cert, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_tls(tmp_path: Path) -> None:
    need_mosquitto()
    cert, key = certificate(tmp_path, "broker", 10, "-addext", "subjectAltName=IP:127.0.0.1")
    own, own_key = certificate(tmp_path, "node-7", 300)
    with start_broker("mosquitto", tmp_path) as plain:
        port = plain.port + 1 if plain.port < 65535 else plain.port - 1
        extra = (f"listener {port} 127.0.0.1", "allow_anonymous true", f"certfile {cert}", f"keyfile {key}")
        with start_broker("mosquitto", tmp_path / "tls", extra=extra):
            settings = MqttSettings(
                urls=(f"mqtts://127.0.0.1:{port}",), site="hall", node="node-1", task="wafer",
                ca_file=cert, cert_file=own, key_file=own_key,
            )  # fmt: skip
            found = {each.name: each for each in asyncio.run(check_all(settings, 3.0))}
            stranger = MqttSettings(urls=settings.urls, site="hall", node="node-1", task="wafer")
            refused = {each.name: each for each in asyncio.run(check_all(stranger, 3.0))}
    assert found["broker-tls"].status == "warn" and "TLSv1.3, certificate valid until" in found["broker-tls"].text
    assert found["own-certificate"].status == "ok" and 299 <= found["own-certificate"].facts["days_left"] <= 300
    assert found["own-certificate-name"].status == "fail" and "node-7" in found["own-certificate-name"].text
    assert found["acl-all"].status == "ok"
    assert refused["broker-tls"].status == "fail" and "certificate" in refused["broker-tls"].text
