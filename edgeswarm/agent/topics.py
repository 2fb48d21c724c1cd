"""MQTT topic filters of a site's own sensors: whether one is well formed, whether it matches a topic (MQTT 5, 4.7)."""

from __future__ import annotations


def filter_fault(topic: str, *, wildcards: bool) -> str | None:
    """What is wrong with a topic (`wildcards`: or filter), as the end of a sentence; None when it is fine."""
    if not topic or len(topic.encode("utf-8", "replace")) > 65_535 or "\0" in topic:
        return "is not a topic: empty, too long, or with a zero character"
    levels = topic.split("/")
    for depth, level in enumerate(levels):
        if not wildcards and ("+" in level or "#" in level):
            return "is a topic to publish on, so + and # are not allowed"
        if "+" in level and level != "+":
            return f"has a + that is only a part of the level {level!r}"
        if "#" in level and (level != "#" or depth != len(levels) - 1):
            return "has a # that is not the whole last level"
    return None


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a message on `topic` reaches a subscription to `topic_filter`."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if given[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    for depth, level in enumerate(wanted):
        if level == "#":
            return True
        if depth >= len(given) or level not in ("+", given[depth]):
            return False
    return len(wanted) == len(given)
