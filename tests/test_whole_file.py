"""Files written whole: what fails, what is written twice at once, links, and what cannot be replaced."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import numpy as np
import pytest

from edgeswarm.agent.status_file import write_status
from edgeswarm.cli import output
from edgeswarm.errors import ConfigError
from edgeswarm.models import public
from edgeswarm.whole_file import whole


@contextmanager
def small_files(most_bytes: int) -> Iterator[None]:
    """No file grows beyond `most_bytes` meanwhile, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_could_not_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "k.txt"
    path.write_text("good")
    with pytest.raises(OSError) as caught, small_files(10), whole(path) as fresh:
        fresh.write_text("x" * 1000)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(KeyboardInterrupt), whole(path) as fresh:
        fresh.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "good" and names(tmp_path) == ["k.txt"]


def test_two_writers_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    path = tmp_path / "k.txt"
    with ExitStack() as stack:
        first = stack.enter_context(whole(path))
        first.write_text("first")
        with whole(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and names(tmp_path) == ["k.txt"]


def test_one_writer_that_is_killed_leaves_one_file_and_writes_over_it(tmp_path: Path) -> None:
    killed = [whole(tmp_path / "k.txt", one_writer=True) for _ in range(2)]
    for each in killed:
        each.__enter__().write_text("half")
    assert len(names(tmp_path)) == 1
    with whole(tmp_path / "k.txt", one_writer=True) as fresh:
        fresh.write_text("all")
    assert names(tmp_path) == ["k.txt"]


def test_a_link_stays_and_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "k.txt")
    for text in ("new", "newer"):
        with whole(tmp_path / "link") as fresh:
            fresh.write_text(text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "far" / "k.txt").read_text() == text
    os.mkfifo(tmp_path / "pipe")
    with whole(tmp_path / "pipe") as fresh:
        assert fresh == tmp_path / "pipe"
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(IsADirectoryError), whole(tmp_path / "far") as fresh:
        fresh.write_text("x")
    assert names(tmp_path) == ["far", "link", "pipe"] and names(tmp_path / "far") == ["k.txt"]


def test_no_folder_is_made(tmp_path: Path) -> None:
    """The folder of a card that is not mounted would be one on another card."""
    with pytest.raises(FileNotFoundError), whole(tmp_path / "none" / "k.txt") as fresh:
        fresh.write_text("x")
    assert names(tmp_path) == []


def test_a_public_set_and_what_a_verb_writes_outlive_a_full_disk(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 40)).astype(np.float32)
    public.write(public.PublicSet(rows[:20], ("a", "b")), tmp_path / "p.npz")
    (tmp_path / "part.toml").write_text("good")
    (tmp_path / "status.json").write_text("good")
    held = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with small_files(4095):
        with pytest.raises(OSError):
            public.write(public.PublicSet(rows, ("a", "b")), tmp_path / "p.npz")
        with pytest.raises(ConfigError, match=r"--write: the file would be larger .*cannot write the graph"):
            output.save(tmp_path / "part.toml", ["x" * 5000], "the graph")
        with pytest.raises(OSError):
            write_status(tmp_path, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == held
    with click.Context(click.Command("x")):
        output.save(tmp_path / "part.toml", ["a", "b"], "the graph")
    assert (tmp_path / "part.toml").read_text() == "a\nb\n"
