"""The enumerable world, made once."""

from __future__ import annotations

import pytest

from tests.support.enumerable import World


@pytest.fixture(scope="session")
def world() -> World:
    """Return the two-track world."""
    return World.load()
