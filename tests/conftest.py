"""For every test: hypothesis judges answers, never how long a busy machine took for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from postgres_server import PostgresServer

settings.register_profile("fairlead", deadline=None)
settings.load_profile("fairlead")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests; `schema()` gives each its own books. Skips where there is none to start."""
    from postgres_server import PostgresServer

    server = PostgresServer()
    yield server
    server.remove()
