from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.errors import ConfigError
from edgeswarm.messages import Presence
from edgeswarm.transport.presence import DUPLICATE, EARLIER_LIFE, ECHO, OVERWRITTEN, judge, same_life, will_of, yields
from edgeswarm.transport.settings import Address, MqttSettings, parse_url


def settings(*urls: str, **more: Any) -> MqttSettings:
    return MqttSettings(urls or ("mqtt://localhost",), "lab", "pi-1", "wine", **more)


@pytest.mark.parametrize(
    "url, address",
    [
        ("mqtt://localhost", Address("localhost", 1883, False)),
        ("mqtts://broker.lan", Address("broker.lan", 8883, True)),
        ("mqtts://10.0.0.2:1234/", Address("10.0.0.2", 1234, True)),
        ("mqtt://[::1]:99", Address("::1", 99, False)),
    ],
)
def test_urls(url: str, address: Address) -> None:
    assert parse_url(url) == address
    assert parse_url(str(address)) == address


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "localhost:1883",
        "tcp://localhost",
        "mqtt://",
        "mqtt://h:0",
        "mqtt://h:99999",
        "mqtt://h:abc",
        "mqtt://h/path",
        "mqtt://h?x=1",
        "",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="broker"):
        parse_url(url)


def test_a_password_in_an_address_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_url("mqtt://pi:s3cret@localhost")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["mqtt://localhost", "mqtt://127.0.0.9:1", "mqtt://[::1]", "mqtts://broker.lan"])
def test_plain_text_stays_on_this_machine(url: str) -> None:
    settings(url).check()


@pytest.mark.parametrize("url", ["mqtt://broker.lan", "mqtt://192.168.1.2", "mqtt://localhost.evil.example"])
def test_plain_text_to_another_machine_must_be_allowed(url: str) -> None:
    with pytest.raises(ConfigError, match="plain text to another machine"):
        settings("mqtt://localhost", url).check()
    settings(url, allow_plain=True).check()


@pytest.mark.parametrize(
    "more, word",
    [
        ({"protocol": "4"}, "protocol"),
        ({"keepalive_s": 0}, "keepalive_s"),
        ({"packet_limit_bytes": 100}, "packet_limit_bytes"),
        ({"receive_limit_bytes": 100}, "receive_limit_bytes"),
        ({"window": 0}, "window"),
        ({"session_expiry_s": 5}, "session_expiry_s"),
        ({"cert_file": Path("x")}, "key_file"),
        ({"password_file": Path("x")}, "username"),
        ({"password_file": Path("no such file"), "username": "pi"}, "no such file"),
        ({"urls": ()}, "at least one"),
    ],
)
def test_settings_that_cannot_work_say_why(more: dict[str, Any], word: str) -> None:
    fields = {"urls": ("mqtt://localhost",), "site": "lab", "node": "pi-1", "task": "wine"} | more
    with pytest.raises(ConfigError, match=word):
        MqttSettings(**fields).check()


def test_certificates_that_are_not_there_are_a_setting_error() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pem"):
        settings("mqtts://h", ca_file=Path("nowhere.pem")).check()


def test_the_password_is_the_first_line(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("one\ntwo\n")
    secret.chmod(stat.S_IRUSR)
    assert settings(username="pi", password_file=secret).password() == "one"
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError, match="empty"):
        settings(username="pi", password_file=tmp_path / "empty").password()


# ---- whose presence is it? ------------------------------------------------------------------------------------------

OURS = Presence("a", "ready", 5, "me")


@pytest.mark.parametrize(
    "state, epoch, instance, retained, said_before, verdict",
    [
        ("ready", 5, "me", False, True, ECHO),
        ("sleeping", 5, "me", False, True, ECHO),
        ("lost", 5, "me", False, True, OVERWRITTEN),  # the will of a link we have replaced
        ("lost", 4, "old", False, True, OVERWRITTEN),  # the will of our former life
        ("ready", 4, "other", False, True, DUPLICATE),
        ("ready", 6, "other", False, False, DUPLICATE),
        ("ready", 4, "old", True, False, ECHO),
        ("lost", 5, "old", True, False, EARLIER_LIFE),
        ("ready", 6, "old", True, False, EARLIER_LIFE),
        ("lost", 5, "me", True, True, ECHO),
        ("ready", 6, "other", True, True, DUPLICATE),
        ("ready", 4, "other", True, True, DUPLICATE),
        ("lost", 4, "old", True, True, ECHO),
        ("gone", 0, "", False, True, OVERWRITTEN),
    ],
)
def test_what_a_presence_under_our_name_means(
    state: str, epoch: int, instance: str, retained: bool, said_before: bool, verdict: str
) -> None:
    assert judge(OURS, Presence("a", state, epoch, instance), retained, said_before) == verdict


def test_exactly_one_of_two_yields() -> None:
    other = Presence("a", "ready", 5, "you")
    assert yields(OURS, other) != yields(other, OURS)


def test_a_will_keeps_life_and_drops_facts() -> None:
    will = will_of(Presence("a", "ready", 5, "me", {"samples": 1}))
    assert (will.state, will.epoch, will.instance, dict(will.facts)) == ("lost", 5, "me", {})
    assert same_life(will, OURS) and not same_life(OURS, None) and same_life(None, None)
    assert not same_life(OURS, Presence("a", "ready", 6, "me"))
