"""Whom to believe where sources contradict one another: those who know a class bear a claim of it out.

Beyond 2211.15774, whose students take the surest at its word. One source of several may lie, as surely as it likes, on
some rows and not on others. No rule can tell who lies where two contradict each other and nobody else knows either of
their classes; these do where somebody does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array

SURE = 0.5
"""Who is at least this sure of a row counts as one who knows its class."""
BACKED = 1.5
"""A contested claim counts at most so many times what another who knows the class says: those who were outbid have not
said how sure they are by now."""
CONTRADICTS = 0.3
"""Who is at least this sure of another class contradicts the surest."""
KNOWING = 0.25
"""Part of an even share of the public rows on which a source that knows a class is sure of it."""
RECOGNISED = 0.3
"""Who is recognised less than this beside the best recognised is not heard on that class."""
ALONE = 0.5
"""What is left at least of a claim that only one other could back: either of the two may be wrong."""


def corroborated(claims: NDArray[np.int16], sure: Array, classes: int) -> Array:
    """How far each claim counts beside those who know the class that it names: (sources, n, heads) in [0, 1].

    claims: (sources, n, heads), class, -1 for none.  sure: the same shape. Two rules, neither of which one source can
    turn in its own favour. First, who claims to know a class must be `_recognised` by the others who do. Second, where
    somebody contradicts the surest, a claim counts at most as BACKED times the surest that another who knows the class
    is of it. Who knows it is judged without the source in question: SURE of it on a KNOWING part of an even share of
    the rows, counting those alone where nobody says otherwise more surely. So neither can a liar drown those who know
    better, nor is a stranger's guess on rows of classes that others know taken for knowledge. Whoever alone knows a
    class is believed there, and where one other alone knows it, ALONE of a claim is left. Where nobody contradicts, all
    that are recognised count in full.
    """
    out = np.ones(sure.shape, np.float32)
    _, rows, heads = sure.shape
    least = max(1.0, KNOWING * rows / classes)
    for head in range(heads):
        said = np.maximum(claims[:, :, head], 0)
        heard = _recognised(said, sure[:, :, head], classes, least)
        voices = np.where(np.take_along_axis(heard, said.astype(np.intp), axis=1), sure[:, :, head], 0)
        out[:, :, head] = np.where(sure[:, :, head] > 0, voices > 0, 1)
        contested = ((said != _surest(said, voices)) & (voices >= CONTRADICTS)).any(axis=0)
        knows = _known(said, voices, classes) >= least
        for source, known in enumerate(knows):
            at = np.flatnonzero(contested & known.any(axis=0)[said[source]] & (voices[source] > 0))
            named, mine = said[source, at], voices[source, at]
            backing = np.where((said[:, at] == named) & known[:, named], voices[:, at], 0).max(axis=0)
            left = np.maximum(BACKED * backing, np.where(known.sum(axis=0)[named] == 1, ALONE, 0) * mine)
            out[source, at, head] = np.minimum(1, left / mine)
    return out


def _recognised(said: NDArray[np.int16], voices: Array, classes: int, least: float) -> NDArray[np.bool_]:
    """Whose claims of which class are heard: (sources, classes).

    said, voices: (sources, n), class and how surely. Of those who are SURE of a class on `least` rows, each must be
    backed by the others on the rows that it is sure of, and back them on at least half of theirs: who names as the
    class what none of them takes for it, and does not know it where they do, means something else by it. Its credit,
    the product of both, must be RECOGNISED of the best. Two who do not back each other are both heard.
    """
    heard = np.ones((len(said), classes), np.bool_)
    sure = voices >= SURE
    rows = _rows(said, sure, classes)
    for name in np.flatnonzero((rows >= least).sum(axis=0) > 1):
        who = np.flatnonzero(rows[:, name] >= least)
        here = said[who] == name
        support = np.minimum(1, np.where(here, voices[who], 0) / SURE).astype(np.float32)
        backing = support @ (here & sure[who]).T.astype(np.float32) / rows[who, name]  # of each column by each row
        np.fill_diagonal(backing, 0)
        backed, backs = backing.sum(axis=0) / (who.size - 1), backing.sum(axis=1) / (who.size - 1)
        credit = backed * np.minimum(1, 2 * backs)
        heard[who, name] = credit >= RECOGNISED * credit.max()
    return heard


def _known(said: NDArray[np.int16], voices: Array, classes: int) -> NDArray[np.intp]:
    """(sources, sources, classes): [a, b, k] is on how many rows b is SURE of class k, and nobody but a says otherwise
    more surely; 0 where b is a."""
    first = _surest(said, voices)
    other = np.where(said != first, voices, 0).argmax(axis=0)
    surest = voices.argmax(axis=0)
    every = _sure_rows(said, voices, classes)
    out = np.empty((len(said), *every.shape), np.intp)
    for source in range(len(said)):
        at = np.flatnonzero((surest == source) | (other == source))  # elsewhere it makes no difference
        without = voices[:, at].copy()
        without[source] = 0
        before, after = (_sure_rows(said[:, at], each, classes) for each in (voices[:, at], without))
        out[source] = every - before + after
        out[source, source] = 0
    return out


def _sure_rows(said: NDArray[np.int16], voices: Array, classes: int) -> NDArray[np.intp]:
    """(sources, classes) on how many rows each is SURE of each class, and nobody of another more so."""
    first = _surest(said, voices)
    rival = np.where(said == first, np.where(said != first, voices, 0).max(axis=0), voices.max(axis=0))
    return _rows(said, (voices >= SURE) & (voices >= rival), classes)


def _surest(said: NDArray[np.int16], voices: Array) -> NDArray[np.int16]:
    """(n,) what the surest says."""
    return np.asarray(said[voices.argmax(axis=0), np.arange(said.shape[1])])


def _rows(said: NDArray[np.int16], counted: NDArray[np.bool_], classes: int) -> NDArray[np.intp]:
    """(sources, classes) on how many rows each says each class, of those that are counted (sources, n)."""
    source, row = np.nonzero(counted)
    return np.bincount(source * classes + said[source, row], minlength=len(said) * classes).reshape(len(said), classes)
