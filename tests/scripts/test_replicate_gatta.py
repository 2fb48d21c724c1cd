"""The parts of scripts/replicate/gatta.py: partitions, a short run, overlap, and lines that can fail."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import campaign
import gatta
import image_sets
import numpy as np
import pytest
import tables

from tests.tiny_model import tiny

LABELS = tuple("0123456789")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small stand-in for MNIST: each class has a bright row of its own."""
    path = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 3000), ("test", 1000)):
        y = np.arange(count) % 10
        x = rng.integers(0, 60, (count, 28, 28), np.uint8)
        x[np.arange(count), 2 * y] = 255
        arrays |= {f"x_{part}": x, f"y_{part}": y.astype(np.uint8)}
    np.savez(path / "mnist.npz", **arrays)
    return path


def test_tasks_are_dealt_as_the_specification_says(folder: Path) -> None:
    for task, images in (("random", 30), ("clustered", 15)):
        data, tests, classes = gatta.dealt(task, 1, folder)
        assert len(data) == 20 and all(x.shape == (images, 784) and x.dtype == np.float32 for x, _ in data)
        for (x, y), (_, y_test), own in zip(data, tests, classes, strict=True):
            assert np.bincount(y).max() == images // 3 and len(own) == 3 and 0 <= x.min() <= x.max() <= 1
            assert set(y_test) == set(own) and len(y_test) == 300, "100 test images of each class are all there are"
    assert [tuple(own) for own in classes[:4]] == [(0, 1, 8), (2, 3, 5), (4, 7, 9), (1, 3, 6)]
    assert all(np.array_equal(one, two) for one, two in zip(classes, classes[4:], strict=False))


def test_permuted_labels_differ_between_nodes_and_agree_within_one(folder: Path) -> None:
    data, tests, _ = gatta.dealt("permuted", 0, folder)
    orders = []
    for (x, y), (x_test, y_test) in zip(data, tests, strict=True):
        bright = [rows.reshape(-1, 28, 28)[:, :20:2].mean(axis=2).argmax(axis=1) for rows in (x, x_test)]
        order = {int(name): int(label) for name, label in zip(bright[1], y_test, strict=True)}
        assert [order[int(name)] for name in bright[0]] == y.tolist()
        orders.append(tuple(order.get(name, -1) for name in range(10)))
    assert len(set(orders)) == 20


def test_dirichlet_tests_are_in_proportion(folder: Path) -> None:
    data, tests, _ = gatta.dealt("dirichlet", 0, folder)
    for (_, y), (_, y_test) in zip(data, tests, strict=True):
        own, tested = (np.bincount(each, minlength=10) / len(each) for each in (y, y_test))
        assert ((own > 0) == (tested > 0)).all()


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--data FOLDER names the folder with mnist"):
        image_sets.images("mnist", tmp_path)


def test_a_short_run_counts_bytes_heads_and_overlap(folder: Path) -> None:
    pytest.importorskip("onnxruntime", reason="rounds run on onnxruntime")
    model = tiny((784,), LABELS, embedding=4)
    found = {arm: gatta.run("clustered", arm, 0, folder, model, rounds=5) for arm in (gatta.CONTROL, gatta.OURS, "B")}
    again = gatta.run("clustered", gatta.OURS, 0, folder, model, rounds=5)
    assert {**again, "seconds": 0} == {**found[gatta.OURS], "seconds": 0}
    assert found[gatta.CONTROL]["head_bytes_received"] == 0 < found["B"]["head_bytes_received"]
    numbers = model.card.size - model.card.body_size
    assert found["B"]["head_bytes_received"] == found["B"]["heads_received"] * 4 * numbers
    assert found[gatta.CONTROL]["bytes"] > 4 * found[gatta.OURS]["bytes"]
    assert found["B"]["overlap"] > 0 and 0 < found["B"]["accuracy"] <= 100


def test_start_vectors_are_drawn_within_their_reach() -> None:
    model = tiny((3,), LABELS, embedding=4)
    one, two = gatta.begun(model, 0), gatta.begun(model, 1)
    assert one.shape == model.initial.shape and one.dtype == np.float32 and not np.array_equal(one, two)
    assert np.array_equal(one, gatta.begun(model, 0)) and 0.3 < np.abs(one).max() <= 0.5


def invented(**accuracies: float) -> Any:
    """Runs of both tasks in which every arm has the same figures but for those given."""
    arms = {}
    for arm in gatta.ARMS:
        bytes_each = 10.0 if arm == gatta.OURS else 100.0
        figures = {"bytes": bytes_each, "head_bytes_received": 5.0, "overlap": 2.0, "seconds": 1.0}
        arms[arm] = [{"accuracy": 85.0, **figures}]
    arms["full averaging"][0]["accuracy"] = 75.0
    arms[gatta.AT_TORCHS["full averaging"]][0]["accuracy"] = 75.0
    arms["local only"][0]["accuracy"] = 80.0
    arms["A, mix 0.5, whole-link skip"][0]["accuracy"] = 80.0
    arms[gatta.OURS][0]["accuracy"] = 87.0
    for arm, accuracy in accuracies.items():
        arms[{"ours": gatta.OURS, "control": gatta.CONTROL}.get(arm, arm)][0]["accuracy"] = accuracy
    return dict.fromkeys(gatta.PAPER, arms)


def unmet(runs: Any) -> set[str]:
    return {line.claim.split()[0] for line in tables.drawn(gatta.LINES, runs) if line.met is False}


def decided(runs: Any) -> str:
    return " ".join(line.claim.split()[0] for line in tables.drawn(gatta.LINES, runs))


WHOLE = "2a 2a 2b 3 4 5a 5b 5c 6 7a 7b 7c 7d"
"""Lines of a run of every arm, besides the first, which needs none."""


