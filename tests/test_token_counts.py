"""Counts of tokens that somebody hands in: both forms read the same, and what is wrong is named with its mend."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import UnreadableInput
from fairlead.reports import token_counts
from fairlead.reports.token_counts import Count, TokenClass, read

HEAD = "gang,from,to,class,cached,context,tokens,tokens_within_slo,busy_ms"
NAMED = "namespace,name,from,to,class,cached,context,tokens,tokens_within_slo"
ROW = "g1,2026-10-01T10:00:00Z,2026-10-01T11:00:00+00:00,prompt,yes,long,1000,900,"
T10, T11 = 1_790_848_800_000, 1_790_852_400_000


def of(text: str | bytes) -> list[Count]:
    return list(read(io.BytesIO(text if isinstance(text, bytes) else text.encode()), "counts"))


def of_json(*rows: dict[str, object]) -> list[Count]:
    return of("\n".join(json.dumps(row) for row in rows))


def as_json(**more: object) -> dict[str, object]:
    row = dict(zip(HEAD.split(","), ROW.split(",")[:-1], strict=False))
    return {**row, "tokens": 1000, "tokens_within_slo": 900, **more}


def test_a_row_in_csv_and_in_json_lines() -> None:
    wanted = Count(
        line=2, gang="g1", from_ms=T10, to_ms=T11, of=TokenClass("prompt", "yes", "long"), within=900, beyond=100
    )
    assert of(f"{HEAD}\n{ROW}\n") == [wanted]
    assert of(f"\ufeff{HEAD}\r\n{ROW}\r\n\r\n") == [wanted]  # as spreadsheets write it
    found = of_json(as_json(), as_json(cached=True, busy_ms=5, **{"from": T10}))
    assert (found[0].line, found[0].of, found[0].busy_ms) == (1, wanted.of, None)
    assert (found[1].line, found[1].of, found[1].busy_ms, found[1].from_ms) == (2, wanted.of, 5, T10)
    (named,) = of(f"{NAMED}\nns,=cmd|' /C calc'!A0,{T10},{T11},completion,no,short,0,0\n")
    assert (named.gang, named.namespace, named.name) == ("", "ns", "=cmd|' /C calc'!A0")
    (unicode,) = of_json(as_json(gang="größe-✓"))
    assert unicode.gang == "größe-✓"


def row(**more: str) -> str:
    values = dict(zip(HEAD.split(","), ROW.split(","), strict=True)) | {"class": "prompt"} | more
    return f"{HEAD}\n{ROW}\n" + ",".join(values.values()) + "\n"


BAD: list[tuple[str, str | bytes, str]] = [
    ("negative", row(tokens="-1"), "counts line 3: tokens: '-1' is no count; write a whole number of at most 18"),
    ("a fraction", row(tokens="1.5"), "line 3: tokens: '1.5' is no count"),
    ("too large", row(tokens="1" + 18 * "0"), "line 3: tokens: .* is no count"),
    ("another script's digits", row(tokens="١٢"), "line 3: tokens: .* is no count"),
    ("more in time than there are", row(tokens="899"), "line 3: tokens_within_slo: is 900 of 899 tokens; .* at most"),
    ("busy below zero", row(busy_ms="-5"), "line 3: busy_ms: '-5' is no count"),
    ("no time", row(to="noon"), "line 3: to: 'noon' is not a time; write for example 2026-01-31T12:00:00Z"),
    ("no zone", row(to="2026-10-01T11:00:00"), "line 3: to: .* has no zone"),
    ("too far", row(to="9" * 16), "line 3: to: .* is not a time"),
    ("back in time", row(to="2026-10-01T10:00:00Z"), "line 3: to: must be after from"),
    ("a class", row(**{"class": "embedding"}), "line 3: class: 'embedding' is none of prompt, completion"),
    ("cached", row(cached="true"), "line 3: cached: 'true' is none of yes, no"),
    ("context", row(context=""), "line 3: context: '' is none of short, long"),
    ("nobody", row(gang=""), "line 3: gang: is missing; give gang, or namespace and name"),
    ("NUL", row(gang="g\0"), r"line 3: gang: must be 1 to 253 characters that can be printed; it is 'g\\x00'"),
    ("too few cells", f"{HEAD}\n{ROW}\ng1,1\n", "line 3: has 2 cells where the head has 9"),
    ("an unknown column", f"{HEAD},model\n", "line 1: 'model': there is no such field; the fields are gang, namespace"),
    ("a column twice", f"{HEAD},tokens\n", "line 1: tokens: is there twice; remove one"),
    ("a column missing", "gang,from\n", "line 1: to: is missing; the first line names the fields"),
    ("an open quote", f'{HEAD}\n{ROW}\n"g1,', "line 3: .*quote"),
    ("no UTF-8", f"{HEAD}\n".encode() + b"\xff\n", "line 2: is no UTF-8; save the file as UTF-8"),
    ("nothing", "", "counts: has no rows"),
    ("only a head", HEAD, "counts: has no rows"),
    ("no object", "[1]\n", "line 1: "),
    ("broken JSON", '{"gang": \n', "line 1: is no JSON object"),
    ("nested", "{" + '"a":[' * 9_000, "line 1: is no JSON object"),
    ("a list", json.dumps(as_json(gang=["g1"])), r"line 1: gang: \['g1'\] is neither text nor a whole number"),
    ("a float", json.dumps(as_json(tokens=1e3)), "line 1: tokens: 1000.0 is neither text nor a whole number"),
    ("a key twice", '{"gang": "a", "gang": "b"}', "line 1: gang: is there twice; remove one"),
    ("lone surrogate", json.dumps(as_json(gang="\ud800")), "line 1: gang: must be 1 to 253 characters"),
    ("uid and name", json.dumps(as_json(name="n")), "line 1: name: is given beside gang; give gang, or namespace and"),
    ("half a name", json.dumps({**as_json(name="n"), "gang": None}), "line 1: namespace: is missing"),
    ("an endless line", b'{"gang": "' + b"x" * 70_000, "line 1: is longer than 65536 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_names_file_line_field_and_mend(text: str | bytes, said: str) -> None:
    with pytest.raises(UnreadableInput, match=said):
        of(text)


def test_rows_are_read_one_by_one_up_to_a_limit_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_counts, "ROWS_MAX", 2)
    line = json.dumps(as_json()).encode() + b"\n"
    assert len(of(line * 2)) == 2
    taken: list[int] = []

    class Endless(io.RawIOBase):
        def readline(self, size: int | None = -1, /) -> bytes:
            taken.append(1)
            return line

    found: Iterable[Count] = read(Endless(), "counts")  # type: ignore[arg-type]
    with pytest.raises(UnreadableInput, match="counts line 3: there are more than 2 rows; give longer spans, or"):
        list(found)
    assert len(taken) == 3


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_rows_or_a_sentence(content: bytes, headed: bool) -> None:
    with contextlib.suppress(UnreadableInput):
        of((f"{HEAD}\n{ROW}\n".encode() if headed else b"") + content)
