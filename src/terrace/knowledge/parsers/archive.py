"""Zip-based formats: members read within bounds, XML parsed without entities, relations between parts."""

import posixpath
import zipfile
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

from lxml import etree

from terrace.errors import Invalid
from terrace.knowledge.media import BROKEN_ZIP
from terrace.knowledge.parsers.base import ParseLimits, damaged

SMALL = 32 * 1024**2  # bytes; less than this unpacked is no bomb, however well it packs
_ENTITIES = tuple("<!ENTITY".encode(encoding) for encoding in ("ascii", "utf-16-le", "utf-16-be"))
_RELATION = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"


class Archive:
    """A zip file whose directory keeps to the limits; reading a member never gives more than the directory says.

    Nothing is written to disk, so a member's name can't lead anywhere.
    """

    def __init__(self, path: Path, limits: ParseLimits) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except BROKEN_ZIP as error:
            raise damaged("This file is cut off or damaged: its directory can't be read.") from error
        members = self._zip.infolist()
        unpacked = sum(member.file_size for member in members)
        packed = max(1, path.stat().st_size)
        if (
            len(members) > limits.max_members
            or unpacked > limits.max_unpacked
            or (unpacked > SMALL and unpacked > limits.max_ratio * packed)
        ):
            self._zip.close()
            raise Invalid(
                f"This file unpacks to {unpacked / 1024**2:,.0f} MB in {len(members):,} parts, more than a document "
                "has. If it is genuine, split it.",
                code="document_too_large_unpacked",
                status=413,
            )
        if any(member.header_offset + member.compress_size > packed for member in members):
            # Whoever reads such a member makes room for all that it claims, here or in a library of ours.
            self._zip.close()
            raise damaged("This file is cut off or damaged: its directory names more than it holds.")
        self.names = {member.filename: member for member in members}

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """The bytes of a member. Raises Invalid when it is missing or damaged."""
        member = self.names.get(name)
        if member is None:
            raise damaged(f"A part of this file is missing ({name[:100]}).")
        if member.flag_bits & 1:
            raise Invalid(
                "This file is protected by a password. Remove it, save the file and upload it again.",
                code="document_encrypted",
            )
        try:
            with self._zip.open(member) as file:
                # `ZipFile.read` unpacks all there is before it looks at how much the directory says.
                return file.read(max(1, member.file_size))
        except BROKEN_ZIP as error:
            raise damaged(f"A part of this file is damaged ({name[:100]}).") from error

    def xml(self, name: str) -> etree._Element:
        """A member as an XML tree."""
        return read_xml(self.read(name), name)

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Relation id -> (kind, target part) of an Office part; links to the outside are left out."""
        folder, _, file = part.rpartition("/")
        name = f"{folder}/_rels/{file}.rels".lstrip("/")
        if name not in self.names:
            return {}
        found = {}
        for each in self.xml(name).iter(_RELATION):
            if each.get("TargetMode") != "External":
                kind = (each.get("Type") or "").rpartition("/")[2]
                found[each.get("Id") or ""] = (kind, resolve(folder, each.get("Target") or ""))
        return found

    def refuse_entities(self) -> None:
        """Look through every XML part, for a library that parses them itself."""
        for name in self.names:
            if name.endswith((".xml", ".rels", ".vml")) and any(mark in self.read(name) for mark in _ENTITIES):
                raise hostile()

    def main_part(self, fallback: str) -> str:
        """The part the package says is the document itself."""
        for kind, target in self.relations("").values():
            if kind == "officeDocument" and target in self.names:
                return target
        return fallback


def read_xml(data: bytes, name: str = "") -> etree._Element:
    """Parse XML that may be hostile: no entities, no document type, no network."""
    if any(mark in data for mark in _ENTITIES):
        raise hostile()
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        if getattr(error, "code", None) == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from error
        raise damaged(f"A part of this file is damaged ({name[:100]}).") from error


def hostile() -> Invalid:
    return Invalid(
        "This file declares XML entities, which genuine documents don't; it is not read.", code="document_hostile"
    )


def resolve(folder: str, target: str) -> str:
    """The member a relative link in `folder` means."""
    target = unquote(target.partition("#")[0])
    joined = target if target.startswith("/") else posixpath.join(folder, target)
    return posixpath.normpath(joined).lstrip("/")
