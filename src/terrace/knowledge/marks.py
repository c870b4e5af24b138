"""Citation marks in an answer, found while it streams.

A mark is `[1]`, `[1, 3]`, `[1-3]`, `[Source 1]`, `[^1]` or `【1】`. What only looks like one is left alone: fenced and
inline code, `[1](link)`, an index such as `a[1]`, an interval such as `[0, 1]`, an escaped `\\[1]`.

What is shown cannot be unsaid, so the scanner holds back exactly what it cannot judge yet: an unfinished mark, a
possible fence, an inline code span until its line ends, white space that a removed mark would leave dangling. The same
text gives the same result however it was cut into pieces.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MARK_CHARS = 64  # a longer bracket is no mark
CODE_CHARS = 1000  # an inline code span or a fence's first line
PREFIX_CHARS = 80  # indentation, quote signs and list sign before a fence
GROUP_MARKS = 32  # adjacent marks judged together
HELD_CHARS = 64
PIECE_CHARS = 4096  # scanned at a time: the cost grows with the square of it
CONTEXT_CHARS = 1500  # how much of what was shown a decision sees

_ITEM = r"\d{1,3}(?:[ \t]*[-–—][ \t]*\d{1,3})?"
_LABEL = r"(?:\^|(?i:sources?|passages?|refs?|quellen?)\.?[ \t]*)?"
_MARK = re.compile(
    rf"[\[【][ \t]*{_LABEL}({_ITEM}(?:[ \t]*(?:[,;&、，]|and|und|et)[ \t]*{_ITEM})*)[ \t]*(?:†[^\]】\n]*)?[\]】]"
)
_PARTIAL_MARK = re.compile(
    r"[\[【][ \t]*(?:\^|[A-Za-z]{0,9}\.?[ \t]*)?(?:[\d \t,;&、，–—-]|and?|und?|et?)*(?:†[^\]】\n]*)?\Z"
)
_NUMBERS = re.compile(r"(\d{1,3})(?:[ \t]*[-–—][ \t]*(\d{1,3}))?")
_BETWEEN = re.compile(r"[ \t]*[,;]?[ \t]*")
_SPECIAL = re.compile(r"[`\[【\n]")
_PREFIX = re.compile(r"[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?[ \t>]*")
_PARTIAL_PREFIX = re.compile(r"[ \t>]*(?:[-*+]|\d{1,9}[.)]?)?[ \t>]*\Z")
_FENCE = re.compile(r"`{3,}|~{3,}")
_IDENTIFIER = re.compile(
    r"(?:[A-Za-z_]\w*[\d_]|(?:^|\W)[A-Za-z]|\b[a-z]+[A-Z]\w*|[A-Za-z_)][.>][A-Za-z_]\w*)\Z"  # x1 a camelCase x.items
)
_CLOSING = frozenset(".,;:!?)]}…。，、；：！？）")

Decide = Callable[[str, Sequence[int]], Sequence[int]]
"""(the end of what was shown, the numbers a group of marks names) -> the numbers to show; none removes the group."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A group of marks as shown: `text[start:end]` is `[n][m]...`."""

    start: int
    end: int
    numbers: tuple[int, ...]


def numbers_in(inside: str) -> list[int]:
    """The numbers that the inside of a mark names, ranges written out, in order, each once."""
    found: dict[int, None] = {}
    for first, last in _NUMBERS.findall(inside):
        low, high = sorted((int(first), int(last or first)))
        found.update(dict.fromkeys(range(low, high + 1)))
    return list(found)


