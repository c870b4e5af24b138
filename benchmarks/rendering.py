"""How fast pages are drawn for a vision model: `python -m benchmarks.rendering [FILE.pdf ...]`.

Draws pages at 200 dpi as an analysis does (colour looked for, drawn, encoded as PNG or JPEG, whichever is smaller), in
one process, and counts CPU time. Reference in the same run: the bare bitmap of pypdfium2, which no model takes; then
what the encodings cost by themselves. Without files it makes some: text, text with colour, scans. Ends with 1 if the
budget is missed.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image
from tests.samples import page_of_lines, pdf, prose

from terrace.analysis.drawing import draw, page_image
from terrace.analysis.encoding import encode
from terrace.analysis.media import PDF
from terrace.knowledge.parsers.base import ParseLimits

BUDGET = 40.0  # pages a CPU-second
DPI, MAX_PIXELS = 200, 4_000_000
ROUNDS = 3  # the best counts: what disturbs a run only makes it slower
PAGES = 12


def main(paths: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        files = {Path(each).stem: Path(each) for each in paths} or generate(Path(folder))
        print(f"{'':12} {'pages':>6} {'bare pdfium':>12} {'ours':>8} {'of bare':>8} {'kB a page':>10}  as")
        rates = [row(name, path) for name, path in files.items()]
        encodings(next(iter(files.values())))
    worst, typical = min(rates), rates[0]
    kept = typical >= BUDGET
    print(f"\nbudget: {BUDGET:g} pages a CPU-second of text; reached {typical:.0f} (worst kind {worst:.0f})")
    return 0 if kept else 1


def generate(folder: Path) -> dict[str, Path]:
    """Text as reports have it first, which the budget is about."""
    pages = [page_of_lines([prose(1, number * 50 + line) for line in range(46)]) for number in range(PAGES)]
    files = {"text": folder / "text.pdf", "colour": folder / "colour.pdf", "scans": folder / "scans.pdf"}
    files["text"].write_bytes(pdf(pages, compress=True))
    bar = b"0.8 0.1 0.1 rg 0 740 612 40 re f 0 0 0 rg\n"
    files["colour"].write_bytes(pdf(pages).replace(b"stream\nBT", b"stream\n" + bar + b"BT"))
    scan(files["text"], files["scans"])
    return files


def scan(source: Path, target: Path) -> None:
    """As a scanner makes them: pictures of pages, not quite white."""
    document = pypdfium2.PdfDocument(source)
    noise = Image.effect_noise((1700, 2200), 12)
    images = [
        Image.blend(page.render(scale=DPI / 72, grayscale=True).to_pil().resize(noise.size), noise, 0.15)
        for page in document
    ]
    images[0].save(target, "PDF", save_all=True, append_images=images[1:], resolution=DPI, quality=80)
    document.close()


def row(name: str, path: Path) -> float:
    with path.open("rb"):
        document = pypdfium2.PdfDocument(path)
    count = min(len(document), PAGES)
    bare = count / cpu(lambda: [document[index].render(scale=DPI / 72).close() for index in range(count)])
    wanted = [(number + 1, str(number)) for number in range(count)]
    drawn: list[Any] = []

    def ours() -> None:
        drawn[:] = draw(path, PDF, wanted, DPI, MAX_PIXELS, False, ParseLimits())

    rate = count / cpu(ours)
    size = sum(len(each.image) for each in drawn) / count / 1000
    kinds = "+".join(sorted({each.media_type.removeprefix("image/") for each in drawn}))
    print(f"{name[:12]:12} {count:6} {bare:12.0f} {rate:8.0f} {rate / bare:8.2f} {size:10.0f}  {kinds}")
    document.close()
    return rate


def encodings(path: Path) -> None:
    """What each would cost, of one page."""
    document = pypdfium2.PdfDocument(path)
    image, drawn, _ = page_image(document, 0, DPI, MAX_PIXELS)
    ways: dict[str, Callable[[], bytes]] = {
        "as we encode": lambda: encode(image, drawn=drawn)[0],
        "PNG, greys": lambda: saved(image.convert("L"), "PNG", compress_level=1),
        "PNG, colour": lambda: saved(image.convert("RGB"), "PNG", compress_level=1),
        "JPEG, greys": lambda: saved(image.convert("L"), "JPEG", quality=85),
        "JPEG, colour": lambda: saved(image.convert("RGB"), "JPEG", quality=85),
    }
    print(f"\n{'encoding':14} {'ms':>6} {'kB':>6}")
    for name, way in ways.items():
        print(f"{name:14} {1000 * cpu(way):6.1f} {len(way()) / 1000:6.0f}")
    document.close()


def saved(image: Any, format: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **more)
    return file.getvalue()


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU, the best of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
