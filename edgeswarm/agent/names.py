"""Names that people type: which right one was meant by a wrong one. What a node may be called: `wire.topics`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

FEW = 16
"""Right names up to which an error lists them all."""


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that was probably meant by `word`, or None when nothing is close. Case is ignored.

    Close is what differs by a few letters, or the only one that `word` (of four letters or more) is a part of.
    """
    folded = word.casefold()
    by_folded = {candidate.casefold(): candidate for candidate in words}
    found = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    if not found and len(folded) >= 4:
        found = [candidate for candidate in by_folded if folded in candidate]
    return by_folded[found[0]] if len(found) == 1 else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """End of an error line about `word`: the nearest right one, or all of them when they are few, or nothing."""
    known = sorted(words)
    guess = nearest(word, known)
    if guess is not None:
        return f"; did you mean {guess!r}?"
    return f"; one of {', '.join(known)}" if 0 < len(known) <= FEW else ""


def usable_name(text: str) -> str:
    """`text` (a host name, for instance) turned into an allowed name; empty when nothing of it can be used."""
    from edgeswarm.wire.topics import NAME_LIMIT  # brings NumPy, which whoever asks for the nearest name can do without

    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:NAME_LIMIT].strip("-")
