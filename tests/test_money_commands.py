"""Prices and adjustments from the command line, and late prices through the books' own door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ledger_books import hold, release
from ledger_facts import NAMED, node
from mig_grids import A100_80
from price_words import price, priced
from typer.testing import CliRunner

from fairlead.cli import ledger
from fairlead.cli import price as price_cli
from fairlead.errors import FairleadError, UnreadableInput
from fairlead.ledger.audit import audit
from fairlead.ledger.entry import EntryKind
from fairlead.model.events import NodeSeen
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.simulation import gangjob_yaml
from fairlead.store import engine as database
from fairlead.store import entries, journal

T0 = 1_767_225_600_000  # 2026-01-01
HOUR = 3_600_000
BOOK = f"""
apiVersion: fairlead.dev/v1alpha1
kind: PriceBook
metadata: {{name: eur}}
spec:
  currency: EUR
  prices:
  - model: {A100_80}
    from: "2026-01-01T00:00:00Z"
    perHour: {{inQuota: "3.60"}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Books in which vision had two GPUs for an hour and speech one for half an hour."""
    found = tmp_path / "b.sqlite"
    books = Bookkeeper(f"sqlite:///{found}")
    facts = [
        *NAMED,
        NodeSeen(node=node(), at_ms=T0),
        hold(T0, ("n1", (0, 1))),
        hold(T0, ("n1", (2,)), uid="g2"),
        release(T0 + HOUR // 2, uid="g2"),
        release(T0 + HOUR),
    ]
    books.record(facts, T0 + HOUR)
    assert books.trouble == ""
    books.close()
    return found


def run(app: Any, path: Path, *arguments: str) -> Any:
    command = [*arguments[:1], "--file", str(path), *arguments[1:]]
    return CliRunner().invoke(app, command, env={"FAIRLEAD_ACTOR": "finance"})


def money(path: Path) -> dict[str, int]:
    engine = database.connect(f"sqlite:///{path}")
    with database.reading(engine) as connection:
        found = audit("embedded", journal.read(connection), entries.read(connection))
        assert found.money.get("EUR", {}) == entries.balances(connection).get("money:EUR", {})
    engine.dispose()
    assert found.verified, found.findings
    return {name: nanos for name, nanos in found.money.get("EUR", {}).items() if nanos}


def set_prices(path: Path, text: str = BOOK) -> Any:
    document = path.parent / "prices.yaml"
    document.write_text(text)
    return run(price_cli.app, path, "set", str(document))


def test_prices_are_set_listed_and_checked(path: Path) -> None:
    missing = run(price_cli.app, path, "check")
    assert missing.exit_code == 1
    assert f"lab     vision  in-quota  {A100_80}  2.000" in missing.output
    done = set_prices(path)
    assert (done.exit_code, done.output) == (0, "PriceBook/eur\n")
    assert run(price_cli.app, path, "check").output == "all that was held has a price\n"
    (row,) = json.loads(run(price_cli.app, path, "list", "--json").output)["items"]
    assert (row["sku"], row["tier"], row["per_hour"], row["to_ms"]) == (A100_80, "in-quota", "3.60", None)
    assert "2026-01-01T00:00:00Z" in run(price_cli.app, path, "list").output
    assert money(path) == {
        "spend:lab:vision:in-quota": 7_200_000_000,
        "spend:speech:speech:in-quota": 1_800_000_000,
        f"revenue:{A100_80}": -9_000_000_000,
    }
    again = set_prices(path, BOOK.replace("name: eur", "name: other"))
    assert isinstance(again.exception, UnreadableInput)
    assert "2026-01-01T00:00:00Z to ever and another of book eur 2026-01-01T00:00:00Z to ever" in str(again.exception)


COSTS = """  costs:
  - model: H100
    to: "2027-01-01T00:00:00Z"
    rental: {perHour: "2"}
    power: {watts: 700, perKwh: "0.20"}
  fixed:
  - {name: security, perMonth: "12000"}
"""


def test_what_the_platform_pays_is_set_and_listed_beside_the_prices(path: Path) -> None:
    assert set_prices(path, BOOK + COSTS).exit_code == 0
    said = json.loads(run(price_cli.app, path, "list", "--json").output)
    assert [(row["cost"], row["per_gpu_hour"]) for row in said["costs"]] == [
        ("rental", "2.00"),
        ("power", "0.14"),
        ("total", "2.14"),
    ]
    assert said["fixed"][0]["per_month"] == "12000.00"
    listed = run(price_cli.app, path, "list").output
    assert "eur   H100   -     2027-01-01T00:00:00Z  total           2.14  EUR" in listed
    assert "eur   security    -     -    12000.00  EUR" in listed
    wrong = set_prices(path, BOOK + COSTS.replace('perHour: "2"', 'perHour: "2", perMonth: "3"'))
    assert "costs[0].rental: is paid by the month or by the hour" in str(wrong.exception)


def test_a_credit_is_divided_as_it_was_spent_and_says_who_and_why(path: Path) -> None:
    set_prices(path)
    done = run(
        ledger.app, path, "adjust", "--queue", "lab", "--credit", "1", "--currency", "EUR", "--reason", "outage",
        "--actor", "ann", "--note", "rack r7",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    after = money(path)
    assert after["spend:lab:vision:in-quota"] == 6_200_000_000
    assert after["credit:outage"] == 1_000_000_000
    engine = database.connect(f"sqlite:///{path}")
    with database.reading(engine) as connection:
        last = list(entries.read(connection))[-1].entry
    engine.dispose()
    assert (last.kind, last.actor, last.reason) == (EntryKind.ADJUSTMENT, "ann", "outage: rack r7")


def test_an_entry_can_be_taken_back_and_a_charge_needs_a_tier_where_nothing_was_spent(path: Path) -> None:
    nothing = ("adjust", "--queue", "speech", "--charge", "0.5", "--currency", "EUR", "--reason", "setup")
    assert "--tier" in str(run(ledger.app, path, *nothing).exception)
    assert run(ledger.app, path, *nothing, "--tier", "in-quota").exit_code == 0
    assert money(path) == {"spend:speech:speech:in-quota": 500_000_000, "credit:setup": -500_000_000}
    number = len(read(path))
    assert run(ledger.app, path, "adjust", "--entry", str(number), "--reason", "mistake").exit_code == 0
    assert money(path) == {"credit:setup": -500_000_000, "credit:mistake": 500_000_000}
    first, second = read(path)[-2:]
    assert second.refers == first.id


def test_an_adjustment_names_a_role_or_pseudonym_and_never_the_user_of_the_machine(path: Path) -> None:
    arguments = ["adjust", *QUEUE[1:], "--credit", "1", "--file", str(path)]
    nobody = CliRunner().invoke(ledger.app, arguments, env={"FAIRLEAD_ACTOR": ""})
    assert nobody.exit_code == 2, nobody.output


def read(path: Path) -> list[Any]:
    engine = database.connect(f"sqlite:///{path}")
    with database.reading(engine) as connection:
        found = [sealed.entry for sealed in entries.read(connection)]
    engine.dispose()
    return found


QUEUE = ("adjust", "--queue", "lab", "--currency", "EUR", "--reason", "x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adjust", "--reason", "x"), "--entry, or --queue"),
        (QUEUE, "--entry, or --queue"),
        ((*QUEUE, "--credit", "1", "--charge", "1"), "--entry, or --queue"),
        ((*QUEUE, "--credit", "-1"), "--credit: '-1' is no amount"),
        ((*QUEUE, "--credit", "1.0000000001"), "nine decimal places"),
        (("adjust", "--queue", "lab", "--credit", "1", "--currency", "=E", "--reason", "x"), "currency"),
        (("adjust", "--queue", "none", "--credit", "1", "--currency", "EUR", "--reason", "x"), "no queue 'none'"),
        ((*QUEUE[:-1], "a\nb", "--credit", "1"), "--reason"),
        ((*QUEUE[:-1], "a\x00b", "--credit", "1"), "--reason"),
        ((*QUEUE, "--credit", "1", "--tier", "stolen"), "--tier: 'stolen'"),
        ((*QUEUE, "--credit", "1", "--tier", "in-quota", "--since", "2030-01-01", "--until", "2029-01-01"), "--since"),
        (("adjust", "--entry", "1", "--reason", "x"), "it charged nothing"),
        (("adjust", "--entry", "99999", "--reason", "x"), "no entry 99999"),
    ],
)
def test_what_is_no_adjustment_is_refused_and_nothing_is_written(path: Path, arguments: Any, message: str) -> None:
    number = len(read(path))
    refused = run(ledger.app, path, *arguments)
    assert isinstance(refused.exception, FairleadError), refused.output
    assert message in str(refused.exception)
    assert len(read(path)) == number


@pytest.mark.parametrize("step", ["begun", "journal", "entries", "committed"])
def test_who_dies_between_a_late_price_and_its_correction_makes_it_later(path: Path, step: str) -> None:
    class Killed(BaseException):
        pass

    passed: list[str] = []

    def die(name: str) -> None:
        passed.append(name)
        if (passed.count("journal") == 2 and name == step) or (passed.count("committed") == 1 and name == step):
            raise Killed

    late = priced(price("inQuota=3.60"), at_ms=T0 + 2 * HOUR)
    books = Bookkeeper(f"sqlite:///{path}", failpoint=die)
    with pytest.raises(Killed):
        books.record([late], T0 + 2 * HOUR)
    books.close()
    books = Bookkeeper(f"sqlite:///{path}")
    for _ in range(2):
        books.record([late], T0 + 2 * HOUR)
        assert books.trouble == ""
    books.close()
    assert money(path)["spend:lab:vision:in-quota"] == 7_200_000_000
    assert sum(entry.kind is EntryKind.ADJUSTMENT for entry in read(path)) == 1


def test_a_writer_beside_is_noticed_and_joined(path: Path) -> None:
    """`fairlead up` runs, and somebody adjusts: both stand in the books, and the first goes on."""
    running = Bookkeeper(f"sqlite:///{path}")
    running.record([], T0 + HOUR)
    assert set_prices(path).exit_code == 0
    for later in range(3):
        running.record([hold(T0 + 3 * HOUR, ("n1", (0,)), uid="g3")], T0 + 3 * HOUR + later * 60_000)
    assert running.trouble == ""
    running.close()
    assert money(path)["spend:lab:vision:in-quota"] == 7_200_000_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("currency: EUR", "currency: ''"), "spec.currency"),
        (('"3.60"', "3.60"), r"spec.prices\[0\].perHour.inQuota: must be text"),
        (('inQuota: "3.60"', 'inquota: "3.60"'), r"spec.prices\[0\].perHour.inquota: unknown field; did you mean"),
        (("2026-01-01T00:00:00Z", "2026-01-01"), r"spec.prices\[0\].from: '2026-01-01' has no zone"),
        ((f"model: {A100_80}", "model: ''"), r"spec.prices\[0\].model"),
        (("fairlead.dev/v1alpha1", "v1"), "apiVersion"),
    ],
)
def test_what_is_no_price_book_is_refused_by_field(wrong: tuple[str, str], message: str) -> None:
    assert wrong[0] in BOOK
    with pytest.raises(UnreadableInput, match=message):
        gangjob_yaml.read(BOOK.replace(*wrong), now_ms=0, new_id=lambda *_: "x")
