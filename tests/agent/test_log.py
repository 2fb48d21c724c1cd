from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeswarm.agent import log


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    logger = logging.getLogger("edgeswarm")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def said(look: str, environ: dict[str, str] | None = None, level: int = logging.INFO) -> str:
    """What an info line, a warning with facts, a debug line and a caught error look like."""
    stream = io.StringIO()
    log.set_up(look, level, stream, environ or {})
    logger = logging.getLogger("edgeswarm.agent.link")
    logger.debug("each message")
    logger.info("link up: %s", "mqtt://localhost:1883")
    logger.warning("peer muted", extra={"peer": "node-2", "excess_loss": 0.2})
    try:
        raise ValueError("odd")
    except ValueError:
        logger.exception("a source broke")
    return stream.getvalue()


def test_text_is_time_level_words_and_facts() -> None:
    lines = said("text").splitlines()
    assert lines[0][2] == ":" and lines[0][8:] == " info     link up: mqtt://localhost:1883"
    assert lines[1][8:] == " warning  peer muted peer=node-2 excess_loss=0.2"
    assert lines[2][8:] == " error    a source broke"
    assert lines[-1] == "ValueError: odd"


def test_json_is_one_object_a_line_with_the_same_keys() -> None:
    lines = [json.loads(line) for line in said("json").splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert all(set(line) >= {"at_unix", "level", "source", "text"} for line in lines)
    assert lines[0]["source"] == "edgeswarm.agent.link"
    assert (lines[1]["peer"], lines[1]["excess_loss"]) == ("node-2", 0.2)
    assert "ValueError: odd" in lines[2]["traceback"] and "traceback" not in lines[0]


def test_verbose_shows_debug() -> None:
    assert "each message" not in said("text")
    assert "each message" in said("text", level=logging.DEBUG)


def test_the_journal_gets_a_level_on_every_line_and_no_time(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        status = os.fstat(stream.fileno())
        log.set_up("text", stream=stream, environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        logger = logging.getLogger("edgeswarm")
        logger.info("hello")
        try:
            raise ValueError("odd")
        except ValueError:
            logger.exception("broke\nin two lines")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[0] == "<6>hello"
    assert lines[1:3] == ["<3>broke", "<3>in two lines"]
    assert all(line.startswith("<3>") for line in lines[1:])


@pytest.mark.parametrize("value", ["", "8:1", "nonsense", "a:b", ":"])
def test_an_inherited_or_odd_journal_variable_is_not_believed(value: str) -> None:
    with Path(os.devnull).open("w") as stream:
        assert not log.under_journal(stream, {"JOURNAL_STREAM": value})


def test_json_wins_over_the_journal() -> None:
    status = os.fstat(sys.__stderr__.fileno())  # type: ignore[union-attr]
    environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    assert isinstance(log.formatter_for("json", sys.__stderr__, environ), log.JsonFormatter)  # type: ignore[arg-type]
    assert isinstance(log.formatter_for("text", sys.__stderr__, environ), log.JournalFormatter)  # type: ignore[arg-type]


@pytest.mark.parametrize(("level", "number"), [(50, 2), (40, 3), (30, 4), (20, 6), (10, 7), (35, 4)])
def test_levels(level: int, number: int) -> None:
    assert log.syslog_level(level) == number


def test_setting_up_again_replaces_and_leaves_the_root_logger_alone() -> None:
    root = list(logging.getLogger().handlers)
    log.set_up()
    log.set_up()
    ours = [handler for handler in logging.getLogger("edgeswarm").handlers if handler.get_name() == "edgeswarm"]
    assert len(ours) == 1
    assert logging.getLogger().handlers == root
