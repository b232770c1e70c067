"""What is open in the books against a list of the cluster's pods and claims: said, and mended with evidence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ledger_facts import NAMED, node, placement
from test_books_crash import verified
from typer.testing import CliRunner, Result

from fairlead.cli.ledger import app
from fairlead.errors import NotFound, UnreadableInput
from fairlead.model.events import Intended, MemberReleased, NodeSeen
from fairlead.model.gang import Tier
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.service.reconcile import SETTLED_MS

HOUR = 3_600_000


def thing(kind: str, gang: str, rank: int, attempt: int = 1, **more: Any) -> dict[str, Any]:
    """A pod or claim of a member, as kubectl prints it; `more` replaces its spec and status."""
    said = {"gang-uid": gang, "attempt": attempt, "rank": rank}
    meta = {
        "name": f"{gang}-{rank}",
        "labels": {f"fairlead.dev/{name}": str(value) for name, value in said.items()},
        "ownerReferences": [{"kind": "GangJob", "uid": gang, "name": gang, "apiVersion": "fairlead.dev/v1alpha1"}],
    }
    usual = {"spec": {"nodeName": "n1", "resourceClaims": [{"name": "gpus"}]}, "status": {"phase": "Running"}}
    if kind == "ResourceClaim":
        usual = {"spec": {}, "status": {"allocation": {"devices": {"results": []}}}}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **usual, **more}


def both(gang: str, rank: int) -> list[dict[str, Any]]:
    return [thing("Pod", gang, rank), thing("ResourceClaim", gang, rank)]


@pytest.fixture
def books(tmp_path: Path) -> Bookkeeper:
    """Gang g1 holds two members and g2 one, since second 1; g2's of a first attempt was released."""
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    holds = [("g1", 1, placement(("n1", (0,)), ("n2", (0,))), 1_000), ("g2", 1, placement(("n1", (1,))), 1_000),
             ("g2", 2, placement(("n1", (1,))), 3_000)]  # fmt: skip
    facts = [Intended(gang=gang, attempt=number, placement=on, tier=Tier.IN_QUOTA, at_ms=at, deadline_ms=at + 1)
             for gang, number, on, at in holds]  # fmt: skip
    facts.insert(2, MemberReleased(gang="g2", attempt=1, rank=0, at_ms=2_000))  # type: ignore[arg-type]
    books.record([*NAMED, *(NodeSeen(node=node(name), at_ms=0) for name in ("n1", "n2")), *facts], 3_000)
    assert books.trouble == ""
    return books


def run(tmp_path: Path, items: object, *more: str, at_ms: int = HOUR) -> Result:
    path = tmp_path / "objects.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    os.utime(path, ns=(at_ms * 1_000_000, at_ms * 1_000_000))
    command = ["reconcile", "--objects", str(path), "--file", str(tmp_path / "b.sqlite"), *more]
    return CliRunner().invoke(app, command)


def test_books_and_cluster_that_agree(books: Bookkeeper, tmp_path: Path) -> None:
    others = thing("Pod", "g9", 0, metadata={"labels": {"fairlead.dev/gang-uid": "g9"}})
    found = run(
        tmp_path, [*both("g1", 0), *both("g1", 1), thing("Pod", "g2", 0, 2), thing("ResourceClaim", "g2", 0, 2), others]
    )
    assert (found.exit_code, found.stdout) == (0, "the books and the cluster agree on 3 bound pods\n")


