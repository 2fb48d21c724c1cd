"""Undirected edges with ages between the prototypes of one set.

Prototypes are named by position (0 is the oldest) and positions shift when one goes. Shifting a whole table of ages
each time would cost the square of the set's size, so every prototype owns a slot of the table for life, and only the
short list "position -> slot" is shifted. Removing r of n prototypes then costs r rows and columns, not n squared, and
the cost of learning stays linear in n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""Entry of the table where there is no edge."""

MOST_AGE = 32_000
"""Largest age limit the 16-bit table can serve."""

Positions = NDArray[np.intp]


class Links:
    """Edges and ages of up to `capacity` prototypes, of which the first `size` positions are in use."""

    __slots__ = ("_ages", "_degrees", "_position_of", "_slot_of", "size")

    def __init__(self, capacity: int) -> None:
        self.size = 0
        self._ages = np.full((capacity, capacity), NONE, np.int16)
        self._degrees = np.zeros(capacity, np.int32)  # by slot
        # A permutation of all slots: those of the positions in use, in order, then the free ones.
        self._slot_of = np.arange(capacity)
        self._position_of = np.arange(capacity)

    def copy(self) -> Links:
        """An independent copy."""
        other = object.__new__(Links)
        other.size = self.size
        other._ages = self._ages.copy()
        other._degrees = self._degrees.copy()
        other._slot_of = self._slot_of.copy()
        other._position_of = self._position_of.copy()
        return other

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` prototypes."""
        old = self._degrees.size
        ages = np.full((capacity, capacity), NONE, np.int16)
        ages[:old, :old] = self._ages
        more = np.arange(old, capacity)
        self._ages = ages
        self._degrees = np.concatenate((self._degrees, np.zeros(more.size, np.int32)))
        self._slot_of = np.concatenate((self._slot_of, more))
        self._position_of = np.concatenate((self._position_of, more))

    def append(self) -> None:
        """One more prototype, without edges, at position `size`."""
        self.size += 1

    def of(self, position: int) -> Positions:
        """Positions linked to `position`, in no particular order."""
        slots = (self._ages[self._slot_of[position]] >= 0).nonzero()[0]
        near: Positions = self._position_of[slots]
        return near

    def degrees(self) -> NDArray[np.int32]:
        """(size,) number of edges at each position."""
        counted: NDArray[np.int32] = self._degrees[self._slot_of[: self.size]]
        return counted

    def win(self, first: int, second: int, age_limit: int) -> Positions:
        """Link winner and runner-up, age every edge at the winner, drop those older than `age_limit`.

        An edge that exists keeps its age (spec 2.1). Returns the positions linked to `first` before the drop: a
        neighbour is moved once more with the sample that retires its edge.
        """
        a, b = self._slot_of[first], self._slot_of[second]
        row = self._ages[a]
        if row[b] < 0:
            row[b] = self._ages[b, a] = 0
            self._degrees[a] += 1
            self._degrees[b] += 1
        slots = (row >= 0).nonzero()[0]
        aged = row[slots] + np.int16(1)
        row[slots] = aged
        self._ages[slots, a] = aged
        if aged.max() > age_limit:
            gone = slots[aged > age_limit]
            row[gone] = NONE
            self._ages[gone, a] = NONE
            self._degrees[gone] -= 1
            self._degrees[a] -= gone.size
        near: Positions = self._position_of[slots]
        return near

    def remove(self, gone: NDArray[np.bool_]) -> None:
        """Forget the positions marked in `gone` (size,) with their edges; the others move up, order kept."""
        n = self.size
        freed, kept = self._slot_of[:n][gone], self._slot_of[:n][~gone]
        self._degrees -= np.count_nonzero(self._ages[freed] >= 0, axis=0).astype(np.int32)
        self._degrees[freed] = 0
        self._ages[freed] = NONE
        self._ages[:, freed] = NONE
        self._slot_of[:n] = np.concatenate((kept, freed))
        self._position_of[self._slot_of[:n]] = np.arange(n)
        self.size = kept.size

    def pairs(self) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
        """All edges as (e, 2) positions, lower first, in lexical order, and their (e,) ages."""
        live = self._slot_of[: self.size]
        ages = self._ages[np.ix_(live, live)]
        low, high = np.nonzero(np.triu(ages >= 0, 1))
        return np.stack((low, high), axis=1).astype(np.int32), ages[low, high]

    def put(self, pairs: NDArray[np.int32], ages: NDArray[np.int16]) -> None:
        """Replace all edges by `pairs` (e, 2), each unordered pair once and never a self-link, with `ages` (e,)."""
        self._ages.fill(NONE)
        a, b = self._slot_of[pairs[:, 0]], self._slot_of[pairs[:, 1]]
        self._ages[a, b] = self._ages[b, a] = ages
        self._degrees = np.bincount(np.concatenate((a, b)), minlength=self._degrees.size).astype(np.int32)
