"""How fast files become text: `python -m benchmarks.parsing [FOLDER] [--peers PYTHON]`.

Reads PDF and HTML files of a folder (or generated ones) with Terrace's parsers, structure and spans included, in one
process, and counts CPU time. References in the same run: what pdfium and selectolax take for bare text, the least that
parsers built on them can. With `--peers`, an interpreter that has pypdf, beautifulsoup4 and lxml reads the same files.
Ends with 1 if a budget is missed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
from selectolax.lexbor import LexborHTMLParser
from tests.samples import page_of_lines, pdf, prose

from terrace.knowledge import media
from terrace.knowledge.chunking import chunk
from terrace.knowledge.parsers.base import ParseLimits, Parser
from terrace.knowledge.parsers.child import parse_file
from terrace.knowledge.parsers.html import parse as parse_html
from terrace.knowledge.parsers.pdf import parse as parse_pdf

ROUNDS = 3  # the best counts: what disturbs a run only makes it slower
PDF_BUDGET, HTML_BUDGET = 150.0, 2000.0  # pages and documents a CPU-second
LINES_PER_PAGE, PAGES, WEB_PAGES = 45, 300, 400

PEERS = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
kind, paths = sys.argv[1], sys.argv[2:]
def pages(path):
    from pypdf import PdfReader
    return sum(1 for page in PdfReader(path).pages if page.extract_text() is not None)
def web(path):
    from bs4 import BeautifulSoup
    BeautifulSoup(Path(path).read_bytes(), "lxml").get_text("\\n")
    return 1
read = pages if kind == "pdf" else web
read(paths[0])
start = time.process_time()
units = sum(read(path) for path in paths)
print(json.dumps(units / (time.process_time() - start)))
"""


@dataclass(frozen=True)
class Row:
    what: str
    rate: float
    note: str = ""

    def __str__(self) -> str:
        return f"{self.what:<46}{self.rate:>12,.0f}   {self.note}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", nargs="?", type=Path)
    arguments.add_argument("--peers", metavar="PYTHON", help="an interpreter that has pypdf, beautifulsoup4 and lxml")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or generate(Path(made))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        pdfs, webs = of_type(files, media.PDF), of_type(files, media.HTML)
        rows = []
        if pdfs:
            rows += pdf_rows(pdfs, options.peers)
        if webs:
            rows += html_rows(webs, options.peers)
        rows += chunk_rows(pdfs + webs)
    print(f"{'per CPU-second':<46}{'':>12}   budget")
    print(*rows, sep="\n")
    missed = [row for row in rows if row.note.endswith("MISSED")]
    return 1 if missed else 0


def generate(folder: Path) -> Path:
    """Plain but real files: prose in PDFs, articles with menus, lists, tables and code in HTML."""
    for number in range(3):
        pages = [
            page_of_lines(prose(LINES_PER_PAGE, number * 1000 + page).split(". ")[:LINES_PER_PAGE])
            for page in range(PAGES // 3)
        ]
        (folder / f"{number}.pdf").write_bytes(pdf(pages, compress=True))
    for number in range(WEB_PAGES):
        (folder / f"{number}.html").write_text(article(number))
    return folder


def article(number: int) -> str:
    menu = "".join(f'<li><a class="menu-item" href="/section/{at}">Section {at}</a></li>' for at in range(30))
    rows = "".join(f"<tr><td>{at}</td><td>{prose(1, at)}</td></tr>" for at in range(6))
    sections = "".join(
        f'<h2 id="s{at}">Section {at}</h2><p class="lead">{prose(4, number + at)} <a href="#s{at}">More</a>.</p>'
        f"<div class='text'>{prose(3, at)}<p>{prose(3, number * at)}</p></div><ul><li>{prose(1, at)}<li>one more</ul>"
        for at in range(7)
    )
    return (
        f"<!doctype html><html><head><title>Article {number}</title><style>{'p {margin: 0} ' * 40}</style>"
        f"<script>{'var a = 1; ' * 80}</script></head><body><nav><ul>{menu}</ul></nav><main><h1>Article {number}</h1>"
        f"{sections}<table>{rows}</table><pre>x = {number}\n  y = 2</pre></main><footer>Imprint</footer></body></html>"
    )


def of_type(files: Sequence[Path], kind: str) -> list[Path]:
    return [path for path in files if media.sniff(path.read_bytes()[: media.HEAD] or b" ", path.name) == kind]


def pdf_rows(paths: Sequence[Path], peers: str | None) -> list[Row]:
    documents = [pypdfium2.PdfDocument(path) for path in paths]
    pages = sum(len(document) for document in documents)
    for document in documents:
        document.close()
    ours = rate(pages, lambda: run_parser(parse_pdf, paths))
    rows = [
        Row(f"PDF pages, Terrace ({pages} pages)", ours, verdict(ours, PDF_BUDGET)),
        Row("PDF pages, pdfium's bare text", rate(pages, lambda: each(bare_pdf, paths))),
    ]
    if peers:
        theirs = ask_peer(peers, "pdf", paths)
        rows.append(Row("PDF pages, pypdf", theirs, f"Terrace is {ours / theirs:.1f} times as fast"))
    return rows


def html_rows(paths: Sequence[Path], peers: str | None) -> list[Row]:
    size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
    ours = rate(len(paths), lambda: run_parser(parse_html, paths))
    rows = [
        Row(f"HTML documents, Terrace ({size:.1f} kB each)", ours, verdict(ours, HTML_BUDGET)),
        Row("HTML documents, selectolax's bare text", rate(len(paths), lambda: each(bare_html, paths))),
    ]
    if peers:
        theirs = ask_peer(peers, "html", paths)
        rows.append(Row("HTML documents, bs4 + lxml", theirs, f"Terrace is {ours / theirs:.1f} times as fast"))
    return rows


def chunk_rows(paths: Sequence[Path]) -> list[Row]:
    parsed = [parse_file(path, path.name, ParseLimits(), quiet) for path in paths]
    characters = sum(len(each.text) for each in parsed)
    speed = rate(characters / 1e6, lambda: [chunk(each, 220) for each in parsed])
    return [Row("millions of characters cut into passages", speed)]


def run_parser(parse: Parser, paths: Sequence[Path]) -> None:
    for path in paths:
        parse(path, ParseLimits(), quiet)


def each(read: Callable[[Path], None], paths: Sequence[Path]) -> None:
    for path in paths:
        read(path)


def bare_pdf(path: Path) -> None:
    document = pypdfium2.PdfDocument(path)
    for page in document:
        page.get_textpage().get_text_range()
        page.close()
    document.close()


def bare_html(path: Path) -> None:
    tree = LexborHTMLParser(path.read_text(errors="replace"))
    tree.strip_tags(["script", "style"])
    if tree.body is not None:
        tree.body.text(separator="\n")


def quiet(done: float, total: float, note: str = "") -> None:
    """Nobody listens."""


def rate(units: float, work: Callable[[], object]) -> float:
    """Units a CPU-second, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return units / best


def verdict(rate: float, budget: float) -> str:
    return f">= {budget:,.0f}   {'met' if rate >= budget else 'MISSED'}"


def ask_peer(python: str, kind: str, paths: Sequence[Path]) -> float:
    run = subprocess.run([python, "-c", PEERS, kind, *map(str, paths)], capture_output=True, text=True, check=True)
    return float(json.loads(run.stdout))


if __name__ == "__main__":
    sys.exit(main())
