"""Dealing a data set out, and reading the reader's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgeswarm.agent import config
from edgeswarm.demo.data import HOLD_OUT, SAMPLES_LIMIT, Terms, deal, write_files
from edgeswarm.demo.table_file import read_table
from edgeswarm.errors import DataError
from edgeswarm.sim.data import DataSet, digits


def numbered(rows: int, classes: int = 4, seed: int = 0) -> DataSet:
    """Rows that carry their own number, so that each can be found again."""
    labels = np.random.default_rng(seed).integers(classes, size=rows)
    x = np.arange(rows, dtype=np.float32)[:, None]
    return DataSet("numbered", x, tuple(f"class-{v}" for v in labels), ("number",))


@pytest.mark.parametrize("agents", [2, 5, 12])
def test_every_row_goes_to_one_agent_or_to_the_hold_out(agents: int) -> None:
    data = numbered(1200)
    dealt = deal(data, agents, seed=3)
    seen = np.concatenate([share.x[:, 0] for share in dealt.shares] + [dealt.holdout_x[:, 0]])
    assert sorted(seen.tolist()) == list(range(1200))
    for share in dealt.shares:
        assert all(data.y[int(number)] == name for number, name in zip(share.x[:, 0], share.y, strict=True))


def test_the_hold_out_has_every_class_in_its_proportion() -> None:
    data = numbered(1000)
    held, whole = Counter(deal(data, 5, seed=1).holdout_y), Counter(data.y)
    for name, rows in whole.items():
        assert held[name] == round(HOLD_OUT * rows)


def test_shares_of_digits_are_skewed() -> None:
    dealt = deal(digits(), 5, seed=7)
    assert [share.node for share in dealt.shares] == ["pi-1", "pi-2", "pi-3", "pi-4", "pi-5"]
    assert sorted(name for share in dealt.shares for name in share.main) == [str(i) for i in range(10)]
    for share in dealt.shares:
        in_main = sum(name in share.main for name in share.y) / len(share.y)
        assert in_main > 0.6, "two classes of ten would be 0.2 without a skew"
        assert len(set(share.y)) > 2, "and yet nobody is blind to all the others"


def test_the_same_seed_deals_the_same_cards_and_another_does_not() -> None:
    one, same, other = (deal(digits(), 5, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.x, b.x) and a.y == b.y for a, b in zip(one.shares, same.shares, strict=True))
    assert [share.main for share in one.shares] != [share.main for share in other.shares]


def test_more_agents_than_classes_share_the_classes() -> None:
    dealt = deal(numbered(900, classes=2), 5, seed=0)
    assert {share.main for share in dealt.shares} == {("class-0",), ("class-1",)}
    assert all(len(share.y) >= 10 for share in dealt.shares)


def test_a_large_table_is_thinned() -> None:
    dealt = deal(numbered(9000), 2, seed=0)
    assert [len(share.y) for share in dealt.shares] == [SAMPLES_LIMIT, SAMPLES_LIMIT]
    assert len(dealt.holdout_y) < 450


def test_too_few_rows_are_refused_in_words() -> None:
    with pytest.raises(DataError, match=r"30 rows leave .* give it more rows or fewer agents"):
        deal(numbered(30), 5, seed=0)


def test_agents_can_read_what_is_written(tmp_path: Path) -> None:
    dealt = deal(digits(), 3, seed=7)
    terms = Terms("mqtt://127.0.0.1:1883", "demo-1", length_s=20.0, seed=7)
    for file, share in zip(write_files(dealt, tmp_path, terms), dealt.shares, strict=True):
        settings, _ = config.load(file.config, environ={})
        assert (settings.node, settings.site, settings.seed) == (share.node, "demo-1", 7)
        assert settings.source.rate_per_s * 20.0 == pytest.approx(len(share.y))
        with np.load(settings.source.path) as samples, np.load(settings.evaluate.path) as examination:
            assert np.array_equal(samples["x"], share.x) and tuple(samples["y"]) == share.y
            assert np.array_equal(examination["x"], dealt.holdout_x)
        assert len({file.total, len(share.y)}) == 1


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_a_table_becomes_a_data_set(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i / 2},{'ab'[i % 2]},note {i}\n" for i in range(20))
    data = read_table(written(tmp_path, "\ufefflength, width ,kind,remark\n" + rows), "kind")
    assert data.features == ("length", "width")
    assert data.x.shape == (20, 2) and data.x.dtype == np.float32
    assert data.y[:3] == ("a", "b", "a") and data.classes == ("a", "b")
    assert data.notes == ("without remark (not numbers)",)


def test_semicolons_missing_cells_and_rare_classes(tmp_path: Path) -> None:
    rows = "".join(f"{i};{'xy'[i % 2]}\n" for i in range(20))
    data = read_table(written(tmp_path, "v;kind\n" + rows + ";x\nnan;y\n5;z\n\n"), "kind")
    assert data.x[:, 0].tolist() == list(range(20))
    assert data.notes == ("without 2 rows with missing values", "without z (fewer than 5 rows)")


@pytest.mark.parametrize(
    ("text", "label", "said"),
    [
        ("a,kind\n1,x\n", "knd", r"table.csv: no column 'knd'; did you mean 'kind'\?"),
        ("", "kind", "empty"),
        ("a,kind\n", "kind", "a header and no rows"),
        ("a,kind\n1,x\n2,y,3\n", "kind", "line 3: 3 cells under a header of 2 columns"),
        ("a,kind\n1,x\n2,x\nabc,x\n", "kind", "line 4: 'abc' in column 'a' is not a number"),
        ("a,kind\nred,x\nblue,y\n", "kind", "no column of numbers"),
        ("a,kind\n" + "1,x\n" * 9, "kind", "only 'x'.*two classes or more"),
        ("a,kind\n" + "1,x\n2,y\n", "kind", "holds nothing in at least 5 complete rows"),
        ("a,a,kind\n1,2,x\n", "kind", "two columns are called 'a'"),
        ("a,price\n" + "".join(f"1,{i % 70}\n" for i in range(700)), "price", "70 different values"),
    ],
)
def test_a_useless_table_is_refused_in_words(tmp_path: Path, text: str, label: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_table(written(tmp_path, text), label)


def test_a_missing_file_and_a_binary_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "none.csv", "kind")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01,kind\n")
    with pytest.raises(DataError, match=r"binary\.csv"):
        read_table(tmp_path / "binary.csv", "kind")
