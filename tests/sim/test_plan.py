"""A plan: its formulas against what a run counts, its limits, and which method it names and why."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeswarm.errors import ConfigError
from edgeswarm.models.perceptron import perceptron
from edgeswarm.sim import estimate
from edgeswarm.sim import plan as plans
from edgeswarm.sim.data import DataSet
from edgeswarm.sim.estimate import Demand, Estimate, Place, estimates
from edgeswarm.sim.methods import CANDIDATES
from edgeswarm.sim.plan import Played, plan
from edgeswarm.sim.run import run
from edgeswarm.sim.scenario import changed, load
from edgeswarm.sim.traffic import DAY_S

FREE = Demand(1e15)


def blobs(rows: int = 600, features: int = 12, classes: int = 4) -> DataSet:
    rng = np.random.default_rng(3)
    centres = 2.0 * rng.standard_normal((classes, features))
    y = np.arange(rows) % classes
    x = (centres[y] + rng.standard_normal((rows, features))).astype(np.float32)
    return DataSet("blobs", x, tuple(f"c{label}" for label in y), tuple(f"f{at}" for at in range(features)))


DATA = blobs()


def place(hidden: int = 16, features: int = 12, classes: int = 4, **settings: object) -> Place:
    said = {
        "swarm.nodes": 6,
        "model.hidden": hidden,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    scenario = load(None, said)
    flat = np.zeros(features, np.float32)
    labels = [str(number) for number in range(classes)]
    card, headed = (perceptron(labels, flat, flat + 1, hidden, heads=heads).card for heads in (0, scenario.model.heads))
    graph = scenario.topology().graph(scenario.names[0], scenario.names)
    return Place(scenario, graph, features, classes, card, headed, scenario.public.rows)


def of(method: str, where: Place, demand: Demand = FREE) -> Estimate:
    return next(each for each in estimates(where, demand) if each.method == method)


# ---- formulas against a run -----------------------------------------------------------------------------------------


def counted(each: Estimate, where: Place, rounds: int = 40) -> tuple[float, float]:
    """Bytes of a device in a day, sent and received, in the second half of a run."""
    pytest.importorskip("onnxruntime")
    duration_s = rounds * each.period_s
    knobs = {f"strategy.{key}": value for key, value in each.settings.items()}
    told = {"strategy.name": each.method, **knobs, "swarm.duration_s": duration_s, "report.every_s": duration_s / 2}
    outcome = run(changed(where.scenario, told), data=DATA)
    scale = DAY_S / (duration_s / 2)
    sent, received = (
        (outcome.mean(key, 1) or 0.0) - (outcome.mean(key, 0) or 0.0) for key in ("bytes_sent", "bytes_received")
    )
    return sent * scale, received * scale


@pytest.mark.parametrize("kind", ["ring", "full"])
@pytest.mark.parametrize("method", ["d_psgd", "global_update_tracking", "gatta"])
def test_bytes_of_models_are_what_a_run_counts(method: str, kind: str) -> None:
    where = place(hidden=64, graph__kind=kind)
    each = of(method, where)
    sent, received = counted(each, where)
    assert each.sent_bytes == pytest.approx(sent, rel=0.03) and each.received_bytes == pytest.approx(received, rel=0.03)
    assert not each.most and each.link_bytes == each.sent_bytes


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        ("d_psgd", {"scheme": "entropy"}),
        ("global_update_tracking", {"scheme": "int8"}),
        ("global_update_tracking", {"scheme": "float16"}),
        ("gatta", {}),
    ],
)
def test_bytes_where_messages_are_lost_are_what_a_run_counts(method: str, knobs: dict[str, Any]) -> None:
    """What is lost and asked for is sent again, as whole float32 vectors where differences are told."""
    given = {f"strategy__{name}": value for name, value in {"name": method, **knobs}.items()}
    where = place(hidden=256, graph__kind="ring", network__loss=0.2, **given)
    each = of(method, where)
    sent, received = counted(each, where, rounds=400)
    assert each.sent_bytes == pytest.approx(sent, rel=0.1) and each.received_bytes == pytest.approx(received, rel=0.1)


@pytest.mark.parametrize("method", ["prototype_gossip", "prototype_distillation", "multi_headed_distillation"])
def test_bytes_of_what_is_told_when_there_is_news_are_at_most_those(method: str) -> None:
    where = place(graph__kind="ring")
    each = of(method, where)
    sent, received = counted(each, where)
    assert each.most and sent <= each.sent_bytes and received <= each.received_bytes


def test_a_slower_body_costs_less() -> None:
    where = place(strategy__name="gatta", strategy__body_every=4)
    often, seldom = of("gatta", place()), of("gatta", where)
    body = next(told for told in often.told if told.what == "body").size_bytes
    rounds = DAY_S / often.period_s
    assert often.sent_bytes - seldom.sent_bytes == pytest.approx(0.75 * body * rounds)


# ---- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in CANDIDATES if name != "isolated"])
def test_the_period_keeps_to_the_traffic(method: str) -> None:
    free = of(method, place(hidden=256))
    each = of(method, place(hidden=256), Demand(free.day_bytes / 7))
    assert each.day_bytes <= free.day_bytes / 7 * (1 + 1e-9) and each.limited_by == "traffic"
    if "budget_bytes_per_s" in each.settings:
        assert each.period_s == free.period_s  # it looks as often and says less
    else:
        assert 7 * free.period_s <= each.period_s <= 1.11 * 7 * free.period_s
        assert each.age_s > 6 * free.age_s


def test_the_period_keeps_to_the_link_and_the_board() -> None:
    slow = of("d_psgd", place(hidden=256, network__uplink_bytes_per_s=100.0))
    size = slow.told[0].size_bytes
    assert slow.limited_by == "uplink" and slow.period_s == pytest.approx(2 * size / 100, rel=0.1)
    assert slow.age_s == pytest.approx(slow.period_s / 2 + size / 100)
    narrow = of("d_psgd", place(hidden=256, network__downlink_bytes_per_s=100.0))
    assert narrow.limited_by == "downlink" and narrow.period_s == pytest.approx(5 * slow.period_s, rel=0.1)
    busy = place(
        hidden=4096, features=2000, strategy__name="d_psgd", strategy__steps=1000, **{"boards__pi-zero-2w": 1.0}
    )
    each = of("d_psgd", busy)
    step_s = each.step_s["pi-zero-2w"]
    assert step_s is not None and each.limited_by == "computing"
    assert each.period_s == pytest.approx(2 * 1000 * step_s, rel=0.1)


def test_loss_makes_what_is_known_older() -> None:
    assert of("d_psgd", place(network__loss=0.5)).age_s == pytest.approx(3 * of("d_psgd", place()).age_s)


def test_what_does_not_fit_is_refused_with_the_figure() -> None:
    card = replace(place().card, activation_bytes=10**9)
    where = replace(place(**{"boards__pi-zero-2w": 1.0}), card=card)
    assert of("d_psgd", where).refused.startswith("pi-zero-2w: ")
    assert "MB of memory" in of("d_psgd", where).refused
    assert not of("prototype_gossip", where).refused
    seldom = of("d_psgd", place(hidden=4096, features=2000), Demand(1e6))
    assert seldom.refused.startswith("its traffic allows a round in")


def test_a_model_that_a_method_cannot_use_is_refused() -> None:
    where = place()
    assert (
        of("multi_headed_distillation", replace(where, headed=where.card)).refused == "the model has no auxiliary heads"
    )
    assert of("d_psgd", replace(where, card=replace(where.card, losses={}))).refused.endswith("cannot be trained")


def test_memory_grows_with_the_neighbours() -> None:
    ring, full = (of("d_psgd", place(graph__kind=kind, **{"boards__pi-4": 1.0})) for kind in ("ring", "full"))
    assert full.memory_bytes["pi-4"] - ring.memory_bytes["pi-4"] == 3 * 4 * place().card.size


def test_opinions_take_memory_for_as_many_as_are_listened_to() -> None:
    few, most, more = (
        of("multi_headed_distillation", place(swarm__nodes=nodes, graph__kind="full", **{"boards__pi-4": 1.0}))
        for nodes in (20, 33, 40)
    )
    assert few.memory_bytes["pi-4"] < most.memory_bytes["pi-4"] == more.memory_bytes["pi-4"]


def test_a_device_alone_tells_nobody() -> None:
    each = of("d_psgd", place(swarm__nodes=1))
    assert each.day_bytes == 0 and math.isinf(each.age_s)


# ---- which one ------------------------------------------------------------------------------------------------------


def played(own: float, common: float, day_bytes: float, rows: int = 2000) -> Played:
    """As of one device that knows the first of so many rows."""
    marks = {"own": own, "common": common}
    answers = {goal: (np.arange(rows) < round(mark * rows)).astype(float)[None] for goal, mark in marks.items()}
    return Played(own, common, day_bytes, 5.0, 60.0, 0.1, answers)


def recommended(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Played], goal: str = "common", traffic_bytes: float = 1e12
) -> Any:
    monkeypatch.setattr(plans, "play", lambda *told: (found, {}, 600.0))
    return plan(place(), Demand(traffic_bytes, goal), DATA)


def test_the_most_accurate_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"isolated": played(0.9, 0.5, 0), "d_psgd": played(0.8, 0.9, 5e6), "gatta": played(0.95, 0.7, 6e6)}
    made = recommended(monkeypatch, found)
    assert (made.choice, made.next_best) == ("d_psgd", "gatta")
    assert made.reasons[0] == "with d_psgd a device recognises 90.0 % (all classes alike) for 5.0 MB a day"
    assert "20.0 points less for 6.0 MB" in made.reasons[2] and "alone recognises 50.0 %" in made.reasons[1]
    own = recommended(monkeypatch, found, "own")
    assert (own.choice, own.next_best) == ("gatta", "isolated")


def test_what_took_too_much_when_played_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"isolated": played(0.9, 0.5, 0), "d_psgd": played(0.8, 0.9, 1.2e8), "gatta": played(0.95, 0.7, 1.02e8)}
    made = recommended(monkeypatch, found, traffic_bytes=1e8)
    assert (made.choice, made.next_best, made.over) == ("gatta", "isolated", ("d_psgd", "gatta"))
    assert "d_psgd took 120 MB a day when simulated, more than the limit of 100 MB: left out" in made.reasons
    assert "gatta took 102 MB a day when simulated, more than the limit of 100 MB" in made.reasons
    assert made.plain()["methods"]["d_psgd"]["over"] and not made.plain()["methods"]["isolated"]["over"]
    nothing = recommended(
        monkeypatch, {name: each for name, each in found.items() if each.day_bytes}, traffic_bytes=1e6
    )
    assert nothing.choice == "gatta" and "gatta" in nothing.over, "the fewest bytes, named as too many"


def test_what_a_budget_limits_is_not_called_its_period(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recommended(monkeypatch, {"prototype_gossip": played(0.9, 0.9, 1e4)}, traffic_bytes=2e4)
    assert made.estimate("prototype_gossip").limited_by == "traffic"
    said = next(reason for reason in made.reasons if "is set by traffic" in reason)
    assert said.startswith("its budget of ")


def test_among_equals_the_cheapest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "d_psgd": played(0.9, 0.905, 5e7),
        "prototype_gossip": played(0.9, 0.9, 1e6),
        "isolated": played(0.9, 0.4, 0),
    }
    assert recommended(monkeypatch, found).choice == "prototype_gossip"
    alone = {**found, "isolated": played(0.9, 0.899, 0)}
    made = recommended(monkeypatch, alone)
    assert made.choice == "isolated" and "learning alone" in made.reasons[1]


def test_of_equal_bytes_the_more_accurate_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"d_psgd": played(0.9, 0.900, 1.00e6), "global_update_tracking": played(0.9, 0.905, 1.01e6)}
    assert recommended(monkeypatch, found).choice == "global_update_tracking"


def test_what_few_rows_cannot_tell_apart_is_a_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows, choice in ((2000, "d_psgd"), (100, "prototype_gossip")):
        found = {"d_psgd": played(0.9, 0.90, 5e7, rows), "prototype_gossip": played(0.9, 0.88, 1e6, rows)}
        made = recommended(monkeypatch, found)
        assert made.choice == choice and made.examined_rows == made.plain()["examined_rows"] == rows
        said = next(reason for reason in made.reasons if reason.startswith("next best: "))
        assert ("a tie (with 100 rows" in said) == (rows == 100), said
    assert "2.0 points more, a tie" in said and made.plain()["methods"]["d_psgd"]["played"]["error"] > 0.01


def test_the_most_accurate_is_named_where_two_cheaper_ones_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"d_psgd": played(0.9, 0.905, 5e7), "prototype_gossip": played(0.9, 0.9, 1e6),
             "prototype_distillation": played(0.9, 0.898, 2e6)}  # fmt: skip
    made = recommended(monkeypatch, found)
    assert (made.choice, made.next_best) == ("prototype_gossip", "prototype_distillation")
    assert any(reason.startswith("the most accurate: d_psgd, 0.5 points more, a tie") for reason in made.reasons)


def test_what_falls_later_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two are played again for longer, and whoever is first then too, until the first two have been."""
    marks = {"qg_dsgdm": (0.95, 0.7), "d_psgd": (0.9, 0.91), "gatta": (0.8, 0.8), "isolated": (0.5, 0.99)}

    def told(stand: Any, each: Estimate, times: int, before: Played | None) -> Played:
        mark = marks[each.method][times > 1]
        short = {"common": before.accuracy_common} if before else {}
        return replace(played(mark, mark, 1e6 * (each.method != "isolated")), short=short)

    monkeypatch.setattr(estimate, "CANDIDATES", tuple(marks))
    monkeypatch.setattr(plans, "_with_rounds", told)
    lines: list[str] = []
    made = plan(place(), FREE, DATA, tell=lines.append)
    assert (made.choice, made.next_best) == ("d_psgd", "gatta")
    assert lines[4:] == [f"{name} once more, 5 times as long" for name in ("qg_dsgdm", "d_psgd", "gatta")]
    assert "d_psgd is as after 50 min; after 10 min it was 90.0 %" in made.reasons


