"""What the agent remembers, and what it does when the disk does not."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from edgeswarm.agent.memory import EPOCH_ROOM, Memory
from edgeswarm.agent.settings import Config, SourceConfig, StateConfig
from edgeswarm.agent.sources import Schema
from edgeswarm.agent.store import EPOCH_FLOOR, Store
from edgeswarm.errors import ConfigError
from edgeswarm.strategies.base import Decision
from edgeswarm.wire.envelope import MOST_EPOCH

SCHEMA = Schema("t", ("a", "b"))


class Numbers:
    """A strategy whose state is one number."""

    name = "numbers"

    def init(self, node, seed):
        return 0

    def dump(self, state):
        if state == "unpackable":
            return {"number": object()}
        return {"number": state}

    def load(self, node, dumped):
        return dumped["number"]


NUMBERS = Numbers()


@pytest.fixture(autouse=True)
def everything_said(caplog):
    caplog.set_level("INFO", "edgeswarm")


@pytest.fixture
def config(tmp_path):
    return Config(
        node="n", task="t", source=SourceConfig("csv", "/data.csv"), state=StateConfig(str(tmp_path / "state"))
    )


@pytest.fixture
def remember(config):
    """Makes memories, as starts of the agent would."""
    made = []

    def make(**changes):
        made.append(Memory(replace(config, **changes)))
        return made[-1]

    yield make
    for memory in made:
        memory.close()


def state_folder(config):
    return Store(config.state.folder).folder


def test_what_was_saved_comes_back_in_the_next_life(remember):
    first = remember()
    assert first.restore(NUMBERS, SCHEMA) == 0 and first.taken == 0 and first.features == ()
    first.save(NUMBERS, 7, SCHEMA, 100)
    assert not first.fault
    first.close()
    second = remember()
    assert second.restore(NUMBERS, SCHEMA) == 7 and second.taken == 100 and second.features == ("a", "b")
    assert second.epoch > first.epoch >= EPOCH_FLOOR
    second.close()
    assert remember(source=SourceConfig("csv", "/other.csv")).taken == 0


def test_another_agent_in_the_folder(remember):
    remember()
    with pytest.raises(ConfigError, match="in use by another agent"):
        remember()


@pytest.mark.parametrize("damage", [KeyError("x"), ValueError("x"), AttributeError("x"), IndexError("x")])
def test_a_state_that_does_not_fit_is_not_overwritten(remember, damage, monkeypatch):
    first = remember()
    first.save(NUMBERS, 7, SCHEMA, 1)
    first.close()

    def load(node, dumped):
        raise damage

    monkeypatch.setattr(NUMBERS, "load", load)
    with pytest.raises(ConfigError, match="does not fit this configuration"):
        remember().restore(NUMBERS, SCHEMA)


def test_a_broken_state_is_kept_and_said(remember, config, caplog):
    first = remember()
    first.save(NUMBERS, 7, SCHEMA, 1)
    first.close()
    (state_folder(config) / "state.msgpack").write_bytes(b"rubbish")
    second = remember()
    assert second.restore(NUMBERS, SCHEMA) == 0
    assert "kept as state.msgpack.unusable-1" in caplog.text and second.store.faults == []


def test_a_folder_that_comes_late(remember, config, caplog):
    """What it holds is of an agent that knew more than this one: it is kept."""
    first = remember()
    first.save(NUMBERS, 7, SCHEMA, 1)
    first.close()
    folder = state_folder(config)
    away = folder.with_name("away")
    folder.rename(away)
    folder.write_text("in the way")
    late = remember()
    assert late.fault and late.restore(NUMBERS, SCHEMA) == 0
    late.save(NUMBERS, 1, SCHEMA, 1)
    late.save(NUMBERS, 2, SCHEMA, 2)
    assert caplog.text.count("would not survive a restart") == 1  # said once
    folder.unlink()
    away.rename(folder)
    late.save(NUMBERS, 3, SCHEMA, 3)
    late.save(NUMBERS, 4, SCHEMA, 4)
    assert not late.fault and "can be saved again" in caplog.text
    kept = list(folder.glob("state.msgpack.before-*"))
    assert len(kept) == 1
    late.close()
    again = remember()
    assert again.restore(NUMBERS, SCHEMA) == 4 and again.epoch > late.epoch
    again.close()
    kept[0].replace(folder / "state.msgpack")
    (folder / "state.previous.msgpack").unlink()
    assert remember().restore(NUMBERS, SCHEMA) == 7


def test_a_folder_that_vanishes_and_is_made_anew(remember, config):
    memory = remember()
    memory.save(NUMBERS, 1, SCHEMA, 1)
    shutil.rmtree(config.state.folder)
    memory.save(NUMBERS, 2, SCHEMA, 2)
    assert not memory.fault
    epoch = memory.epoch
    memory.close()
    again = remember()
    assert again.restore(NUMBERS, SCHEMA) == 2 and again.epoch > epoch


def test_a_folder_that_another_agent_takes_meanwhile(remember, config):
    memory = remember()
    shutil.rmtree(config.state.folder)
    other = remember()
    memory.save(NUMBERS, 1, SCHEMA, 1)
    assert "in use by another agent" in memory.fault
    other.close()
    memory.save(NUMBERS, 2, SCHEMA, 2)
    assert not memory.fault


def test_a_bug_in_packing_is_loud_and_survived(remember, caplog):
    memory = remember()
    memory.save(NUMBERS, 1, SCHEMA, 1)
    memory.save(NUMBERS, "unpackable", SCHEMA, 2)
    assert "a bug in edgeswarm" in memory.fault and "Traceback" in caplog.text
    memory.save(NUMBERS, 3, SCHEMA, 3)
    assert not memory.fault


def test_trouble_with_the_ledger_alone_is_said_once(remember, config, caplog):
    memory = remember()
    folder = state_folder(config)
    (folder / "decisions.jsonl").mkdir()
    for at in range(3):
        memory.ledger.record(Decision(at, "share", "held", "no_news"))
        memory.save(NUMBERS, at, SCHEMA, at)
        assert "ledger" in memory.fault
    assert caplog.text.count("write the ledger") == 1 and "can be saved again" not in caplog.text
    (folder / "decisions.jsonl").rmdir()
    memory.save(NUMBERS, 3, SCHEMA, 3)
    assert not memory.fault and len(memory.ledger.read()) == 3


def test_epochs_seen_at_the_broker(remember, caplog):
    memory = remember()
    seen = memory.epoch + 1000
    assert memory.raise_epoch(seen) == memory.epoch == memory.ledger.epoch == seen + 1
    assert memory.raise_epoch(5) == seen + 2  # never backwards
    assert memory.raise_epoch(MOST_EPOCH) == seen + 2 and "delete that retained message" in caplog.text
    assert memory.raise_epoch(MOST_EPOCH - EPOCH_ROOM) == MOST_EPOCH - EPOCH_ROOM + 1
    memory.close()
    assert remember().epoch == MOST_EPOCH - EPOCH_ROOM + 2


def test_epochs_without_a_disk(remember, config):
    state_folder(config).write_text("a file")
    memory = remember()
    before = memory.epoch
    assert memory.fault and before >= EPOCH_FLOOR
    assert memory.raise_epoch(before + 5) == before + 6
