"""Graphs: that they are what their names say, and that their numbers are those of the papers and of a dense solver."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from edgeswarm.maths import graph_kinds, graphs, spectra
from edgeswarm.maths.graphs import KINDS, WEIGHTS, Graph, Topology, from_links


def names(n: int) -> tuple[str, ...]:
    return tuple(f"n{i:05d}" for i in range(n))


def graph(kind: str, n: int, **how: object) -> Graph:
    return Topology(kind, names(n), **how).graph("", ())  # type: ignore[arg-type]


def some(kind: str, n: int = 32) -> Graph:
    edges = tuple((f"n{i:05d}", f"n{i // 2:05d}") for i in range(1, n))  # a tree
    return graph(kind, n, edges=edges if kind == "edges" else ())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_rows_sum_to_1_and_are_those_of_the_matrix(kind: str, weights: str) -> None:
    made = Graph(some(kind).names, some(kind).pairs, weights)
    matrix = made.matrix()
    for at, name in enumerate(made.names):
        row = made.row(name)
        assert sum(row.values()) == pytest.approx(1.0) and min(row.values()) > 0
        assert {peer for peer in row if peer != name} == set(made.neighbours(name))
        assert matrix[at] == pytest.approx([row.get(peer, 0.0) for peer in made.names])
    if weights != "uniform":
        assert matrix.sum(axis=0) == pytest.approx(np.ones(32))  # doubly stochastic
    assert made.connected and made.directed == (kind == "directed-ring")


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_full_graph_is_what_its_pairs_say(n: int, weights: str) -> None:
    made = graph("full", n, weights=weights)
    plain = Graph(made.names, made.pairs, weights)
    assert made.matrix() == pytest.approx(plain.matrix()) and made.degrees().tolist() == plain.degrees().tolist()
    assert made.directed == plain.directed and made.components().tolist() == plain.components().tolist()
    for name in (*made.names, "stranger"):
        assert made.neighbours(name) == plain.neighbours(name) and made.row(name) == pytest.approx(plain.row(name))
    assert all(
        getattr(made.spectrum, key) == pytest.approx(getattr(plain.spectrum, key), abs=1e-12)
        for key in ("second", "smallest", "largest_mu")
    )


@pytest.mark.parametrize("fixed", [True, False])
def test_a_full_graph_of_many_costs_what_its_names_cost(fixed: bool) -> None:
    """100,000 names: as pairs, or as a matrix, they would take 80 GB."""
    everybody = names(100_000)
    tracemalloc.start()
    try:
        for weights in WEIGHTS:
            made = Topology(names=everybody if fixed else (), weights=weights).graph(everybody[7], everybody)
            assert len(made.neighbours(everybody[7])) == 99_999 and sum(
                made.row(everybody[7]).values()
            ) == pytest.approx(1)
            assert made.connected and made.spectrum.largest_mu == 1.0 and set(made.degrees().tolist()) == {99_999}
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_few_graphs_are_kept() -> None:
    present = names(40)
    for n in range(2, 40):
        Topology("full").graph(present[0], present[1:n])
        Topology("exponential").graph(present[0], present[1:n])
    assert graphs._built.cache_info().currsize <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_ascend_without_loops_or_doubles(kind: str) -> None:
    made = some(kind)
    keys = made.pairs[:, 0] * 32 + made.pairs[:, 1]
    assert (np.diff(keys) > 0).all() and (made.pairs[:, 0] != made.pairs[:, 1]).all()
    assert made.pairs.dtype == np.int32 and made.degrees().sum() == len(made.pairs)


def test_lazy_is_half_of_metropolis_and_half_oneself() -> None:
    made = some("torus")
    lazy = Graph(made.names, made.pairs, "lazy")
    assert np.allclose(lazy.matrix(), (made.matrix() + np.eye(32)) / 2)


@pytest.mark.parametrize(
    ("kind", "n", "degrees"),
    [
        ("full", 7, {6}), ("ring", 7, {2}), ("ring", 2, {1}), ("directed-ring", 7, {1}), ("torus", 12, {4}),
        ("torus", 6, {3}), ("torus", 7, {2}), ("circulant", 16, {4}), ("exponential", 16, {7}), ("dyck", 32, {3}),
        ("full", 1, {0}), ("ring", 1, {0}), ("exponential", 1, {0}), ("torus", 1, {0}), ("directed-ring", 1, {0}),
    ],
)  # fmt: skip
def test_degrees(kind: str, n: int, degrees: set[int]) -> None:
    assert set(graph(kind, n).degrees().tolist()) == degrees


def test_the_torus_is_a_grid_closed_at_its_edges() -> None:
    assert graph("torus", 12).neighbours("n00000") == ("n00001", "n00003", "n00004", "n00008")  # 3 x 4


# ---- the numbers of 2305.04792, section 3.3 of its specification ----------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "n", "second", "smallest", "mu"),
    [
        ("ring", 16, 0.949, -0.333, 1.0),
        ("ring", 32, 0.987, -0.333, 1.0),
        ("circulant", 32, 0.875, -0.483, 0.54),
        ("dyck", 32, 0.854, -0.500, 0.50),
        ("full", 16, 0.0, 0.0, 1.0),
    ],
)
@pytest.mark.parametrize("weights", ["metropolis", "uniform"])  # the same on regular graphs
def test_the_papers_graphs(kind: str, n: int, second: float, smallest: float, mu: float, weights: str) -> None:
    found = graph(kind, n, weights=weights).spectrum
    assert found.second == pytest.approx(second, abs=5e-4) and found.gap == pytest.approx(1 - second, abs=5e-4)
    assert found.smallest == pytest.approx(smallest, abs=5e-4) and found.largest_mu == pytest.approx(mu, abs=5e-3)
    assert found.chosen_mu == pytest.approx(min(0.8, 0.9 * mu), abs=5e-3)
    lazy = graph(kind, n, weights="lazy").spectrum
    assert lazy.largest_mu == 1.0 and lazy.smallest == pytest.approx((1 + smallest) / 2, abs=5e-4)


def grows(matrix: np.ndarray, mu: float) -> bool:
    """Whether x <- z + mu (z - z_prev), z = W x, leaves all bounds."""
    x = np.random.default_rng(0).standard_normal(len(matrix))
    x -= x.mean()
    z = matrix @ x
    for _ in range(3000):
        before, z = z, matrix @ x
        x = z + mu * (z - before)
    return not np.linalg.norm(x) < 1.0


@pytest.mark.parametrize(("kind", "n"), [("circulant", 32), ("dyck", 32), ("torus", 16), ("directed-ring", 8)])
def test_beyond_the_largest_mu_it_diverges_and_below_it_does_not(kind: str, n: int) -> None:
    made = graph(kind, n)
    assert not grows(made.matrix(), made.spectrum.largest_mu - 0.02)
    assert grows(made.matrix(), made.spectrum.largest_mu + 0.02)


def test_rounds_to_mix() -> None:
    made = graph("ring", 16)
    x = np.cos(2 * np.pi * np.arange(16) / 16)  # the slowest mode
    rounds = round(made.spectrum.rounds_to_mix)
    left = np.linalg.norm(np.linalg.matrix_power(made.matrix(), rounds) @ x) / np.linalg.norm(x)
    assert left == pytest.approx(0.01, rel=0.05)
    assert graph("full", 9).spectrum.rounds_to_mix == 1.0


def dense(made: Graph) -> tuple[float, float]:
    values = np.linalg.eigvals(made.matrix())
    rest = np.delete(values, np.abs(values - 1).argmin())
    return float(np.abs(rest).max()), float(rest.real.min())


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", ["full", "ring", "directed-ring", "torus", "exponential", "regular", "edges"])
def test_spectrum_is_that_of_a_dense_solver(kind: str, weights: str) -> None:
    made = Graph(some(kind).names, some(kind).pairs, weights)
    assert (made.spectrum.second, made.spectrum.smallest) == pytest.approx(dense(made), abs=1e-9)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", ["torus", "regular", "erdos-renyi", "edges"])
def test_the_lanczos_method_agrees_with_a_dense_solver(
    kind: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Graph(some(kind, 240).names, some(kind, 240).pairs, weights)
    expected = dense(made)
    monkeypatch.setattr(spectra, "DENSE", 10)
    monkeypatch.setattr(spectra, "is_circulant", lambda n, pairs: None)
    found = made.spectrum
    assert found.gap == pytest.approx(1 - expected[0], rel=1e-3) and found.smallest == pytest.approx(
        expected[1], abs=1e-4
    )


def test_ten_thousand_nodes() -> None:
    """Torus 100 x 100 against its closed form; the ring's gap of 1.3e-7 too; degree 20 has no closed form."""
    torus = graph("torus", 10_000).spectrum
    assert torus.gap == pytest.approx(0.4 * (1 - math.cos(2 * math.pi / 100)), rel=1e-3)
    assert torus.smallest == pytest.approx(-0.6, abs=1e-6)
    ring = graph("ring", 10_000).spectrum
    assert ring.gap == pytest.approx((1 - math.cos(2 * math.pi / 10_000)) * 2 / 3, rel=1e-4)
    made = graph("regular", 10_000, degree=20)
    assert set(made.degrees().tolist()) == {20} and made.connected
    assert made.spectrum.second == pytest.approx((1 + 2 * math.sqrt(19)) / 21, abs=0.02)  # Alon and Friedman
    assert made.diameter() == (5, True)