def test_bytes_are_those_of_the_period_that_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slow candidate stretches the time of all, and with it the period that others are played with."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(estimate, "CANDIDATES", ("d_psgd", "multi_headed_distillation"))
    monkeypatch.setattr(plans, "ROUNDS", 6)
    monkeypatch.setattr(plans, "MOST_ROUNDS", 6)
    monkeypatch.setattr(plans, "LONGER", 2)
    limit = 1.01 * of("d_psgd", place()).day_bytes
    made = plan(place(), Demand(limit), DATA)
    quick, slow = made.played["d_psgd"], made.played["multi_headed_distillation"]
    mine, longest_s = made.estimate("d_psgd"), made.estimate("multi_headed_distillation").period_s
    assert mine.period_s == 10.0 and quick.period_s == slow.period_s == longest_s > 20.0
    assert quick.day_bytes == pytest.approx(mine.day_bytes, rel=0.02) and slow.day_bytes <= limit
    noted = [reason for reason in made.reasons if "s instead of every 10 s" in reason]
    assert len(noted) == 1 and noted[0].endswith("its bytes are those of its own period (d_psgd)")


def test_all_samples_are_there_and_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "swarm.toml"
    site.write_text('[data]\nrate_per_s = 0.01\n[[event]]\nat_s = 60\nkind = "crash"\nnodes = ["n1"]\n')
    scenario = load(site, {"swarm.nodes": 6})
    few = plans._few(scenario)
    assert few.data.rate_per_s == 0 and not few.events and scenario.events
    monkeypatch.setattr(plans, "play", lambda *told: ({"isolated": played(0.9, 0.5, 0)}, {}, 600.0))
    made = plan(replace(place(), scenario=scenario), FREE, DATA)
    assert "note: nothing is simulated of [[event]]: the devices of a plan are always there" in made.reasons


