"""What decides a run beside its scenario's words: contents of the files that it names, this version, the backend."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from edgeswarm import __version__
from edgeswarm.sim.scenario import BY_SECTION, Scenario


class Stamps:
    """Stamps of scenarios; a file that several of them name is read once.

    backend: as it was asked for.  results: folder of kept runs, which is no part of the data even where it lies there.
    """

    def __init__(self, backend: str, results: Path) -> None:
        self.backend, self.results = backend, results.absolute()
        self._found: dict[str, str] = {}

    def of(self, scenario: Scenario) -> str:
        """Alike for two runs of one scenario if nothing that they read has changed.

        A file that cannot be read counts as none: whoever plays the scenario says what is wrong with it.
        """
        digest = hashlib.sha256(f"{__version__} {self.backend}".encode())
        for section, settings in BY_SECTION.items():
            for key, setting in settings.items():
                path = getattr(getattr(scenario, section), key) if setting.metadata.get("path") else ""
                if path and path not in self._found:
                    self._found[path] = _contents(Path(path), self.results)
                digest.update(f" {section}.{key}={self._found[path] if path else ''}".encode())
        return digest.hexdigest()[:12]


def _contents(path: Path, results: Path) -> str:
    """Digest of a file, or of a folder's files and those one level below: nothing deeper is ever read."""
    try:
        if not path.is_dir():
            return _file(path)
        digest = hashlib.sha256()
        for place in sorted(path.iterdir()):
            if place.absolute() != results:
                for file in sorted(place.iterdir()) if place.is_dir() else [place]:
                    if file.is_file():
                        digest.update(f"{file.relative_to(path)} {_file(file)} ".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    except OSError:
        return ""


def _file(path: Path) -> str:
    known = path.stat()
    return _digest(path, known.st_ino, known.st_size, known.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _digest(path: Path, inode: int, size_bytes: int, changed_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
