"""Tables as people have them: what is read of them, what was assumed, and the sentence when they cannot be read."""

import csv
import io
import zipfile
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from openpyxl.styles import NamedStyle

from terrace.campaigns.contacts.reading.base import Bounds, Plan, Summary
from terrace.campaigns.contacts.reading.collecting import Person, groups, people
from terrace.campaigns.contacts.reading.file import read_file
from terrace.errors import Invalid


def read(folder: Path, data: bytes, **plan: Any) -> tuple[Summary, list[Person]]:
    file, target = folder / "table", folder / "people"
    file.write_bytes(data)
    summary = read_file(str(file), Plan(**plan), str(target), progress=lambda *_: None)
    return summary, [person for group in groups(target) for person in people(group)]


def refused(folder: Path, data: bytes, **plan: Any) -> Invalid:
    with pytest.raises(Invalid) as told:
        read(folder, data, **plan)
    return told.value


# -- encodings


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", "UTF-8."),
        ("utf-8-sig", "UTF-8, as its first bytes say"),
        ("utf-16", "UTF-16, as its first bytes say"),
        ("utf-16-le", "every other byte is zero"),
        ("utf-16-be", "every other byte is zero"),
        ("cp1252", "Windows-1252, since line 2 is not UTF-8"),
    ],
)
def test_the_encoding_is_found_and_what_was_assumed_is_said(tmp_path: Path, encoding: str, said: str) -> None:
    table = "email;name;city\r\nzoe@example.org;Zoë Müller;Zürich\r\n"
    summary, [zoe] = read(tmp_path, table.encode(encoding))
    assert (zoe.key, zoe.name, zoe.fields) == ("zoe@example.org", "Zoë Müller", {"city": "Zürich"})
    assert any(said in note for note in summary.notes), summary.notes
    assert any("semicolons" in note for note in summary.notes)


def test_bytes_that_windows_does_not_have_are_latin_1(tmp_path: Path) -> None:
    summary, [one] = read(tmp_path, b"email,name\na@example.org,x\x81\xe9\n")
    assert one.name == "xé"
    assert any("Latin-1" in note for note in summary.notes)


def test_an_encoding_that_is_said_is_held_to(tmp_path: Path) -> None:
    data = "email,name\nivan@example.org,Иван\n".encode("cp1251")
    assert read(tmp_path, data, encoding="windows-1251")[1][0].name == "Иван"
    told = refused(tmp_path, b"email,name\na@example.org,\xff\xfe\n", encoding="utf-8")
    assert "Line 2 is not utf-8" in told.message
    assert "Known are" in refused(tmp_path, data, encoding="klingon").message


@pytest.mark.parametrize("encoding", ["hex", "zip", "rot13", "punycode", "idna", "unicode_escape"])
def test_what_is_no_encoding_of_text_is_none(tmp_path: Path, encoding: str) -> None:
    assert refused(tmp_path, b"email\na@example.org\n", encoding=encoding).code == "bad_encoding"


# -- delimiters, quotes, rows


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    rows = [
        ["email", "note"],
        ["a@example.org", "one, two; three | four\tfive"],
        ["b@example.org", 'say "hi"\nthen go'],
    ]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    _, found = read(tmp_path, text.getvalue().encode())
    assert [each.fields["note"] for each in found] == ["one, two; three | four\tfive", 'say "hi"\nthen go']


def test_excels_own_word_on_the_delimiter_counts(tmp_path: Path) -> None:
    _, [one] = read(tmp_path, b"sep=;\r\nemail;amount\r\na@example.org;1,5\r\n")
    assert one.fields == {"amount": "1,5"}


def test_one_column_needs_no_delimiter(tmp_path: Path) -> None:
    assert [each.key for each in read(tmp_path, b"email\na@example.org\nb@example.org\n")[1]] == [
        "a@example.org",
        "b@example.org",
    ]


