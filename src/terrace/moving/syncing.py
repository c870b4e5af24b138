"""Makes one database hold the rows of another: what is missing there is put in, what differs replaced, what is gone
removed. So the first copy, going on after a crash and catching up with later writes are one thing.
"""

from dataclasses import dataclass

from terrace.moving.sides import Row, Side, Table
from terrace.moving.sums import PAGE, Sum, Summing, Told, pages
from terrace.moving.texts import Texts

DOCUMENTS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Synced:
    sums: dict[str, Sum]  # of the source
    written: int  # rows put in or replaced
    removed: int
    altered: int  # texts that PostgreSQL cannot keep as they are

    def then(self, later: "Synced") -> "Synced":
        """Both, one after the other."""
        return Synced(later.sums, self.written + later.written, self.removed + later.removed, later.altered)


class Syncing:
    """`source` must be within a snapshot."""

    def __init__(self, source: Side, destination: Side, texts: Texts, told: Told) -> None:
        self._source = source
        self._destination = destination
        self._told = told
        self._texts = texts
        self._places = {each.name: each for each in destination.tables()}
        self._written = self._removed = self._altered = 0

    def run(self) -> Synced:
        tables = self._source.tables()
        filled = {each.name for each in tables if self._destination.count(self._places[each.name])}
        if filled:
            self._forget_texts()
            for table in reversed(tables):
                if table.name in filled:
                    self._remove(table)
        sums = {table.name: self._copy(table, table.name in filled) for table in tables}
        self._texts.write(self._told)
        with self._destination.writing():
            self._destination.set_numbers(self._source.numbers())
        return Synced(sums, self._written, self._removed, self._altered)

    def _copy(self, table: Table, filled: bool) -> Sum:
        summing, total, done = Summing(), self._source.count(table), 0
        there = self._places[table.name]
        for page in pages(self._source, table):
            rows = self._kept(page)
            summing.add(rows)
            if filled:
                held = set(self._destination.rows_of(there, [table.key_of(row) for row in rows]))
                rows = [row for row in rows if row not in held]
            if rows:
                with self._destination.writing() as session:
                    self._destination.put(there, rows)
                    self._texts.arrived(session, there, rows)
            self._written += len(rows)
            done += len(page)
            self._told(f"moved {table.name}", done, max(total, done))
        return summing.sum

    def _remove(self, table: Table) -> None:
        there, after = self._places[table.name], None
        while keys := self._destination.keys(there, after, PAGE):
            wanted = {table.key_of(row) for row in self._source.rows_of(table, keys)}
            if gone := [key for key in keys if key not in wanted]:
                with self._destination.writing():
                    self._destination.delete(there, gone)
                self._removed += len(gone)
            after = keys[-1]

    def _forget_texts(self) -> None:
        """The words of chunks that will change or go: taken out while the chunks are still there."""
        table = next(each for each in self._source.tables() if each.name == "chunks")
        there = self._places["chunks"]
        names = [each.name for each in there.columns]
        tenant, document = names.index("tenant_id"), names.index("document_id")
        stale: dict[tuple[str, str], None] = {}
        for page in pages(self._destination, there):
            wanted = set(self._kept(self._source.rows_of(table, [there.key_of(row) for row in page])))
            stale |= {(row[tenant], row[document]): None for row in page if row not in wanted}
        documents = list(stale)
        for at in range(0, len(documents), DOCUMENTS_AT_ONCE):
            with self._destination.writing() as session:
                self._texts.forget(session, documents[at : at + DOCUMENTS_AT_ONCE])

    def _kept(self, rows: list[Row]) -> list[Row]:
        """As the destination can keep them: PostgreSQL has no text with a zero character, which becomes U+FFFD."""
        if self._destination.dialect != "postgresql" or self._source.dialect == "postgresql":
            return rows
        kept = []
        for row in rows:
            if any(type(value) is str and "\0" in value for value in row):
                row = tuple(value.replace("\0", "\ufffd") if type(value) is str else value for value in row)
                self._altered += 1
            kept.append(row)
        return kept
