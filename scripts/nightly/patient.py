"""A plugin of pytest for emulated boards: Hypothesis neither measures time nor tries as often as usual, and tests of
what the emulator does not do are left out.
"""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("emulated", deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))
settings.load_profile("emulated")

NOT_EMULATED = {"out_of_memory": "the emulator does not keep to a limit on memory"}
"""Part of a test's name: why it cannot hold here."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is listed above, with its reason."""
    for item in items:
        for part, reason in NOT_EMULATED.items():
            if part in item.name:
                item.add_marker(pytest.mark.skip(reason=reason))