def test_a_quote_that_never_closes_is_told_with_its_line(tmp_path: Path) -> None:
    rows = b"".join(b"p%d@example.org,x\n" % number for number in range(3000))
    told = refused(tmp_path, b'email,name\na@example.org,"Ada\n' + rows)
    assert told.code == "bad_quotes"
    assert "line 2" in told.message


def test_quotes_that_do_not_balance_in_a_row_cost_that_row_alone(tmp_path: Path) -> None:
    summary, found = read(tmp_path, b'email,name\na@example.org,"Ada" L\nb@example.org,"Bob"\n')
    assert [each.key for each in found] == ["b@example.org"]
    assert [(each.line, "do not balance" in each.message) for each in summary.problems] == [(2, True)]


def test_rows_that_are_longer_or_shorter(tmp_path: Path) -> None:
    table = b"email,name,city\na@example.org\nb@example.org,Bob,Rome,,\nc@example.org,Carl,Rome,Italy\n\n,,\n"
    summary, found = read(tmp_path, table)
    assert [each.key for each in found] == ["a@example.org", "b@example.org"]
    assert (summary.rows, summary.invalid) == (3, 1)
    assert summary.problems[0].line == 4
    assert "4 cells where the first row names 3" in summary.problems[0].message
    assert any("shorter" in note for note in summary.notes)


def test_lines_are_counted_through_cells_of_several_lines(tmp_path: Path) -> None:
    summary, _ = read(tmp_path, b'email,note\na@example.org,"one\ntwo\nthree"\nnobody,x\n')
    assert [each.line for each in summary.problems] == [5]
    assert "'nobody' is not an e-mail address" in summary.problems[0].message


def test_nothing_unseen_is_kept(tmp_path: Path) -> None:
    _, [one] = read(tmp_path, "email,name\na@example.org,A\0d\x07a\u202e!\n".encode())
    assert one.name == "Ada!"


def test_whoever_comes_twice_is_told_and_the_last_counts(tmp_path: Path) -> None:
    summary, found = read(tmp_path, b"email,city\nA@Example.org,Rome\na@example.ORG,Oslo\n")
    assert (summary.good, summary.repeated) == (2, 1)
    assert [(each.key, each.repeated) for each in found] == [("a@example.org", False), ("a@example.org", True)]


# -- what cannot be


@pytest.mark.parametrize(
    ("table", "code", "said"),
    [
        (b"", "table_empty", "nothing in this file"),
        (b"\n\n \n", "table_empty", "nothing"),
        (b"email,name,Name\n", "duplicate_heading", "'name', 'Name'"),
        (b"email,,city\n", "empty_heading", "Column 2"),
        (b"name,city\nAda,London\n", "no_key", "'name', 'city'"),
        (b"ada@example.org,Ada\n", "no_header", "e-mail address where"),
        (b"%PDF-1.4\n", "not_a_table", "PDF"),
        (b"<!doctype html><html><body><table></table></body></html>", "not_a_table", "web page"),
        (b'[{"email": "a@example.org"}]', "not_a_table", "JSON"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "not_a_table", "CSV"),
        (b"\x89PNG\r\n\x1a\n" + b"\0\1\2" * 600, "not_a_table", "CSV"),
        (b"email," + b"x" * 4_100_000, "line_too_long", "Line 1"),
    ],
)
def test_what_is_no_table_gets_a_sentence(tmp_path: Path, table: bytes, code: str, said: str) -> None:
    told = refused(tmp_path, table)
    assert (told.code, said in told.message) == (code, True), told.message


def test_bounds(tmp_path: Path) -> None:
    rows = b"email,note\n" + b"".join(b"p%d@example.org,x\n" % number for number in range(5))
    assert refused(tmp_path, rows, bounds=Bounds(rows=4)).code == "too_many_rows"
    wide = ",".join(["email", *(f"c{number}" for number in range(6))]).encode()
    assert refused(tmp_path, wide, bounds=Bounds(fields=5)).code == "too_many_fields"
    assert refused(tmp_path, ",".join(f"c{n}" for n in range(1001)).encode()).code == "too_many_columns"
    summary, _ = read(tmp_path, b"email,note\na@example.org," + b"x" * 11, bounds=Bounds(field_chars=10))
    assert "holds 11 characters; at most 10" in summary.problems[0].message
    assert refused(tmp_path, b'email,note\na@example.org,"' + b"x\n" * 600_000).code == "bad_quotes"


