"""Rules between settings: what must be there, what excludes what, what would be dangerous."""

from __future__ import annotations

from typing import Protocol

from edgeswarm.agent.layers import Origin, fail
from edgeswarm.agent.names import did_you_mean
from edgeswarm.agent.settings import Config
from edgeswarm.agent.topics import filter_fault, matches
from edgeswarm.errors import ConfigError
from edgeswarm.transport.settings import parse_url
from edgeswarm.wire.topics import valid_name

SCHEMES = ("mqtt", "mqtts")


class Where(Protocol):
    """Origin by dotted key."""

    def __getitem__(self, key: str) -> Origin: ...


def check_whole(config: Config, origins: Where, complete: bool) -> None:
    """Raises ConfigError for the first rule that `config` breaks; with `complete` also for what an agent must have."""
    for key in ("node", "site", "task"):
        value = getattr(config, key)
        if value or key != "node":
            try:
                valid_name(value, key)
            except ConfigError as error:
                raise ConfigError(f"{origins[key]}: {error}") from None
    _check_broker(config, origins)
    _check_source(config, origins)
    _check_graph(config, origins)
    if complete:
        _check_complete(config, origins)


def _check_complete(config: Config, origins: Where) -> None:
    def missing(key: str, example: str) -> ConfigError:
        section, _, name = key.rpartition(".")
        variable = "EDGESWARM_" + key.replace(".", "_").upper()
        place = f"under [{section}] in" if section else "at the top of"
        return ConfigError(f"{key} is not set: write {name} = {example} {place} the configuration, or set {variable}")

    if not config.node:
        raise missing("node", '"some-name"')
    if not config.broker.url:
        raise missing("broker.url", '"mqtts://broker.example"')
    if not config.source.kind:
        raise missing("source.kind", '"csv"')


def _check_broker(config: Config, origins: Where) -> None:
    broker = config.broker
    for url in broker.url:
        _check_url(url, broker.allow_plain_text, origins)
    for one, other in (("cert", "key"), ("key", "cert"), ("password_file", "username")):
        if getattr(broker, one) and not getattr(broker, other):
            raise fail(origins[f"broker.{one}"], f"broker.{one}", f"is set, but {other} is not: they go together")


def _check_url(url: str, allow_plain_text: bool, origins: Where) -> None:
    origin, key = origins["broker.url"], "broker.url"
    scheme, mark, rest = url.partition("://")
    if "@" in rest:  # not repeated in the message: it may hold the password
        raise fail(origin, key, "holds a user name or password; use username and password_file")
    if scheme not in SCHEMES:
        hint = did_you_mean(scheme, SCHEMES) if mark else "; write mqtts://host or mqtt://host"
        raise fail(origin, key, f"has to begin with mqtts:// or mqtt://, and is {url!r}{hint}")
    try:
        address = parse_url(url)
    except (ConfigError, ValueError):
        raise fail(origin, key, f"is a host and perhaps a port, as mqtts://host:8883, and is {url!r}") from None
    if not (address.tls or address.loopback or allow_plain_text):
        text = "would talk to {} in plain text; use mqtts://, or set allow_plain_text = true if that is meant"
        raise fail(origin, key, text.format(address.host))


def _check_source(config: Config, origins: Where) -> None:
    source = config.source
    needed = {"mqtt": "topic", "csv": "path", "npz": "path", "images": "path"}.get(source.kind)
    if needed and not getattr(source, needed):
        raise fail(origins["source.kind"], "source.kind", f'= "{source.kind}" needs {needed} to be set too')
    for key in ("features", "classes"):
        _check_once(getattr(source, key), f"source.{key}", origins)
    for key in ("topic", "label_topic", "predictions_topic"):
        value = getattr(source, key)
        fault = filter_fault(value, wildcards=key != "predictions_topic") if value else None
        if fault:
            raise fail(origins[f"source.{key}"], f"source.{key}", fault)
        if value.split("/")[0] == "edgeswarm":
            raise fail(origins[f"source.{key}"], f"source.{key}", "begins with edgeswarm/, where the nodes talk")
    heard = [topic for topic in (source.topic, source.label_topic) if topic]
    if source.predictions_topic and any(matches(topic, source.predictions_topic) for topic in heard):
        raise fail(
            origins["source.predictions_topic"],
            "source.predictions_topic",
            "is among the topics listened to: the node would take its own predictions for samples",
        )


def _check_graph(config: Config, origins: Where) -> None:
    graph, names = config.graph, origins["graph.names"]
    if graph.kind == "edges" and not graph.file:
        raise fail(origins["graph.kind"], "graph.kind", '= "edges" needs file to be set too')
    if graph.file and graph.kind != "edges":
        raise fail(origins["graph.file"], "graph.file", f'is used with kind = "edges" only, and that is "{graph.kind}"')
    _check_once(graph.names, "graph.names", origins)
    for name in graph.names:
        try:
            valid_name(name, "node")
        except ConfigError as error:
            raise fail(names, "graph.names", f"holds what is no name: {error}") from None
    if graph.names and config.node and config.node not in graph.names:
        hint = did_you_mean(config.node, graph.names)
        raise fail(names, "graph.names", f"lacks this node, {config.node!r}{hint}")


def _check_once(words: tuple[str, ...], key: str, origins: Where) -> None:
    twice = next((word for word in words if words.count(word) > 1), None)
    if twice is not None:
        raise fail(origins[key], key, f"names {twice!r} twice")
