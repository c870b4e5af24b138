"""Opens the blob store that `storage.blobs` names."""

import logging
import re
from pathlib import Path

from terrace.errors import Invalid, Unavailable
from terrace.settings import Settings
from terrace.storage.blobs.base import Blobs, checked
from terrace.storage.blobs.folder import FolderBlobs

log = logging.getLogger(__name__)

BUCKET = "s3://"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


async def open_blobs(settings: Settings) -> Blobs:
    """Raises Invalid for a place we cannot use. A bucket that is away for now is waited for, not given up."""
    where = settings.storage.blobs
    bucket = bucket_of(where)
    if bucket is None:
        folder = FolderBlobs(_folder(where) if where else settings.data / "blobs")
        await folder.check()
        return folder
    from terrace.storage.blobs.s3 import S3Blobs

    blobs = S3Blobs(*bucket, settings.storage.s3)
    try:
        await blobs.check()
    except Unavailable as error:
        log.warning("%s", error)
    except BaseException:
        await blobs.close()
        raise
    return blobs


def bucket_of(where: str) -> tuple[str, str] | None:
    """(bucket, prefix); None for a folder. Raises Invalid for what is neither."""
    if not where.startswith(BUCKET):
        if "://" in where:
            raise Invalid("storage.blobs must be a folder, or begin with s3://.", code="bad_setting")
        return None
    bucket, _, prefix = where.removeprefix(BUCKET).partition("/")
    prefix = prefix.strip("/")
    if not _NAME.fullmatch(bucket):
        raise Invalid("storage.blobs must name a bucket, such as s3://files or s3://files/terrace.", code="bad_setting")
    if prefix:
        checked(prefix)
    return bucket, prefix


def _folder(where: str) -> Path:
    """The same one wherever the command is given from."""
    return Path(where).expanduser().absolute()
