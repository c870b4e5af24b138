"""One statement that only reads. It is cut into words as its database would cut it, and then looked at.

This is the first of two walls: behind it the database itself is told to let nothing be written.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from terrace.campaigns.databases.base import Kind
from terrace.errors import Invalid

MAX_CHARS = 20_000

_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d][\w$]*")
_DOLLAR = re.compile(r"\$(?:[^\W\d]\w*)?\$")
_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")  # a word may follow without a space: `1.INTO`
_LINE = re.compile(r"[^\n]*")
_LINE_PG = re.compile(r"[^\r\n]*")
_ODD = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]|(?![ \t\n\v\f\r])\s")  # each database takes these for something else

BEGINNINGS = ("select", "with")
WRITING = frozenset(("insert", "update", "delete", "merge", "replace"))
"""What may stand in or after a WITH: at its start, after a bracket or AS."""
LOCKING = re.compile(r"\b(for (update|share|no key update|key share)|lock in share mode)\b")
DENIED: dict[Kind, tuple[re.Pattern[str], ...]] = {
    "postgresql": (
        re.compile(r"pg_sleep\w*|pg_read_\w+|pg_ls_\w+|pg_stat_file|pg_file_\w+|pg_logfile\w*|pg_current_logfile"),
        re.compile(r"pg_(terminate|cancel)_backend|pg_reload_conf|pg_rotate_logfile\w*|pg_promote|pg_switch_wal"),
        re.compile(r"pg_(try_)?advisory_\w+|pg_notify|pg_export_snapshot|pg_create_\w+|pg_drop_\w+|pg_replication_\w+"),
        re.compile(r"lo_\w+|loread|lowrite|dblink\w*|set_config|setval|nextval|(query|cursor|table|schema)_to_xml\w*"),
        re.compile(r"ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table"),  # run a text as a query
        re.compile(r"database_to_xml\w*|pg_logical_\w+|pg_import_\w+|pg_backup_\w+|pg_wal_\w+|adminpack\w*"),
    ),
    "mysql": (
        re.compile(r"sleep|benchmark|load_file|get_lock|release_lock|release_all_locks|is_(free|used)_lock"),
        re.compile(r"(master|source)_(pos|gtid)_wait|wait_for_executed_gtid_set\w*|wait_until_sql_thread\w*"),
        re.compile(r"sys_(exec|eval|get|set)|setval|nextval"),
    ),
    "sqlite": (re.compile(r"load_extension|readfile|writefile|edit|fts3_tokenizer|lsdir|fsdir"),),
}
HINTS = ("/*!", "/*+", "/*M!")  # MySQL runs what stands in such comments


class Token(NamedTuple):
    kind: str  # word, quoted (an identifier), text, number, sign
    text: str  # of words and quoted identifiers, in lower case and without quotes


ESCAPED = Token("text", "e")  # whose escapes hold in what PostgreSQL joins to it, too


def checked(kind: Kind, query: str) -> str:
    """The statement without what ends it. Raises Invalid for several, and for one that does more than read."""
    query = query.strip()
    if not query or len(query) > MAX_CHARS:
        raise Invalid(f"A query is one SELECT statement of at most {MAX_CHARS:,} characters.", code="bad_query")
    if _ODD.search(query):
        raise Invalid("The query holds control characters or odd spaces: write plain ones.", code="bad_query")
    tokens = list(_tokens(kind, query))
    if kind == "postgresql" and any(one == ESCAPED and other.kind == "text" for one, other in pairwise(tokens)):
        raise Invalid("A text E'...' goes on in another: write it as one.", code="bad_query")
    ends = [index for index, token in enumerate(tokens) if token == Token("sign", ";")]
    if ends and any(token != Token("sign", ";") for token in tokens[ends[0] :]):
        raise Invalid("Only one statement is run. Take out what follows the semicolon.", code="several_statements")
    tokens = [token for token in tokens if token != Token("sign", ";")]
    first = next((token for token in tokens if token != Token("sign", "(")), None)
    if first is None or first.kind != "word" or first.text not in BEGINNINGS:
        raise _not_reading("It must begin with SELECT, or with WITH and end in a SELECT.")
    _look(kind, tokens)
    return query.rstrip("; \t\r\n") if ends else query


def _look(kind: Kind, tokens: list[Token]) -> None:
    before = Token("sign", "(")
    for index, token in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else Token("sign", "")
        if token.kind == "word" and token.text in WRITING and _begins(before, token, following):
            raise _not_reading(f"There is {token.text.upper()} in it.")
        if token.kind == "word" and token.text == "into":
            raise _not_reading("SELECT ... INTO writes what it finds.")
        if token.kind in ("word", "quoted") and following.text == "(" and _denied(kind, token.text):
            raise Invalid(f"The function {token.text[:60]} may not be used here.", code="denied_function")
        before = token
    if found := LOCKING.search(" ".join(token.text for token in tokens if token.kind == "word")):
        raise _not_reading(f"{found[0].upper()} locks rows.")


def _begins(before: Token, token: Token, following: Token) -> bool:
    """Whether a statement could begin with this word; `replace(...)` is a function."""
    if token.text == "replace" and following.text == "(":
        return False
    if before.kind == "sign" and before.text in ("(", ")"):
        return True
    return before.kind == "word" and before.text in ("as", "materialized")


def _denied(kind: Kind, name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in DENIED[kind])


def _not_reading(why: str) -> Invalid:
    return Invalid(f"Only a query that reads is run. {why}", code="not_a_query")


def _tokens(kind: Kind, query: str) -> Iterator[Token]:
    at = 0
    while at < len(query):
        at, token = _token(kind, query, at)
        if token is not None:
            yield token


def _token(kind: Kind, query: str, at: int) -> tuple[int, Token | None]:
    """(where the next one begins, the token); None for space and comments."""
    sign = query[at]
    if found := _SPACE.match(query, at):
        return found.end(), None
    if query.startswith("--", at) and (kind != "mysql" or query[at + 2 : at + 3].strip() == ""):
        return _end_of_line(kind, query, at), None
    if sign == "#" and kind == "mysql":
        return _end_of_line(kind, query, at), None
    if query.startswith("/*", at):
        if kind == "mysql" and query.startswith(HINTS, at):
            raise Invalid("Comments that the server would run are refused: take out /*! and /*+.", code="bad_query")
        return _comment(kind, query, at), None
    if sign == "'":
        return _text(kind, query, at)
    if sign in '"`[':
        return _quoted(kind, query, at)
    if sign == "$" and kind == "postgresql" and (mark := _DOLLAR.match(query, at)):
        return _past(query, query.find(mark[0], mark.end()), len(mark[0])), Token("text", "")
    if word := _WORD.match(query, at):
        return _word(kind, query, word)
    if number := _NUMBER.match(query, at):
        return number.end(), Token("number", number[0])
    return at + 1, Token("sign", sign)


def _word(kind: Kind, query: str, word: re.Match[str]) -> tuple[int, Token]:
    """Or what it introduces: E'...' has escapes in PostgreSQL, U&"..." spells names in another way."""
    name, following = word[0].lower(), query[word.end() : word.end() + 1]
    if kind == "postgresql" and name == "e" and following == "'":
        return _escaped(query, word.end())[0], ESCAPED
    if kind == "postgresql" and name == "u" and following == "&":
        raise Invalid("Names and texts spelled as U& are refused: write them plainly.", code="bad_query")
    if name in ("n", "b", "x") and following == "'":
        return _text(kind, query, word.end())
    return word.end(), Token("word", name)


def _text(kind: Kind, query: str, at: int) -> tuple[int, Token]:
    return _escaped(query, at) if kind == "mysql" else (_doubled(query, at, "'"), Token("text", ""))


def _quoted(kind: Kind, query: str, at: int) -> tuple[int, Token | None]:
    sign = query[at]
    if sign == "[" and kind != "sqlite":
        return at + 1, Token("sign", sign)
    if sign == '"' and kind == "mysql":
        return _escaped(query, at)
    if sign == "`" and kind == "postgresql":
        return at + 1, Token("sign", sign)
    end = _past(query, query.find("]", at), 1) if sign == "[" else _doubled(query, at, sign)
    return end, Token("quoted", query[at + 1 : end - 1].replace(sign * 2, sign).lower())


def _doubled(query: str, at: int, quote: str) -> int:
    """Past a text in which the quote is written twice."""
    while True:
        at = _past(query, query.find(quote, at + 1), 1)
        if query[at : at + 1] != quote:
            return at


def _escaped(query: str, at: int) -> tuple[int, Token]:
    """Past a text in which a backslash takes the next sign, and the quote may be written twice."""
    quote = query[at]
    at += 1
    while at < len(query):
        if query[at] == "\\":
            at += 2
        elif query[at] != quote:
            at += 1
        elif query[at + 1 : at + 2] == quote:
            at += 2
        else:
            return at + 1, Token("text", "")
    raise _open_quote()


def _comment(kind: Kind, query: str, at: int) -> int:
    if kind != "postgresql":
        return _past(query, query.find("*/", at + 2), 2)
    depth = 0
    for found in re.finditer(r"/\*|\*/", query[at:]):  # in PostgreSQL they nest
        depth += 1 if found[0] == "/*" else -1
        if not depth:
            return at + found.end()
    raise _open_quote()


def _end_of_line(kind: Kind, query: str, at: int) -> int:
    """A carriage return ends a comment in PostgreSQL alone."""
    found = (_LINE_PG if kind == "postgresql" else _LINE).match(query, at)
    return found.end() if found else len(query)


def _past(query: str, found: int, length: int) -> int:
    if found < 0:
        raise _open_quote()
    return found + length


def _open_quote() -> Invalid:
    return Invalid("A quote or a comment in the query is never closed.", code="bad_query")
