"""Raster pictures, decoded within bounds: measured before they are decoded, turned as their camera says, made smaller.

Runs in a subprocess.
"""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from terrace.analysis.encoding import is_grey
from terrace.errors import Invalid

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
MOST_PIXELS = 80_000_000  # of a picture that is decoded at all: 240 MB of colour
TINY = 32  # pixels; what is smaller in a document is a bullet or a rule
SMALL = 400  # pixels a side of the copy that is looked at for colour
WHITE = (255, 255, 255)


@contextmanager
def opened(source: str | BinaryIO) -> Iterator[Any]:
    """A PIL image that is not decoded yet. Raises Invalid: `picture_damaged`, `picture_too_large`."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about a file is no matter of ours
        try:
            image = Image.open(source, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise _too_large() from error
        except Exception as error:  # whatever a decoder stumbles over, the file is at fault
            raise _damaged() from error
        with image:
            yield image


def measured(image: Any) -> tuple[int, int]:
    """Width and height. Raises Invalid for a picture too large to be decoded."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise _too_large(width, height)
    if min(width, height) < 1:
        raise _damaged()
    return width, height


def decoded(image: Any, max_pixels: int) -> Any:
    """The image upright, in greys (L) or colours (RGB), of at most `max_pixels`. Raises Invalid."""
    from PIL import ImageOps

    width, height = measured(image)
    scale = min(1.0, math.sqrt(max_pixels / (width * height)))
    target = (max(1, int(width * scale)), max(1, int(height * scale)))
    try:
        image.draft("RGB", target)  # a JPEG is decoded at a half, a quarter or an eighth, where that is enough
        image.load()
        plain = _plain(ImageOps.exif_transpose(image))
    except (MemoryError, Invalid):
        raise
    except Exception as error:
        raise _damaged() from error
    if plain.width * plain.height > max_pixels:
        turned = target if (plain.width >= plain.height) == (width >= height) else target[::-1]
        plain = plain.resize(turned, reducing_gap=2.0)
    if plain.mode == "RGB" and is_grey(plain.reduce(max(1, max(plain.size) // SMALL))):
        plain = plain.convert("L")
    return plain


def dimensions(data: bytes) -> tuple[int, int]:
    """Of a picture inside a document, without decoding it; (0, 0) for what is none."""
    try:
        with opened(io.BytesIO(data)) as image:
            return int(image.width), int(image.height)
    except Invalid:
        return 0, 0


def frames(source: str, most: int) -> int:
    """How many pages a TIFF has; it stops counting at `most` + 1."""
    with opened(source) as image:
        count = 1
        try:
            while count <= most:
                image.seek(count)
                count += 1
        except EOFError:
            return count
        except Exception as error:
            if count == 1:
                raise _damaged() from error
        return count


def _plain(image: Any) -> Any:
    """In mode L or RGB, what is transparent on white."""
    from PIL import Image

    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256).convert("L")
    if image.mode in ("I", "F"):
        low, high = image.getextrema()
        spread = (high - low) or 1
        return image.convert("F").point(lambda value: value * (255 / spread) - low * 255 / spread).convert("L")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        shown = image.convert("RGBA")
        ground = Image.new("RGB", shown.size, WHITE)
        ground.paste(shown, mask=shown.getchannel("A"))
        return ground
    return image.convert("RGB")


def _too_large(width: int = 0, height: int = 0) -> Invalid:
    size = f"{width:,} x {height:,} pixels" if width else "far too many pixels"
    return Invalid(
        f"This picture has {size}; up to {MOST_PIXELS // 10**6} million are decoded. Make it smaller.",
        code="picture_too_large",
        status=413,
    )


def _damaged() -> Invalid:
    return Invalid(
        "This picture is cut off or damaged. Open it in the program it comes from, save it again and send that.",
        code="picture_damaged",
    )
