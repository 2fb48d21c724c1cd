"""How an agent reaches its broker: what the transport is told, from the configuration."""

from __future__ import annotations

from pathlib import Path

from edgeswarm.agent.settings import Config
from edgeswarm.transport.settings import MqttSettings


def mqtt_settings(config: Config) -> MqttSettings:
    """What the transport is told. Nothing is checked or read here (`MqttSettings.check`)."""
    broker = config.broker
    return MqttSettings(
        urls=broker.url,
        site=config.site,
        node=config.node,
        task=config.task,
        keepalive_s=broker.keepalive_s,
        packet_limit_bytes=broker.packet_limit_bytes,
        ca_file=_path(broker.ca),
        cert_file=_path(broker.cert),
        key_file=_path(broker.key),
        username=broker.username,
        password_file=_path(broker.password_file),
        allow_plain=broker.allow_plain_text,
        protocol=broker.protocol,
    )


def _path(text: str) -> Path | None:
    return Path(text) if text else None