# ---- drawn graphs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "degree"), [(n, d) for n in range(2, 13) for d in range(1, n) if n * d % 2 == 0])
def test_random_regular_of_every_size(n: int, degree: int) -> None:
    if degree == 1 and n > 2:
        with pytest.raises(ValueError, match=r"^degree: with 1 neighbour"):
            graph("regular", n, degree=degree)
        return
    for seed in range(5):
        made = graph("regular", n, degree=degree, seed=seed)
        assert set(made.degrees().tolist()) == {degree} and made.connected


def test_drawn_graphs_follow_the_seed() -> None:
    for kind in ("regular", "erdos-renyi"):
        one, same, other = (graph(kind, 40, seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(one.pairs, same.pairs) and not np.array_equal(one.pairs, other.pairs)


def test_erdos_renyi_has_so_many_edges_of_every_kind() -> None:
    drawn = [graph_kinds.erdos_renyi(12, 0.4, seed) for seed in range(400)]
    assert all(len(np.unique(pairs, axis=0)) == len(pairs) for pairs in drawn)
    counts = np.zeros((12, 12))
    for pairs in drawn:
        counts[pairs[:, 0], pairs[:, 1]] += 1
    off = counts[~np.eye(12, dtype=bool)] / 400
    assert counts.trace() == 0 and abs(off.mean() - 0.4) < 0.01 and off.min() > 0.3 and off.max() < 0.5
    assert len(graph_kinds.erdos_renyi(12, 1.0, 0)) == 132
    assert graph("erdos-renyi", 100, probability=0.05).connected


# ---- distances and parts --------------------------------------------------------------------------------------------


def test_everybody_beside_everybody_is_one_hop_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeswarm.maths.graphs._WORK", 0)
    assert graph("full", 8).diameter() == (1, True) and graph("ring", 8).diameter() == (4, False)


@pytest.mark.parametrize(
    ("kind", "n", "diameter"),
    [("full", 8, 1), ("ring", 8, 4), ("directed-ring", 8, 7), ("torus", 16, 4), ("ring", 1, 0)],
)
def test_diameter(kind: str, n: int, diameter: int) -> None:
    made = graph(kind, n)
    assert made.diameter() == (diameter, True)
    near = np.linalg.matrix_power(made.matrix() + np.eye(n), diameter)  # ways of at most so many hops
    assert (near > 0).all() and (not diameter or (np.linalg.matrix_power(made.matrix(), diameter - 1) == 0).any())


def test_a_long_graph_has_at_least_that_diameter() -> None:
    assert graph("ring", 10_000).diameter() == (5000, False)


def test_islands_are_found() -> None:
    made = graph("edges", 5, edges=(("n00000", "n00003"), ("n00001", "n00004")))
    assert made.components().tolist() == [0, 1, 2, 0, 1] and not made.connected
    assert made.spectrum.gap == 0.0 and made.spectrum.rounds_to_mix == math.inf
    with pytest.raises(ValueError, match="several parts"):
        made.diameter()


def test_one_way_links_make_parts_too() -> None:
    made = Graph(("a", "b", "c"), np.array([[0, 1], [1, 2]], np.int32))  # a hears b hears c
    assert made.components().tolist() == [0, 1, 2] and not made.connected


# ---- what cannot be built -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Topology("star"), "^kind: a graph is one of"),
        (lambda: Topology(weights="even"), "^weights: one of"),
        (lambda: Topology("ring", ("a", "b", "a")), "^names: 'a' stands there twice"),
        (lambda: Topology("edges", ("a", "b"), edges=(("a", "z"),)), "^edges: 'z' is not among the names"),
        (lambda: Topology("edges", ("a", "b"), edges=(("a", "a"),)), "^edges: 'a' with itself"),
        (lambda: Topology("edges", ("a", "b")), "^edges: there is none"),
        (lambda: Topology("regular", degree=0), "^degree: at least 1"),
        (lambda: Topology("erdos-renyi", probability=0.0), "^probability: above 0"),
        (lambda: Topology("erdos-renyi", probability=math.nan), "^probability: above 0"),
        (lambda: Topology(seed=-1), "^seed: 0 or more"),
        (lambda: graph("regular", 4, degree=4), "^degree: 4 neighbours for each of 4 nodes: at most 3"),
        (lambda: graph("regular", 5, degree=3), "^degree: no graph of 5 nodes"),
        (lambda: graph("dyck", 30), "^kind: the graph dyck has exactly 32"),
        (lambda: graph("erdos-renyi", 200, probability=0.001), "^probability: 0.001 connects 200 nodes hardly ever"),
    ],
)
def test_one_line_names_the_setting(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", range(1, 9))
def test_whoever_is_present_has_a_connected_graph(kind: str, n: int) -> None:
    """Nodes come one after the other: no step on the way may fail, or leave somebody alone."""
    edges = tuple((f"n{i:05d}", f"n{i + 1:05d}") for i in range(10))
    present = names(n)
    for degree in (1, 3, 4):
        rule = Topology(kind, degree=degree, probability=0.01, edges=edges)
        made = rule.graph(present[-1], present[:-1])
        assert made.names == present and made.connected
        assert rule.graph(present[0], present[1:]) is made  # the same for everybody


# ---- measured links -------------------------------------------------------------------------------------------------


def of_links(edges: tuple[tuple[str, str], ...]) -> Graph:
    everybody = tuple(sorted({name for edge in edges for name in edge}))
    return Topology("edges", everybody, edges=edges).graph("", ())


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_best_links_connect_all_within_the_degree(degree: int) -> None:
    rng = np.random.default_rng(degree)
    quality = {(a, b): float(rng.random()) for a in names(30) for b in names(30) if a != b}
    made = of_links(from_links(quality, degree))
    assert made.connected and made.degrees().max() <= degree and made.degrees().mean() > degree - 0.5
    worse = {(a, b): min(quality[a, b], quality[b, a]) for a in names(30) for b in names(30) if a < b}
    chosen = np.mean([worse[made.names[i], made.names[j]] for i, j in made.pairs if i < j])
    drawn = np.mean(list(worse.values()))
    assert chosen > 2 * drawn  # far better links than any graph of that degree has by chance


def test_a_link_is_as_good_as_its_worse_way() -> None:
    quality = {("a", "b"): 1.0, ("b", "a"): 0.1, ("b", "c"): 0.5, ("c", "a"): 0.4}
    assert from_links(quality, 2) == (("a", "b"), ("a", "c"), ("b", "c"))
    star = {("hub", other): 1.0 for other in "abcd"}
    assert len(from_links(star, 2)) == 4  # beyond the degree, where nothing else connects


def test_spanning_tree_is_the_best_one() -> None:
    quality = {("a", "b"): 0.9, ("b", "c"): 0.8, ("a", "c"): 0.1, ("c", "d"): 0.7, ("a", "d"): 0.2}
    assert set(from_links(quality, 2)) == {("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")}


def test_links_that_connect_not_all_are_refused() -> None:
    with pytest.raises(ValueError, match="no measured links lead from a to c"):
        from_links({("a", "b"): 1.0, ("c", "d"): 1.0}, 4)
    with pytest.raises(ValueError, match="quality of the link from b to a is no number"):
        from_links({("a", "b"): math.nan}, 4)
    with pytest.raises(ValueError, match=r"^degree: at least 2"):
        from_links({("a", "b"): 1.0}, 1)


@pytest.mark.parametrize("kind", ["full", "ring", "directed-ring", "torus"])
def test_listeners_are_those_who_hear_one(kind: str) -> None:
    names = tuple(f"n{at}" for at in range(1, 10))
    graph = Topology(kind, names).graph("", ())
    for name in names:
        assert graph.listeners(name) == tuple(other for other in names if name in graph.neighbours(other))
    assert graph.listeners("stranger") == ()
