"""When training pauses for heat, and when it goes on, on copies of real boards' sensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeswarm.agent.heat import Heat, readings
from edgeswarm.agent.profile import load_profile

ZONE = "sys/class/thermal/thermal_zone"
WORD = "sys/devices/platform/soc/soc:firmware/get_throttled"
PI = load_profile("pi-4").thermal
ORIN = load_profile("jetson-orin-nano-8gb").thermal


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(contents: dict[str, str]) -> Path:
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def pi(temperature_c: float, **more: str) -> dict[str, str]:
    return {f"{ZONE}0/type": "cpu-thermal\n", f"{ZONE}0/temp": f"{temperature_c * 1000:.0f}\n",
            f"{ZONE}0/trip_point_0_type": "critical\n", f"{ZONE}0/trip_point_0_temp": "110000\n", **more}  # fmt: skip


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_pauses_and_goes_on_further_below(put: Callable[..., Path]) -> None:
    """A Pi 4: limit 80, pause from 76 on, go on from 70 down."""
    watch = Watch()
    heat = Heat(PI, put({}), watch)
    course = [60, 75.9, 76, 79, 75, 70.1, 70, 75.9, 76.1, 71, 69]
    wanted = [0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0]
    seen = []
    for temperature_c in course:
        put(pi(temperature_c))
        watch.now_s += PI.poll_s
        seen.append(int(heat.verdict().too_hot))
    assert seen == wanted


def test_it_says_why(put: Callable[..., Path]) -> None:
    found = Heat(PI, put(pi(77))).verdict()
    assert found == (True, 77.0, 80.0, "cpu-thermal is at 77 °C, 3 °C below its limit of 80 °C")
    assert "2 °C above its limit" in Heat(PI, put(pi(82))).verdict().reason
    assert Heat(PI, put(pi(50))).verdict() == (False, 50.0, 80.0, "")


def test_the_sensors_are_read_once_in_poll_s(put: Callable[..., Path]) -> None:
    watch = Watch()
    heat = Heat(PI, put(pi(50)), watch)
    assert heat.verdict().temperature_c == 50.0
    put(pi(90))
    watch.now_s += PI.poll_s - 0.01
    assert heat.verdict().temperature_c == 50.0
    watch.now_s += 0.02
    assert heat.verdict().too_hot


@pytest.mark.parametrize(
    ("word", "too_hot"),
    [
        ("0x0", False),
        ("4", True),
        ("0xe000e", True),
        ("0x50005", False),  # throttled by a weak power supply: a pause does not cure that
        ("0x40000", False),  # has happened, is over
        ("0x8", False),  # the soft limit of a 3B+, at 60 °C
        ("junk", False),
        ("", False),
    ],
)
def test_throttle_bits(put: Callable[..., Path], word: str, too_hot: bool) -> None:
    found = Heat(PI, put(pi(50, **{WORD: word + "\n"}))).verdict()
    assert found.too_hot is too_hot
    assert ("slowed the processor down" in found.reason) is too_hot
    (put({}) / f"{ZONE}0/temp").unlink()
    assert Heat(PI, put({WORD: word})).verdict()[:3] == (too_hot, None, None)


def test_after_throttling_it_must_cool_as_after_heat(put: Callable[..., Path]) -> None:
    watch = Watch()
    heat = Heat(PI, put(pi(74, **{WORD: "4"})), watch)
    assert heat.verdict().too_hot
    put({WORD: "0"})
    watch.now_s += 10
    assert heat.verdict().too_hot, "74 °C is not yet below the margin to go on"
    put(pi(69))
    watch.now_s += 10
    assert not heat.verdict().too_hot


def test_the_zone_nearest_its_own_limit_counts(put: Callable[..., Path]) -> None:
    root = put({
        f"{ZONE}0/type": "cpu-thermal", f"{ZONE}0/temp": "85000",
        f"{ZONE}0/trip_point_0_type": "active", f"{ZONE}0/trip_point_0_temp": "40000",
        f"{ZONE}0/trip_point_1_type": "passive", f"{ZONE}0/trip_point_1_temp": "99000",
        f"{ZONE}1/type": "gpu-thermal", f"{ZONE}1/temp": "83000",
        f"{ZONE}1/trip_point_0_type": "critical", f"{ZONE}1/trip_point_0_temp": "104500",
        f"{ZONE}1/trip_point_1_type": "passive", f"{ZONE}1/trip_point_1_temp": "86000",
        f"{ZONE}1/trip_point_2_type": "passive", f"{ZONE}1/trip_point_2_temp": "-273000",
        f"{ZONE}2/type": "cv0-thermal", f"{ZONE}2/temp": "",
        f"{ZONE}3/type": "PMIC-Die", f"{ZONE}3/temp": "100000",
        f"{ZONE}4/type": "soc0-thermal", f"{ZONE}4/temp": "-256000",
    })  # fmt: skip
    found = readings(ORIN, root)
    assert [reading.zone for reading in found] == ["gpu-thermal", "cpu-thermal"]
    assert Heat(ORIN, root).verdict()[:3] == (True, 83.0, 86.0)


def test_zones_that_answer_with_an_error_are_skipped(put: Callable[..., Path]) -> None:
    root = put(pi(50))
    (root / f"{ZONE}1" / "temp").mkdir(parents=True)  # reading it: EISDIR, as good an error as any
    (root / f"{ZONE}1" / "type").write_text("cpu-thermal")
    (root / f"{ZONE}10").write_text("no folder")
    assert [reading.temperature_c for reading in readings(PI, root)] == [50.0]


def test_all_zones_where_none_is_named(put: Callable[..., Path]) -> None:
    thermal = replace(PI, zones=(), limit_c=70.0)
    root = put({f"{ZONE}0/temp": "66500"})
    assert Heat(thermal, root).verdict() == (
        True, 66.5, 70.0, "thermal_zone0 is at 66 °C, 4 °C below its limit of 70 °C",
    )  # fmt: skip


def test_a_board_without_sensors_is_never_too_hot(put: Callable[..., Path]) -> None:
    assert Heat(PI, put({})).verdict() == (False, None, None, "")


def test_a_sensor_that_falls_silent_does_not_stop_training_for_ever(put: Callable[..., Path]) -> None:
    watch = Watch()
    heat = Heat(PI, put(pi(80)), watch)
    assert heat.verdict().too_hot
    put({f"{ZONE}0/temp": ""})
    watch.now_s += 10
    assert heat.verdict() == (False, None, None, "")


def test_of_this_machine() -> None:
    found = Heat.of(load_profile("generic-aarch64")).verdict()
    assert found.temperature_c is None or -60 < found.temperature_c < 250