def test_a_hundred_problems_are_told_and_all_are_counted(tmp_path: Path) -> None:
    summary, found = read(tmp_path, b"email\n" + b"nobody\n" * 150 + b"a@example.org\n")
    assert (summary.invalid, len(summary.problems), len(found)) == (150, 100, 1)
    assert any("first 100" in note for note in summary.notes)


# -- which column is which field


@pytest.mark.parametrize(
    ("heading", "mapping"),
    [
        ("E-Mail,Full Name,Town", {"E-Mail": "email", "Full Name": "name", "Town": "town"}),
        ("Courriel,Nom,Ville", {"Courriel": "email", "Nom": "name", "Ville": "ville"}),
        ("Customer ID,Name", {"Customer ID": "key", "Name": "name"}),
        ("id,email", {"id": "id", "email": "email"}),
        ("email,mail,2024 sales,%%", {"email": "email", "mail": "mail", "2024 sales": "field_2024_sales", "%%": ""}),
        ("email,First-Name,first name", {"email": "email", "First-Name": "first_name", "first name": "first_name_2"}),
    ],
)
def test_columns_are_guessed(tmp_path: Path, heading: str, mapping: dict[str, str]) -> None:
    assert read(tmp_path, heading.encode())[0].mapping == mapping


def test_a_mapping_is_followed_and_the_rest_guessed(tmp_path: Path) -> None:
    table = b"Mail,Number,Town,Secret\na@example.org,7,Rome,x\n"
    summary, [one] = read(tmp_path, table, mapping={"number": "key", "Town": "city", "Secret": ""})
    assert summary.mapping == {"Mail": "email", "Number": "key", "Town": "city", "Secret": ""}
    assert (one.key, one.email, one.fields) == ("7", "a@example.org", {"city": "Rome"})