class MarkScanner:
    """Text in pieces goes in, the same text with its marks decided and in one form (`[1][3]`) comes out."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self._pending = ""
        self._held = ""  # white space (and an opening parenthesis) that goes if the mark after it does
        self._removed = False  # the last thing seen was a removed mark
        self._fence = ""  # the fence we are in
        self._line_start = True
        self._index = False  # the last bracket was an index: a[1][2]
        self._tail = ""
        self._out: list[str] = []
        self.length = 0  # of what was shown
        self.placed: list[Placed] = []

    def feed(self, text: str) -> str:
        """What can be shown now."""
        shown = []
        for at in range(0, len(text), PIECE_CHARS):
            self._pending += text[at : at + PIECE_CHARS]
            shown.append(self._run(final=False))
        return "".join(shown)

    def finish(self) -> str:
        """The rest, once nothing more comes."""
        return self._run(final=True)

    def _run(self, *, final: bool) -> str:
        self._out = []
        while self._pending and self._step(final):
            pass
        if final and not self._pending:
            self._emit(self._held.strip(" \t") if self._removed else self._held)
            self._held, self._removed = "", False
        return "".join(self._out)

    def _emit(self, text: str) -> None:
        if text:
            self._out.append(text)
            self.length += len(text)
            self._tail = (self._tail + text)[-CONTEXT_CHARS:]

    def _take(self, count: int) -> str:
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken

    def _say(self, text: str) -> None:
        """Show text that is no mark, holding back what a removed mark would leave dangling."""
        text = self._held + text
        solid = text.rstrip(" \t")
        if solid.endswith("("):
            solid = solid[:-1].rstrip(" \t")
        cut = max(len(solid), len(text) - HELD_CHARS)
        self._emit(text[:cut])
        self._held = text[cut:]
        self._index = False

    def _step(self, final: bool) -> bool:
        """Deal with the head of what is pending; False when more must come first."""
        if self._fence:
            return self._in_fence(final)
        if self._removed:
            return self._tidy()
        if self._line_start:
            return self._at_line_start(final)
        special = _SPECIAL.search(self._pending)
        at = special.start() if special else len(self._pending)
        if at:
            self._say(self._take(at))
            return True
        char = self._pending[0]
        if char == "\n":
            self._say(self._take(1))
            self._line_start = True
            return True
        return self._at_code(final) if char == "`" else self._at_bracket(final)

    # -- code

    def _in_fence(self, final: bool) -> bool:
        line_end = self._pending.find("\n") + 1
        line = self._pending[: line_end or len(self._pending)]
        short = self._line_start and len(line) <= CODE_CHARS
        if short and not line_end and not final and not line.strip(f" \t>{self._fence[0]}"):
            return False  # it may become the closing fence
        bare = line.strip(" \t>\r\n")
        closing = short and len(bare) >= len(self._fence) and not bare.strip(self._fence[0])
        self._pass(line)
        self._line_start = bool(line_end)
        if closing:
            self._fence = ""
        return True

    def _pass(self, text: str) -> None:
        """Show code as it is."""
        self._emit(self._held + self._take(len(text)))
        self._held = ""

    def _at_line_start(self, final: bool) -> bool:
        line_end = self._pending.find("\n")
        line = self._pending if line_end < 0 else self._pending[:line_end]
        open_ended = line_end < 0 and not final
        if open_ended and len(line) <= PREFIX_CHARS and _PARTIAL_PREFIX.match(line):
            return False
        prefix = _PREFIX.match(line)
        assert prefix is not None  # it matches the empty string too
        rest = line[prefix.end() :]
        self._line_start = False
        if prefix.end() > PREFIX_CHARS or not rest.startswith(("`", "~")):
            return True
        if open_ended and len(rest) < CODE_CHARS:
            sign = rest[0]
            info = rest.lstrip(sign)
            if not info or (len(rest) - len(info) >= 3 and not (sign == "`" and "`" in info)):
                self._line_start = True
                return False
        fence = _FENCE.match(rest)
        if fence and len(rest) < CODE_CHARS and not (rest[0] == "`" and "`" in rest[fence.end() :]):
            self._fence = fence.group()
            self._pass(self._pending[: len(line) + 1])
            self._line_start = True
        return True

    def _at_code(self, final: bool) -> bool:
        run = len(self._pending) - len(self._pending.lstrip("`"))
        line_end = self._pending.find("\n")
        known = final or line_end >= 0 or len(self._pending) > CODE_CHARS
        if run == len(self._pending) and not known:
            return False
        line = self._pending[: line_end if 0 <= line_end < CODE_CHARS else CODE_CHARS]
        closing = re.compile(rf"(?<!`)`{{{run}}}(?!`)").search(line, run)
        if closing and (known or closing.end() < len(self._pending)):
            self._pass(line[: closing.end()])
            self._index = False
            return True
        if known:
            self._say(self._take(run))
        return known

    # -- marks

    def _at_bracket(self, final: bool) -> bool:
        first = self._mark(0, final)
        if first is None:
            return False
        if not first:
            match = _MARK.match(self._pending)
            self._say(self._take(match.end() if match else 1))
            self._index = match is not None
            return True
        end, numbers, count = first[0], list(first[1]), 1
        while count < GROUP_MARKS:
            between = _BETWEEN.match(self._pending, end)
            following = between.end() if between else end
            if following == len(self._pending) and not final:
                return False
            more = self._mark(following, final, glued=False)
            if more is None:
                return False
            if not more:
                break
            end, count = more[0], count + 1
            numbers += more[1]
        self._place(end, list(dict.fromkeys(numbers)))
        return True

    def _mark(self, at: int, final: bool, *, glued: bool = True) -> tuple[int, list[int]] | tuple[()] | None:
        """(where it ends, its numbers); () when it is none; None when more must come first."""
        match = _MARK.match(self._pending, at)
        if match is None or match.end() - at > MARK_CHARS:
            head = self._pending[at : at + MARK_CHARS]
            waiting = not final and match is None and len(self._pending) - at < MARK_CHARS
            return None if waiting and head and _PARTIAL_MARK.match(head) else ()
        if match.end() == len(self._pending) and not final:
            return None
        numbers = numbers_in(match.group(1))
        link = self._pending.startswith("(", match.end())
        interval = 0 in numbers and len(numbers) > 1
        if link or interval or (glued and self._pending[at] == "[" and self._is_index()):
            return ()
        return match.end(), numbers

    def _is_index(self) -> bool:
        """Whether a bracket here would be an index or escaped: glued to an identifier or a backslash."""
        if self._held or not self._tail:
            return False
        if self._tail.endswith("\\"):
            return True
        return self._index or bool(_IDENTIFIER.search(self._tail[-40:]))

    def _place(self, end: int, numbers: list[int]) -> None:
        self._index = False
        shown = tuple(self._decide(self._tail + self._held, numbers))
        line_is_empty = not self._held.strip() and (not self._tail or self._tail.endswith("\n"))
        self._take(end)
        if shown:
            self._emit(self._held)
            self._held = ""
            start = self.length
            self._emit("".join(f"[{number}]" for number in shown))
            self.placed.append(Placed(start, self.length, shown))
            if line_is_empty and self._pending.startswith(":"):
                self._take(1)  # `[1]: https://...` would make every [1] a link to there
        elif _PARTIAL_MARK.search((self._tail + self._held)[-MARK_CHARS:]):
            self._say("…")  # in `[1[9]2]` nothing may close up to a new mark
        else:
            self._removed = True

    def _tidy(self) -> bool:
        """After a removed mark: close the gap it leaves."""
        char = self._pending[0]
        before = self._held.rstrip(" \t")
        at_line_start = not before and (not self._tail or self._tail.endswith("\n"))
        if before.endswith("(") and char == ")":  # nothing is left between the parentheses
            self._take(1)
            self._held = before[:-1]
        elif before.endswith("(") and char in " \t,;":
            self._take(1)
        elif at_line_start and char in " \t":
            self._pending = self._pending.lstrip(" \t")
        else:
            if before.endswith("("):
                self._held = before
            elif char.isspace() or char in _CLOSING:
                self._held = ""
            self._removed = False
        return True