def test_lines_are_met_and_missed() -> None:
    assert unmet(invented()) == set()
    assert unmet(invented(ours=84.0)) == {"7a", "7b", "7d"}
    assert unmet(invented(**{gatta.CHEAP_CONTROL: 88.0})) == {"7d"}
    assert unmet(invented(**{gatta.AT_TORCHS["B"]: 82.9})) == {"2a"}
    assert unmet(invented(B=83.0)) == {"2b", "4"}
    assert unmet(invented(B=82.0)) == {"2a", "2b", "4"}
    assert unmet(invented(**{"A, mix 0.5, whole-link skip": 86.0})) == {"5c"}
    assert unmet(invented(**{"B, mix 0.5, head-only skip": 83.5})) == {"5a"}
    dear = invented()
    dear["random"][gatta.OURS][0]["bytes"] = 30.0
    assert unmet(dear) == {"7c"}
    blind = invented()
    blind["random"]["B"][0]["overlap"] = 1.5
    assert unmet(blind) == {"3"}


def test_a_whole_run_decides_every_line_and_what_has_no_number_is_not_met() -> None:
    runs = invented()
    assert decided(runs) == WHOLE
    runs["random"]["B"].clear()
    assert decided(runs) == WHOLE and unmet(runs) == {"2a", "2b", "3", "4", "6"}
    assert unmet({task: {arm: [] for arm in gatta.ARMS} for task in gatta.PAPER}) == set(WHOLE.split())


def test_what_was_not_asked_for_leaves_its_lines_out() -> None:
    runs = invented()
    del runs["random"]["B"]
    assert decided(runs) == "2a 5a 5b 5c 7a 7b 7c 7d"
    quick = {"clustered": {arm: invented()["clustered"][arm] for arm in gatta.QUICK}}
    assert decided(quick) == "7a 7b 7c 7d" and unmet(quick) == set()
    assert decided({"cifar": quick["clustered"]}) == "7a 7c 7d"


@pytest.mark.parametrize(
    ("figure", "lines"),
    [("accuracy", "2a 2b 4 5a 5c 6 7a 7b 7d"), ("overlap", "3"), ("bytes", "5b 7c 7d"), ("head_bytes_received", "5b")],
)
def test_a_figure_under_another_name_is_missed(figure: str, lines: str) -> None:
    runs = invented()
    for (one,) in runs["random"].values():
        one["mistaken"] = one.pop(figure)
    assert decided(runs) == WHOLE and unmet(runs) == set(lines.split())
    texts = tables.missed(tables.drawn(gatta.LINES, runs))
    assert texts and all(f"no number: KeyError('{figure}')" in text for text in texts)


def test_the_table_prints(capsys: pytest.CaptureFixture[str]) -> None:
    runs = invented(ours=84.0)
    gatta.show(runs, tables.drawn(gatta.LINES, runs))
    printed = capsys.readouterr().out
    assert "NOT MET" in printed and "clustered -1.0" in printed and "10.0 times" in printed


def test_what_is_missed_is_named_and_what_is_open_is_not() -> None:
    lines = [
        tables.Line("  claim", ">= 1", "0.5", False),
        tables.Line("b", "x", "y", None),
        tables.Line("c", "x", "y", True),
    ]
    assert tables.missed(lines) == ["claim (>= 1): 0.5"]
    assert tables.missed([]) == ["no line is decided by the arms that were asked for"]
    said = tables.lines_table(lines).splitlines()
    assert [row.split()[-1] for row in said[1:]] == ["MET", "-", "met"] and "0.5   NOT MET" in said[1]


@pytest.mark.parametrize(("words", "seeds"), [("--seeds 2 --first-seed 5", range(5, 7)), ("--quick", range(1))])
def test_seeds_of_a_campaign(monkeypatch: pytest.MonkeyPatch, words: str, seeds: range) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *words.split()])
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    assert campaign.seeds(campaign.options(parser, "more", "chosen on seed 0")) == seeds


def test_a_campaign_says_what_it_found_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("joblib", reason="runs go side by side through joblib")
    jobs = [("a", 0), ("b", 1)]
    found = list(campaign.played(lambda arm, seed: {"seconds": 2.0, "of": arm * 2}, jobs, 1, lambda each: each["of"]))
    assert [(job, each["of"]) for job, each in found] == [(("a", 0), "aa"), (("b", 1), "bb")]
    assert "2/2 b, seed 1: bb in 2 s" in capsys.readouterr().err


def test_jpeg_images_that_lie_end_to_end_are_opened(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="CIFAR-10 is kept as JPEG, which Pillow reads")
    greys, ends, codes = (40, 200), [], b""
    for grey in greys:
        out = io.BytesIO()
        image.fromarray(np.full((32, 32, 3), grey, np.uint8)).save(out, "JPEG")
        codes += out.getvalue()
        ends.append(len(codes))
    half = {"jpeg": np.frombuffer(codes, np.uint8), "end": np.array(ends), "y": np.array([3, 4], np.uint8)}
    np.savez(
        tmp_path / "cifar10_jpeg.npz", **{f"{key}_{part}": half[key] for key in half for part in ("train", "test")}
    )
    found, labels, x_test, _ = image_sets.images("cifar10_jpeg", tmp_path)
    assert found.shape == (2, 3, 32, 32) and found.dtype == np.uint8 and labels.tolist() == [3, 4]
    assert np.abs(found.mean(axis=(1, 2, 3)) - greys).max() < 2 and np.array_equal(found, x_test)
    rows = image_sets.scaled(found)
    assert rows.shape == (2, 3072) and rows.dtype == np.float32 and np.abs(rows.mean(axis=1) * 255 - greys).max() < 2
