"""The demo with images: archives of them, an encoder trained beforehand, and the picture of accuracy against bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeswarm.backends.choose import choose
from edgeswarm.demo import beside, encoder, image_data
from edgeswarm.demo.broker import find_mosquitto
from edgeswarm.demo.bytes_picture import Comparison, Curve, live_curve, save_bytes_picture
from edgeswarm.demo.data import deal
from edgeswarm.errors import DataError
from tests.demo.test_demo_run import Demo

ROOT = Path(__file__).resolve().parents[2]


def enlarged_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits as images of 28 x 28 bytes: each of 8 x 8 pixels becomes 3 x 3."""
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")
    found = datasets.load_digits()
    large = np.kron(found.images, np.ones((3, 3))) * (255 / 16)
    return np.pad(large, ((0, 0), (2, 2), (2, 2))).astype(np.uint8), found.target


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, y = enlarged_digits()
    path = tmp_path_factory.mktemp("images") / "digits.npz"
    np.savez(path, x=x, y=y)
    return path


def test_images_come_as_numbers_from_0_to_1(archive: Path) -> None:
    images = image_data.read_images(archive)
    assert images.shape == (28, 28, 1) and images.x.dtype == np.float32
    assert images.x.min() == 0.0 and images.x.max() == 1.0
    assert set(images.y) == set("0123456789")


def test_the_laboratory_and_the_field_share_no_image(archive: Path) -> None:
    images = image_data.read_images(archive)
    laboratory, field = image_data.split(images, 3)
    assert len(laboratory.y) == image_data.LABORATORY
    assert len(field.y) == len(images.y) - image_data.LABORATORY
    everything = sorted(map(bytes, np.concatenate([laboratory.x.reshape(len(laboratory.y), -1), field.x])))
    assert everything == sorted(map(bytes, images.x.reshape(len(images.y), -1)))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": np.zeros(3)}, "no array 'x'"),
        ({"x": np.zeros((3, 8, 8))}, "no array 'y'"),
        ({"x": np.zeros((3, 8)), "y": np.zeros(3)}, "images are (n, height, width[, 1 or 3])"),
        ({"x": np.zeros((3, 8, 8, 4)), "y": np.zeros(3)}, "images are (n, height, width[, 1 or 3])"),
        ({"x": np.zeros((3, 8, 8)), "y": np.zeros(4)}, "3 images in 'x', labels in 'y' have shape (4,)"),
        ({"x": np.array([[["a"]]]), "y": np.zeros(1)}, "images are"),
    ],
)
def test_an_archive_that_cannot_be_used_says_why(tmp_path: Path, arrays: dict, says: str) -> None:
    path = tmp_path / "odd.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        image_data.read_images(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_other_bytes_are_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.npz"):
        image_data.read_images(path)
    with pytest.raises(DataError, match=r"none\.npz: No such file"):
        image_data.read_images(tmp_path / "none.npz")


def test_too_few_images(archive: Path) -> None:
    images = image_data.read_images(archive)
    few = image_data.Images("few", images.x[:900], images.y[:900])
    with pytest.raises(DataError, match="at least 1000"):
        image_data.split(few, 0)


def test_an_encoder_is_trained_without_any_device(archive: Path) -> None:
    laboratory, field = image_data.split(image_data.read_images(archive), 3)
    told: list[float] = []
    backend, _ = choose(("onnx",))
    exam = field.x[:300], field.y[:300]
    made = encoder.train(laboratory, backend, 3, exam, told.append)
    assert told[-1] == 1.0 and len(told) == encoder.EPOCHS
    assert made.accuracy > 0.75  # a tenth by chance
    assert made.model.card.embedding >= 64
    assert made.model.card.hash != encoder.template((28, 28, 1)).card.hash
    again = encoder.train(laboratory, backend, 3, exam, told.append)
    assert again.model.card.hash == made.model.card.hash


def test_no_template_for_that_shape() -> None:
    with pytest.raises(DataError, match="28 x 28 grey or 32 x 32 colour, not 9 x 8 with 1 channels"):
        encoder.template((9, 8, 1))


def test_the_templates_are_what_is_built_today() -> None:
    pytest.importorskip("torch", reason="building a model needs the torch extra")
    pytest.importorskip("onnxscript", reason="building a model needs the torch extra")
    from tests.zoo import built

    card = encoder.template((28, 28, 1)).card
    fresh = built("lenet5", 10).card
    assert card.parameters == fresh.parameters and card.losses == fresh.losses and card.input.shape == fresh.input.shape


def test_the_picture_shows_every_curve(tmp_path: Path, made_up_history) -> None:
    image = pytest.importorskip("PIL.Image", reason="the picture is looked at with Pillow")
    pytest.importorskip("matplotlib", reason="the picture is drawn with matplotlib")
    live = live_curve(made_up_history(), "measured")
    assert live is not None
    assert list(live.sizes_bytes) == sorted(live.sizes_bytes) and live.accuracy[-1] > live.accuracy[0]
    other = Curve("simulated", (100_000.0, 900_000.0), (0.2, 0.7))
    path = tmp_path / "new" / "bytes.png"
    save_bytes_picture(live, Comparison((other,), 0.5, 0.8, 1e6, 0.9), "a title with $ in it", path)
    with image.open(path) as drawn:
        assert drawn.size == (1100, 700)
        colours = drawn.convert("RGB").getcolors(1 << 20)
    shades = {rgb for _, rgb in colours}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)} <= shades


def test_no_curve_without_reports(made_up_history) -> None:
    history = made_up_history(reports=1)
    assert live_curve(history, "measured") is None


def test_the_simulated_swarm_learns_pixels(archive: Path) -> None:
    _, field = image_data.split(image_data.read_images(archive), 3)
    dealt = deal(field, 2, 3)
    shares = tuple(type(s)(s.node, s.x[:60], s.y[:60], s.main) for s in dealt.shares)
    small = type(dealt)(dealt.data, shares, dealt.holdout_x[:60], dealt.holdout_y[:60])
    curve = beside.on_pixels(small, 6.0, 2.0, 3)
    assert len(curve.accuracy) == beside.EXAMS and curve.accuracy[-1] > 0.3
    assert curve.sizes_bytes[-1] > curve.sizes_bytes[0] > 0
    assert beside.with_everything(shares[0].x, shares[0].y, (shares[0].x, shares[0].y), 3) > 0.6


def test_images_and_label_do_not_go_together() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeswarm", "demo", "--images", "--label", "y"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2 and "--label" in done.stderr


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.skipif(find_mosquitto() is None, reason="Mosquitto is not installed")
def test_the_whole_demo_with_images(tmp_path: Path, archive: Path) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")
    demo = Demo(tmp_path, "--images", "--data", str(archive), "--agents", "2", "--seconds", "6", "--json")
    out, err = demo.end()
    assert demo.process.returncode == 0, err
    told = json.loads(out)
    assert told["encoder"]["embedding"] >= 64
    summary = told["summary"]
    assert summary["together"] > summary["alone"] and summary["together"] > 0.6
    assert summary["sharing_bytes_per_agent"] < summary["raw_bytes_per_agent"]
    assert summary["feature_bytes"] == 1
    assert (tmp_path / told["picture_bytes"]).is_file()
    assert demo.left_running() == []
