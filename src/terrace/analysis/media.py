"""What a file to be analysed is, told by its content: what the knowledge room reads, and pictures."""

from pathlib import Path

from terrace.errors import Invalid
from terrace.knowledge.media import DOCX, HEAD, PDF, PPTX, ZIP, sniff

PNG = "image/png"
JPEG = "image/jpeg"
WEBP = "image/webp"
GIF = "image/gif"
TIFF = "image/tiff"
BMP = "image/bmp"
IMAGES = (PNG, JPEG, WEBP, GIF, TIFF, BMP)
OFFICE = (DOCX, PPTX)
ACCEPTED = (
    "Accepted are PDF, PNG, JPEG, WebP, GIF, TIFF, BMP, Word and PowerPoint (.docx, .pptx), and what holds text "
    "(XLSX, EPUB, HTML, Markdown, CSV, EML, plain text)."
)

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
    (b"BM", BMP),
)


def image_type(head: bytes) -> str | None:
    """The media type of a picture that begins so; None for anything else."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head[:2] == b"BM" and head[6:10] != bytes(4):  # text may begin with BM too
        return None
    return next((kind for beginning, kind in _BEGINNINGS if head.startswith(beginning)), None)


def tell(path: Path, name: str) -> str:
    """The media type by the first bytes; ZIP where only the directory of the archive can say.

    Raises Invalid for what can't be analysed.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if (kind := image_type(head)) is not None:
        return kind
    if head[4:8] == b"ftyp":
        raise Invalid(
            f"This is a picture of a kind that isn't read (HEIC or AVIF), or a video; save it as JPEG. {ACCEPTED}",
            code="document_unsupported",
            status=415,
        )
    return sniff(head, name)


def has_pictures(media_type: str) -> bool:
    """Whether a file of this type can hold anything to look at."""
    return media_type == PDF or media_type in IMAGES or media_type in OFFICE


__all__ = ["ACCEPTED", "DOCX", "IMAGES", "OFFICE", "PDF", "PPTX", "TIFF", "ZIP", "has_pictures", "image_type", "tell"]