@pytest.mark.parametrize(
    ("mapping", "code"),
    [
        ({"nowhere": "city"}, "unknown_column"),
        ({"Town": "Big City"}, "bad_field"),
        ({"Town": "a" * 65}, "bad_field"),
        ({"Town": "x.__class__"}, "bad_field"),
        ({"Town": "email"}, "no_key_or_twice"),
        ({"Mail": ""}, "no_key"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(tmp_path: Path, mapping: dict[str, str], code: str) -> None:
    table = b"Mail,Town\na@example.org,Rome\n"
    if code == "no_key_or_twice":  # the town then holds the addresses
        assert read(tmp_path, table, mapping=mapping)[0].invalid == 1
        mapping, code = {"Town": "email", "Mail": "email"}, "bad_mapping"
    assert refused(tmp_path, table, mapping=mapping).code == code


# -- Excel


SEEN = datetime(2026, 1, 5, 14, 30)  # noqa: DTZ001 - a workbook knows no time zones


def workbook(*rows: list[Any], sheets: dict[str, list[list[Any]]] | None = None) -> bytes:
    book = Workbook()
    first = book.active
    assert first is not None
    for row in rows:
        first.append(row)
    for name, more in (sheets or {}).items():
        sheet = book.create_sheet(name)
        for row in more:
            sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def test_cells_are_written_as_a_person_would(tmp_path: Path) -> None:
    data = workbook(
        ["email", "born", "seen", "at", "age", "spent", "phone", "active", "broken", "none"],
        [
            "a@example.org", date(1990, 2, 3), SEEN, time(9, 15), 36, 0.1 + 0.2,
            491701234567, True, "#N/A", None,
        ],
    )  # fmt: skip
    summary, [one] = read(tmp_path, data)
    assert one.fields == {
        "born": "1990-02-03", "seen": "2026-01-05 14:30", "at": "09:15", "age": "36", "spent": "0.3",
        "phone": "491701234567", "active": "true", "broken": "", "none": "",
    }  # fmt: skip
    assert any("#N/A" in note for note in summary.notes)


def test_percentages_are_percentages(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["email", "rate"])
    sheet.append(["a@example.org", 0.255])
    book.add_named_style(NamedStyle("rate", number_format="0.0%"))
    sheet["B2"].style = "rate"
    file = io.BytesIO()
    book.save(file)
    assert read(tmp_path, file.getvalue())[1][0].fields == {"rate": "25.5%"}


def test_a_sheet_is_chosen(tmp_path: Path) -> None:
    data = workbook(["notes"], sheets={"People": [[], ["email"], ["a@example.org"]]})
    _, [one] = read(tmp_path, data, sheet="People")
    assert one.key == "a@example.org"
    assert refused(tmp_path, data, sheet="Nobody").message.endswith("The sheets are: 'Sheet', 'People'.")
    assert refused(tmp_path, data).code == "no_key"


def test_gaps_in_rows_and_columns_keep_their_place(tmp_path: Path) -> None:
    data = workbook([None, None], ["email", "a", "b"], ["x@example.org", None, "2"], [], ["nobody", "1"])
    summary, [one] = read(tmp_path, data)
    assert one.fields == {"a": "", "b": "2"}
    assert [each.line for each in summary.problems] == [5]


@pytest.mark.parametrize("cut", [100, 1000, 3000])
def test_a_damaged_workbook_gets_a_sentence(tmp_path: Path, cut: int) -> None:
    data = workbook(["email"], ["a@example.org"])
    assert "workbook" in refused(tmp_path, data[:cut]).message.lower() or cut < 200


def test_other_archives_are_no_workbooks(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("people.csv", "email")
    assert refused(tmp_path, file.getvalue()).code == "not_a_table"


def test_a_hostile_workbook_is_not_read(tmp_path: Path) -> None:
    source = zipfile.ZipFile(io.BytesIO(workbook(["email"], ["a@example.org"])))
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]>'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as changed:
        for name in source.namelist():
            body = source.read(name)
            if name.endswith("sheet1.xml"):
                body = bomb.encode() + body.partition(b"?>")[2] if body.startswith(b"<?xml") else bomb.encode() + body
            changed.writestr(name, body)
    assert refused(tmp_path, file.getvalue()).code in ("document_hostile", "document_damaged")


# -- whatever comes

PIECE = st.sampled_from(
    [
        "email",
        "name",
        "a@example.org",
        "b@x.org",
        ",",
        ";",
        "\t",
        '"',
        '""',
        "\n",
        "\r\n",
        "\r",
        "\0",
        "é",
        "ÿ",
        " ",
        "x",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.lists(PIECE, max_size=60).map("".join) | st.text(max_size=200), st.sampled_from(["utf-8", "utf-16", "cp1252"])
)
def test_whatever_comes_is_read_or_refused_with_a_sentence(tmp_path: Path, text: str, encoding: str) -> None:
    data = text.encode(encoding, "replace")
    try:
        summary, found = read(tmp_path, data)
    except Invalid as error:
        sentence = error.message
        assert sentence.endswith((".", ")"))
    else:
        assert summary.rows == summary.good + summary.invalid == len(found) + summary.invalid
        assert all(each.key and "\0" not in each.key for each in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)), max_size=30
    ),
    st.sampled_from([",", ";", "\t", "|"]),
)
def test_what_was_written_as_csv_is_read_back(tmp_path: Path, rows: list[tuple[int, str]], delimiter: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["email", "note"])
    writer.writerows([f"p{number}@example.org", note] for number, note in rows)
    summary, found = read(tmp_path, text.getvalue().encode(), delimiter=delimiter)
    assert summary.invalid == 0
    assert [each.key for each in found] == [f"p{number}@example.org" for number, _ in rows]
    assert len({each.key for each in found}) == len(found) - summary.repeated
