"""What is installed and what is handed on: the files of a wheel, and of a source archive that `make` works in."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="it builds the wheel")
ROOT = Path(__file__).parent.parent


def files(*folders: str) -> set[str]:
    """Of the checkout, but for what Python and its tools leave there."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(ROOT)) for path in found if not re.search(r"(^|/)(__pycache__|\.\w+_cache)/", str(path))
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True)
    return folder


def test_a_wheel_has_the_package_its_profiles_and_says_that_it_is_typed(built: Path) -> None:
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    profiles = {name.replace("firmware_profiles", "edgeswarm/_profiles") for name in files("firmware_profiles")}
    assert {name for name in names if ".dist-info/" not in name} == files("edgeswarm") | profiles
    assert "edgeswarm/py.typed" in names


def test_a_source_archive_has_what_make_and_the_tests_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert files("edgeswarm", "firmware_profiles", "tests", "scripts", ".ci", "docs") <= names
    named = set(re.findall(r"scripts/[a-z-]+(?= )", (ROOT / "Makefile").read_text("utf-8")))
    assert {"scripts/venv", "scripts/golden"} <= named <= names
