"""What tests of the command line share beside fixtures. Its name is its own: many folders have a conftest."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from click.testing import Result

from edgeswarm.demo.broker import find_mosquitto

Run = Callable[..., Result]
"""The fixture `run`: words in, result out; `code` is the exit code it must end with, `input` what stands on stdin."""


def need_mosquitto() -> None:
    """Skip, or fail where the environment says that it must be there."""
    if find_mosquitto() is None:
        if os.environ.get("REQUIRE_MOSQUITTO"):
            pytest.fail("mosquitto is not installed, and REQUIRE_MOSQUITTO says it must be")
        pytest.skip("mosquitto is not installed")