def test_what_ended_unseen_is_said_and_ended_when_that_is_asked_for(books: Bookkeeper, tmp_path: Path) -> None:
    there, head = both("g1", 0), books.head
    dry = run(tmp_path, there)
    assert dry.exit_code == 1
    assert [line.split()[0:3] for line in dry.stdout.splitlines()[1:]] == [["g1", "1", "1"], ["g2", "2", "0"]]
    assert dry.stdout.count("--mend ends it") == 2
    assert verified(books.url).head == head, "nothing is written unless it is asked for"
    done = run(tmp_path, there, "--mend", "--actor", "night-shift", "--json")
    assert (done.exit_code, {item["then"] for item in json.loads(done.stdout)["items"]}) == (0, {"mended"}), done.output
    again = Bookkeeper(books.url)
    again.open()
    assert again.open_holds() == (("g1", 1, 0),)
    shown = CliRunner().invoke(app, ["show", "g2", "--json", "--file", str(tmp_path / "b.sqlite")]).stdout
    assert json.loads(shown)["items"][-1]["estimated_ms"] == HOUR - 3_000
    (said,) = journal_of(again, "EndedUnseen")
    assert "a list of 1970-01-01T01:00:00Z has no bound pod and no claim of it (night-shift)" in said
    again.close()
    verified(books.url)
    assert run(tmp_path, there).exit_code == 0
    # Whoever keeps the books meanwhile takes it up.
    books.record([NodeSeen(node=node(sick=(2,)), at_ms=2 * HOUR)], 2 * HOUR)
    books.record((), 3 * HOUR)
    assert books.trouble == ""
    assert books.open_holds() == (("g1", 1, 0),)
    verified(books.url)


def journal_of(books: Bookkeeper, kind: str) -> list[str]:
    from fairlead.store import engine as database
    from fairlead.store import journal

    engine = database.connect(books.url)
    with database.reading(engine) as connection:
        return [row.payload for row in journal.of_kinds(connection, [kind])]


def test_a_claim_that_has_devices_and_a_young_hold_are_left_alone(books: Bookkeeper, tmp_path: Path) -> None:
    ended = thing("Pod", "g2", 0, 2, status={"phase": "Succeeded"})
    waits = thing("Pod", "g9", 0, spec={})
    items = [*both("g1", 0), thing("ResourceClaim", "g1", 1), ended, waits, thing("Pod", "g7", 0)]
    found = run(tmp_path, items, "--mend", "--actor", "a", at_ms=3_000 + SETTLED_MS - 1)
    assert found.exit_code == 1
    rows = [line.split(maxsplit=3) for line in found.stdout.splitlines()[1:]]
    assert [(row[0], " ".join(row[3].split())) for row in rows] == [
        ("g1", "open in the books, no bound pod left alone"),
        ("g2", "open in the books, no bound pod too young to tell"),
        ("g7", "bound pod, not open in the books left alone"),
        ("g1", "claim with devices, no bound pod left alone"),
        ("g7", "bound pod, no claim with devices left alone"),
    ]
    again = Bookkeeper(books.url)
    again.open()
    assert again.open_holds() == books.open_holds()
    later = run(tmp_path, both("g1", 0) + both("g1", 1), at_ms=3_000 + SETTLED_MS)
    assert "--mend ends it" in later.stdout


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "items is empty, so every hold would have ended"),
        ([{"kind": "Secret"}], r"items\[0\].kind: is 'Secret'"),
        ({}, "Expected `array`"),
        ([{"kind": "Pod", "metadata": 5}], "Expected `object`"),
    ],
)
def test_a_list_that_is_none_is_refused_with_the_command_that_makes_one(
    books: Bookkeeper, tmp_path: Path, items: object, said: str
) -> None:
    failure = run(tmp_path, items).exception
    assert isinstance(failure, UnreadableInput)
    with pytest.raises(UnreadableInput, match=f"{said}.*make it with `kubectl get pods,resourceclaims -A"):
        raise failure


def test_who_mends_says_who_it_is_and_a_file_must_be_there(books: Bookkeeper, tmp_path: Path) -> None:
    assert "--actor" in str(run(tmp_path, both("g1", 0), "--mend").exception)
    command = ["reconcile", "--objects", str(tmp_path / "none"), "--file", str(tmp_path / "b.sqlite")]
    assert isinstance(CliRunner().invoke(app, command).exception, NotFound)
    shown = CliRunner().invoke(app, [*command[:2], "-", *command[3:]], input=json.dumps({"items": both("g1", 0)}))
    assert shown.exit_code == 1
