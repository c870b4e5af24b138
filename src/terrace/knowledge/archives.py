"""Zip archives of documents. These functions run in a process of their own: an archive may be hostile.

No member's path is ever used: files are unpacked under numbers, so `../` leads nowhere.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from terrace.errors import Invalid
from terrace.knowledge.media import BROKEN_ZIP, ZIP, detect

PIECE = 256 * 1024  # bytes unpacked at a time
MAX_RATIO = 200  # unpacked to packed; more is a zip bomb
SMALL = 4 * 1024**2  # bytes below which a ratio says nothing
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one archive may hold: files, bytes of one, bytes of all."""

    files: int
    file_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive: unpacked as `file` in the folder, or refused with a `code` and a `message`."""

    name: str
    file: str | None = None
    code: str = ""
    message: str = ""


def media_type(path: str, name: str) -> str:
    """The type of a zip-based file; ZIP for an archive that is no document itself. Raises Invalid as `detect` does."""
    try:
        return detect(Path(path), name)
    except Invalid as error:
        if error.code != "document_unsupported":
            raise
        with zipfile.ZipFile(path) as archive:
            if "mimetype" in archive.namelist():  # a document of a kind we don't read
                raise
        return ZIP


def unpack(path: str, folder: str, bounds: Bounds) -> list[Member]:
    """Write the archive's files into `folder`; what a system adds by itself is left out.

    Raises Invalid when the archive as a whole is damaged or too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = [info for info in archive.infolist() if not info.is_dir() and not _is_junk(info.filename)]
            if len(wanted) > bounds.files:
                raise Invalid(
                    f"This archive holds {len(wanted):,} files; at most {bounds.files:,} are taken at a time.",
                    code="too_many_files",
                    status=413,
                )
            members, left = [], bounds.total_bytes
            for number, info in enumerate(wanted):
                target = Path(folder) / str(number)
                member = _unpack_one(archive, info, target, min(left, bounds.file_bytes))
                left -= target.stat().st_size if member.file else 0
                members.append(member)
            return members
    except zipfile.BadZipFile as error:
        raise Invalid("This archive is cut off or damaged. Upload it again.", code="archive_damaged") from error


def _is_junk(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "__MACOSX" or parts[-1].startswith(".") or parts[-1].lower() in SYSTEM_FILES


def _unpack_one(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, limit: int) -> Member:
    if info.flag_bits & 1:
        return Member(info.filename, None, "document_encrypted", "This file in the archive is protected by a password.")
    written = 0
    try:
        with archive.open(info) as source, target.open("wb") as file:
            while piece := source.read(PIECE):
                written += len(piece)
                if written > limit:
                    raise _TooLarge("It is too large once unpacked.")
                if written > SMALL and written > MAX_RATIO * max(1, info.compress_size):
                    raise _TooLarge("It unpacks to far more than its size, as a zip bomb does.")
                file.write(piece)
    except _TooLarge as error:
        target.unlink()
        return Member(info.filename, None, "too_large", str(error))
    except BROKEN_ZIP as error:
        target.unlink(missing_ok=True)
        return Member(info.filename, None, "document_damaged", f"This file in the archive can't be unpacked: {error}")
    return Member(info.filename, target.name)


class _TooLarge(Exception):
    """A member passed its bound."""
