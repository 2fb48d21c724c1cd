"""Update formulas of methods that average models with neighbours and follow the global direction.

Vectors are of any float type and any shape: (p,) of one node, or (n, p) of all. Symbols: x a node's model, z = sum_j
w_ij x_j its neighbourhood's mean, `step` what training took off (rate times gradient, or all that several local steps
took off), "before" for the round before. All agents start alike.

# Theory. Global update tracking (2305.04792) adds c = mu ((z - z_before) + step_before) to x <- z - step. Putting in
the x that the round before led to gives c = mu (c_before + z - x): a sum of the pulls z - x that forgets by mu a round.
Linear as it is, it is mu / (1 - mu) times the pull z - x of the trailing averages a <- mu a + (1 - mu) x. So global
update tracking is D-PSGD that averages x + mu / (1 - mu) a, a node that says its a has said everything, and one that
missed some of it misses nothing once it hears the next: see `met`.
"""

from __future__ import annotations

from typing import Any


def global_update_momentum(
    x: Any, z: Any, step: Any, x_before: Any, z_before: Any, step_before: Any, beta: float, mu: float
) -> Any:
    """The next x of QG-GUTm (2305.04792; compact form); with mu = 0 the QG-DSGDm that its authors ran, with beta = 0
    GUT, with both 0 D-PSGD. In the first round, x_before = z_before = x = z and step_before = 0."""
    correction = (z - z_before) + beta * (z_before - x_before) + step_before
    return z - step + beta * (x - x_before) + mu * correction


def quasi_global(momentum: Any, x: Any, mixed: Any, beta: float, rate: float) -> Any:
    """The next buffer of QG-DSGDm (2102.04761, algorithm 1): x before the round, `mixed` after averaging.

    A round takes x - rate (beta momentum + gradient), nesterov aside, and averages that with the neighbours.
    """
    return beta * momentum + (1 - beta) * (x - mixed) / rate


def tracked(mixed: Any, gradient: Any, gradient_before: Any) -> Any:
    """The next direction of gradient tracking (1605.07112): the neighbours' mean of theirs, and what changed here."""
    return mixed + gradient - gradient_before


def trailing(average: Any, x: Any, mu: float) -> Any:
    """The next trailing average a of a node that is now at x."""
    return mu * average + (1 - mu) * x


def gain(mu: float) -> float:
    """What the difference of two trailing averages counts beside that of two models."""
    return mu / (1 - mu)


def met(ahead: Any, theirs: Any, own: Any, mu: float, rounds: int) -> tuple[Any, Any]:
    """A neighbour heard again: how far its model, and its trailing average, is ahead of ours.

    ahead: of its average when it was last heard, `rounds` rounds earlier.  theirs, own: trailing averages of one and
    the same round.  The model's lead is the mean over the rounds since, weighted as the average weighs them. Without
    news it counts as being where we are, so that ahead fades by mu a round.
    """
    now = theirs - own
    return (now - mu**rounds * ahead) / (1 - mu**rounds), now
