"""Small helpers of the configuration: names, topic filters, texts about files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgeswarm.agent.faults import fault_text
from edgeswarm.agent.names import did_you_mean, nearest, usable_name
from edgeswarm.agent.topics import filter_fault, matches
from edgeswarm.wire.topics import is_name


@pytest.mark.parametrize(
    ("word", "meant"), [("ulr", "url"), ("URL", "url"), ("usrname", "username"), ("alive", "keepalive"), ("zzz", None)]
)
def test_the_nearest_word(word, meant):
    assert nearest(word, ["url", "username", "keepalive"]) == meant


def test_hints():
    assert did_you_mean("ulr", ["url"]) == "; did you mean 'url'?"
    assert did_you_mean("zzz", ["b", "a"]) == "; one of a, b"
    assert did_you_mean("zzz", [f"word{n}" for n in range(20)]) == ""
    assert did_you_mean("zzz", []) == ""


@pytest.mark.parametrize("text", ["Raspberry Pi (Küche)", "a_b.local", "-" * 9, "x" * 99, "a" * 62 + "-b", "ß"])
def test_a_usable_name_is_allowed_or_empty(text):
    name = usable_name(text)
    assert name == "" or is_name(name)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("+/+", "/b", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
    ],
)
def test_topic_filters(topic_filter, topic, expected):
    assert matches(topic_filter, topic) is expected


@pytest.mark.parametrize(
    ("topic", "fault"), [("a/b", False), ("a/+/b/#", False), ("a+", True), ("a/#/b", True), ("", True), ("a\0", True)]
)
def test_topic_faults(topic, fault):
    assert bool(filter_fault(topic, wildcards=True)) is fault
    assert filter_fault("a/+", wildcards=False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES, errno.EBUSY])
def test_faults_say_what_where_and_what_to_do(number):
    text = fault_text("save the state in", Path("/state"), OSError(number, os.strerror(number)))
    assert "cannot save the state in /state; " in text and "\n" not in text
