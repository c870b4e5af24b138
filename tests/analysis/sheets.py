"""Files whose pages a program can tell apart: each has a colour and as many black bars as its number."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

COLOURS = {"white": (255, 255, 255), "red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220)}
BARS = 12  # at most
LEFT, STEP, WIDE = 0.05, 0.07, 0.03  # of the page's width


@dataclass(frozen=True)
class Seen:
    """What there is to see on a picture."""

    width: int
    height: int
    colour: str
    bars: int
    format: str


def bars(width: float) -> list[tuple[float, float]]:
    return [((LEFT + STEP * each) * width, WIDE * width) for each in range(BARS)]


def pdf_page(number: int, colour: str = "white", text: str = "", size: tuple[float, float] = (595, 842)) -> bytes:
    """The content of a page."""
    width, height = size
    red, green, blue = (each / 255 for each in COLOURS[colour])
    drawn = [f"{red} {green} {blue} rg 0 0 {width} {height} re f 0 0 0 rg"]
    drawn += [f"{x} {height * 0.4} {wide} {height * 0.2} re f" for x, wide in bars(width)[:number]]
    if text:
        drawn += [f"BT /F1 24 Tf 60 {height - 90} Td 30 TL"]
        drawn += [f"({line}) Tj T*" for line in text.split("\n")] + ["ET"]
    return " ".join(drawn).encode()


def pdf(pages: Sequence[tuple[bytes, tuple[float, float]]]) -> bytes:
    """A PDF of such contents and sizes."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b""]
    objects.append(b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
    kids = []
    for content, (width, height) in pages:
        kids.append(len(objects) + 1)
        page = f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {width} {height}]/Resources<</Font<</F1 3 0 R>>>>"
        objects.append(f"{page}/Contents {len(objects) + 2} 0 R>>".encode())
        objects.append(b"<</Length %d>>stream\n%b\nendstream" % (len(content), content))
    kids_text = " ".join(f"{each} 0 R" for each in kids)
    objects[1] = f"<</Type/Pages/Kids[{kids_text}]/Count {len(kids)}>>".encode()
    out, places = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, each in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%b\nendobj\n" % (number, each))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % each for each in places)
    out.write(b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))
    return out.getvalue()


def numbered(count: int, colours: Sequence[str] = ("white",), text: str = "") -> bytes:
    """A PDF of `count` pages, the n-th with n bars (counted in twelves)."""
    size = (595.0, 842.0)
    return pdf([
        (pdf_page((number - 1) % BARS + 1, colours[(number - 1) % len(colours)], text), size)
        for number in range(1, count + 1)
    ])  # fmt: skip


def picture(number: int = 1, colour: str = "red", size: tuple[int, int] = (600, 300), mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", size, COLOURS[colour])
    drawing = ImageDraw.Draw(image)
    for x, wide in bars(size[0])[:number]:
        drawing.rectangle((x, 0.4 * size[1], x + wide - 1, 0.6 * size[1]), fill=(0, 0, 0))
    return image.convert(mode)


def scanned(text: str) -> Image.Image:
    """A picture of printed words."""
    image = Image.new("L", (1400, 400), 255)
    ImageDraw.Draw(image).text((60, 120), text, fill=0, font=ImageFont.load_default(64))
    return image


def as_bytes(image: Image.Image, format: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **more)
    return file.getvalue()


def see(data: bytes) -> Seen:
    """Decodes a picture to the last pixel and looks at it."""
    image = Image.open(io.BytesIO(data))
    image.load()
    format = image.format or ""
    shown = image.convert("RGB")
    corner = shown.getpixel((int(shown.width * 0.97), int(shown.height * 0.97)))
    assert isinstance(corner, tuple)

    def distance(name: str) -> float:
        return sum((a - b) ** 2 for a, b in zip(COLOURS[name], corner, strict=True))

    dark = 0
    row = shown.convert("L")
    for x, wide in bars(shown.width):
        value = row.getpixel((min(shown.width - 1, int(x + wide / 2)), shown.height // 2))
        assert isinstance(value, int | float)
        dark += value < 60
    return Seen(shown.width, shown.height, min(COLOURS, key=distance), dark, format)
