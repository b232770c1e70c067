"""Facts in every disorder: SQLite, PostgreSQL and a replay of the journal have the same bytes.

These are few seeds; `make ledger-disorder` has many.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from books_disorder import keep, replayed, told
from postgres_server import PostgresServer

SQLITE, POSTGRES = 40, 25


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    return {}


@pytest.mark.parametrize("seed", range(SQLITE))
def test_a_replay_of_the_journal_has_the_same_bytes(tmp_path: Path, kept: dict[int, bytes], seed: int) -> None:
    url = f"sqlite:///{tmp_path}/b.sqlite"
    kept[seed] = keep(url, seed)
    assert replayed(url, f"sqlite:///{tmp_path}/replay.sqlite", seed) == kept[seed]


@pytest.mark.postgres
@pytest.mark.parametrize("seed", range(POSTGRES))
def test_postgresql_has_the_same_bytes(
    postgres: PostgresServer, kept: dict[int, bytes], seed: int, tmp_path: Path
) -> None:
    expected = kept.get(seed) or keep(f"sqlite:///{tmp_path}/b.sqlite", seed)
    assert keep(postgres.schema(), seed) == expected


def test_the_streams_have_the_disorder_they_are_for() -> None:
    batches = [batch for seed in range(POSTGRES) for batch in told(seed)]
    facts = [fact for _, batch in batches for fact in batch]
    assert max(facts.count(fact) for fact in facts[:200]) >= 10
    assert any(now < before for (before, _), (now, _) in pairwise(batches))
    late = [now - fact.at_ms for now, batch in batches for fact in batch]
    assert max(late) > 48 * 3_600_000
