"""What was reported, and the sums made of it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from edgeswarm.demo.history import AgentHistory, History
from edgeswarm.demo.summary import Summary, as_json, in_words, percent, raw_bytes, summarise


def two() -> History:
    return History([AgentHistory("a", 100), AgentHistory("b", 50)])


def test_newest_numbers_and_means() -> None:
    history = two()
    history.record(1.0, "a", {"samples": 10, "holdout_swarm": 0.5}, {"b": {"age_s": 2.0}})
    history.record(2.0, "a", {"samples": 20}, {"b": {"age_s": 3.0}, "a": {"age_s": 0.0}, "stranger": {"age_s": 9.0}})
    history.record(2.0, "stranger", {"samples": 1000}, {})
    history.record(2.5, "b", {"samples": 5, "holdout_swarm": 0.7}, {})
    assert history.agents["a"].latest("samples") == 20
    assert history.agents["a"].latest("holdout_swarm") == 0.5, "a report without a number does not unsay it"
    assert history.agents["b"].latest("prototypes") is None
    assert history.mean("holdout_swarm") == pytest.approx(0.6)
    assert history.mean("prototypes") is None
    assert history.total("samples") == 25
    assert history.ages() == {("a", "b"): 3.0}


def test_series_hold_the_reports_with_both_numbers() -> None:
    history = two()
    history.record(1.0, "a", {"samples": 10}, {})
    history.record(2.0, "a", {"samples": 20, "holdout_alone": 0.3}, {})
    history.record(3.0, "a", {"samples": 30, "holdout_alone": 0.4}, {})
    assert history.agents["a"].series("samples", "holdout_alone") == ([20, 30], [0.3, 0.4])
    assert history.agents["a"].series("at_s", "samples") == ([1.0, 2.0, 3.0], [10, 20, 30])


def test_reports_are_weighed() -> None:
    history = two()
    for _ in range(3):
        history.record(1.0, "a", {"samples": 1, "bytes_sent": 1000.0}, {}, size_bytes=200)
    assert summarise(history, 64).report_bytes_per_agent == 300.0


def test_reasons_are_counted_from_the_newest_report() -> None:
    agent = AgentHistory("a", 1)
    history = History([agent])
    assert agent.held() == {}
    history.record(1.0, "a", {"held": 3, "held_no_news": 1, "held_over_budget": 2, "held_turn": 0}, {})
    assert list(agent.held().items()) == [("over_budget", 2), ("no_news", 1)]


def test_all_done_passes_over_the_dead() -> None:
    history = two()
    history.record(1.0, "a", {"finished": 1.0}, {})
    assert not history.all_done()
    history.agents["b"].ended = "out of memory"
    assert history.all_done()


def test_raw_bytes_count_own_samples_once_and_the_others_as_they_come_in() -> None:
    assert raw_bytes([10, 20, 30], features=8) == [32 * 60] * 3
    assert raw_bytes([100], features=1) == [400]


def test_summary_of_a_whole_demo(made_up_history: Callable[..., History]) -> None:
    summary = summarise(made_up_history(agents=2, reports=11, total=100), features=64)
    assert summary.samples == 200 and summary.reported == 2
    assert summary.alone == pytest.approx((0.40 + 0.41) / 2)
    assert summary.together == pytest.approx((0.90 + 0.89) / 2)
    assert summary.bytes_per_agent == pytest.approx((9000 + 9900) / 2 + 36000)
    assert summary.raw_bytes_per_agent == 200 * 64 * 4
    assert summary.saved == pytest.approx(1 - 45450 / 51200)


def test_words_say_what_was_measured_and_what_it_is_compared_with() -> None:
    words = " ".join(in_words(Summary(5, 4, 1000, 64, 0.42, 0.88, 80_000.0, 400_000.0, 20_000.0)))
    for part in (
        "42 %",
        "88 %",
        "60.0 kB of MQTT",
        "20.0 kB more for status reports",
        "400 kB",
        "85 % less",
        "float32, 64 numbers each",
        "1 of 5 devices never",
    ):
        assert part in words
    assert "50 % more" in " ".join(in_words(Summary(5, 5, 10, 4, 0.4, 0.9, 1500.0, 1000.0)))


def test_words_claim_nothing_that_was_not_measured() -> None:
    assert in_words(summarise(two(), 64)) == ["Nobody reported a result in time, so there is nothing to sum up."]
    words = " ".join(in_words(Summary(2, 2, 0, 64, 0.4, 0.9, None, 0.0)))
    assert "cost" not in words and "less" not in words


def test_numbers_for_people() -> None:
    assert (percent(0.873), percent(None), percent(1.0)) == ("87 %", "-", "100 %")


def test_json_has_the_same_keys_however_little_is_known(made_up_history: Callable[..., History]) -> None:
    full, empty = made_up_history(agents=2), two()
    texts = [json.loads(json.dumps(as_json(history, summarise(history, 64)))) for history in (full, empty)]
    assert texts[0]["summary"].keys() == texts[1]["summary"].keys()
    assert texts[0]["agents"][0].keys() == texts[1]["agents"][0].keys()
    assert texts[1]["agents"][0]["holdout_swarm"] is None
    assert texts[0]["agents"][0]["held_why"] == {"no_news": 6}
