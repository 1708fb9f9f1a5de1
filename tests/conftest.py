"""What every test module has: settings of Hypothesis, and where the instances are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from small_problems import ROOT

settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def instances() -> Path:
    return ROOT / "instances"