def test_files_of_the_devices_are_dealt_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more devices than are played with, the first files; of more rows than are played with, a part of each."""
    monkeypatch.setattr(plans, "NODES", 3)
    monkeypatch.setattr(plans, "SAMPLE_ROWS", 200)
    files = {f"site-{at}": np.arange(100 * at, 100 * at + 100) for at in range(6)}
    data = replace(DATA, parts=files)
    scenario = load(None, {"swarm.nodes": 6, "data.split": "files", "data.path": "hall"})
    found = plans._sample(plans._fewer_files(data, scenario), 0)
    assert list(found.parts) == ["site-0", "site-1", "site-2"] and len(found.y) == 200
    assert sorted(np.concatenate(list(found.parts.values())).tolist()) == list(range(200))
    for at, places in enumerate(found.parts.values()):
        mine = {row.tobytes() for row in DATA.x[100 * at : 100 * at + 100]}
        assert len(places) > 50 and all(row.tobytes() in mine for row in found.x[places])
    assert plans.model_for(scenario, "d_psgd", data, "reference") is not None


def test_without_a_simulation_a_rule_decides() -> None:
    made = plan(place(), Demand(1e12, "own"))
    assert made.choice == "gatta" and made.reasons[0].startswith("by rule, nothing was simulated") and not made.played
    tight = plan(place(hidden=4096, features=2000), Demand(1e6))
    assert tight.choice not in ("d_psgd", "global_update_tracking", "gatta")
    assert any(reason.startswith("d_psgd does not fit: its traffic") for reason in tight.reasons)


def test_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "CANDIDATES", ("d_psgd",))
    with pytest.raises(ConfigError, match="no method fits: d_psgd does not, because its traffic"):
        plan(place(hidden=4096, features=2000), Demand(1e5))


def test_a_plan_is_played_and_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Really simulated: a swarm of unlike devices beats one that learns alone, and says so with its bytes."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(estimate, "CANDIDATES", ("isolated", "d_psgd"))
    monkeypatch.setattr(plans, "ROUNDS", 20)
    lines: list[str] = []
    made = plan(place(data__split="main_class", data__share=1.0), Demand(1e12), DATA, tell=lines.append)
    assert made.choice == "d_psgd" and made.next_best == "isolated" and len(lines) == 4
    assert made.played["d_psgd"].rounds == 100 and made.played["d_psgd"].short["common"] > 0.5
    assert made.played["d_psgd"].accuracy_common > made.played["isolated"].accuracy_common + 0.2
    assert made.played["d_psgd"].day_bytes == pytest.approx(made.estimate("d_psgd").day_bytes, rel=0.1)
    shown = json.loads(json.dumps(made.plain(), allow_nan=True))
    assert shown["methods"]["d_psgd"]["played"]["accuracy_common"] == made.played["d_psgd"].accuracy_common


@pytest.mark.parametrize(
    ("kind", "smaller"), [("ring", "ring"), ("torus", "torus"), ("dyck", "regular"), ("regular", "regular")]
)
def test_a_sample_of_devices_has_a_graph_of_the_same_kind(kind: str, smaller: str) -> None:
    where = place(swarm__nodes=32, graph__kind=kind, graph__degree=5)
    table = plans.smaller(where.scenario.graph, where.graph, 11)
    assert table.kind == smaller
    made = replace(where.scenario, swarm=replace(where.scenario.swarm, nodes=11), graph=table).topology()
    degrees = made.graph("n01", ()).degrees()
    assert made.graph("n01", ()).connected and abs(degrees.mean() - where.graph.degrees().mean()) <= 2


def test_what_cannot_be_played_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*told: object, **how: object) -> Any:
        raise ConfigError("it cannot be")

    monkeypatch.setattr(plans, "run", broken)
    made = plan(place(), Demand(1e12), DATA)
    assert set(made.failed.values()) == {"it cannot be"} and made.reasons[0].startswith("by rule")


def test_more_named_devices_than_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(plans, "ROUNDS", 2)
    monkeypatch.setattr(plans, "LONGER", 2)
    monkeypatch.setattr(plans, "NODES", 3)
    where = place(swarm__names=[f"pi-{at}" for at in range(6)])
    made = plan(where, FREE, DATA, "reference")
    assert not made.failed and len(made.played) == len(made.estimates)
    with_heads = plans.model_for(where.scenario, "multi_headed_distillation", DATA, "reference")
    bare = plans.model_for(where.scenario, "d_psgd", DATA, "reference")
    assert with_heads is not None and bare is not None and (with_heads.card.heads, bare.card.heads) == (3, 0)
    assert plans.model_for(where.scenario, "prototype_gossip", DATA) is None


# ---- what a day's samples cost --------------------------------------------------------------------------------------


def test_the_traffic_is_that_of_the_days_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten samples a day cost hardly more than silence, a hundred thousand no more than the formula's bound."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(estimate, "CANDIDATES", ("prototype_gossip", "d_psgd"))
    monkeypatch.setattr(plans, "ROUNDS", 30)
    monkeypatch.setattr(plans, "LONGER", 2)
    found = {rate: plan(place(), Demand(1e8, "common", rate), DATA) for rate in (10, 1000, 100_000)}
    gossip = {rate: made.played["prototype_gossip"] for rate, made in found.items()}
    few, some, many = (gossip[rate].day_bytes for rate in gossip)
    each, fast = gossip[10], gossip[100_000]
    assert each.news_bytes > 0 and each.quiet_bytes > 0, "a message from time to time, even so"
    assert few == pytest.approx(each.quiet_bytes + 10 * each.news_bytes)
    assert some == pytest.approx(gossip[1000].quiet_bytes + 1000 * gossip[1000].news_bytes)
    assert fast.news_bytes < each.news_bytes, "a message then tells of many samples"
    assert few < some < many <= found[10].estimate("prototype_gossip").day_bytes
    models = {made.played["d_psgd"].day_bytes for made in found.values()}
    assert len(models) == 1, "tells its model every round, whatever comes"
    assert models.pop() == pytest.approx(found[10].estimate("d_psgd").day_bytes, rel=0.05)


def test_news_and_silence_are_told_apart() -> None:
    """2,000 bytes in the first 100 s, 700 in the next with 10 rows, then 200 in each 100 s."""
    outcome = made_up([100.0, 200.0, 300.0, 500.0], [2000.0, 2700.0, 3500.0, 3900.0])
    each = replace(of("prototype_gossip", place()), sent_bytes=1e6, received_bytes=0.0)
    quiet = 2 * DAY_S
    for per_day, day_bytes in ((0.0, quiet), (100.0, quiet + 100 * 50.0), (1e9, 1e6)):
        found = plans._of_the_day(outcome, {}, each, per_day, 10.0)
        assert (found.quiet_bytes, found.news_bytes, found.day_bytes) == (quiet, 50.0, day_bytes)


def made_up(at_s: list[float], sent: list[float]) -> Any:
    """An outcome of one device that sent so much by then."""

    class MadeUp:
        accuracy = accuracy_common = 0.5
        wall_s, notes = 1.0, ()

        def mean(self, key: str, at: int = -1) -> float:
            return sent[at] if key == "bytes_sent" else 0.0

    found: Any = MadeUp()
    found.at_s = at_s
    return found
