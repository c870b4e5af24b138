"""Blobs in a bucket of S3, or of a service that speaks as S3 does."""

import asyncio
import hashlib
import io
import logging
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from terrace import settings
from terrace.errors import Invalid, Missing, TerraceError, Unavailable, bring
from terrace.storage.blobs.base import (
    LINK_SECONDS,
    PIECE,
    STALE_SECONDS,
    Blob,
    Reads,
    Stored,
    Sum,
    Writer,
    checked,
    is_key,
    missing,
)
from terrace.storage.blobs.folder import on_disk

log = logging.getLogger(__name__)

PART = 8 * 1024 * 1024  # bytes of a part; S3 takes none below 5 MB but the last, and 10,000 of them
ABSENT = ("404", "NoSuchKey", "NotFound", "NoSuchUpload")
DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
CONNECTIONS = 50
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0


class _Upload:
    """Gathers pieces into parts. What fits into one is put at once; more goes part by part, and appears at the end."""

    def __init__(self, client: Any, place: dict[str, str], limit: int | None) -> None:
        self._client = client
        self._place = place
        self._sum = Sum(limit)
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._parts: list[dict[str, Any]] = []
        self.id: str | None = None  # of a multipart upload, once there is one

    @property
    def stored(self) -> Stored:
        return self._sum.stored

    async def write(self, piece: bytes) -> None:
        self._sum.count(piece)
        self._pieces.append(piece)
        self._gathered += len(piece)
        if self._gathered >= PART:
            await self._send_part()

    async def finish(self) -> None:
        if self.id is None:
            body, md5 = await asyncio.to_thread(self._joined)
            with told():
                await self._client.put_object(**self._place, Body=body, ContentMD5=md5)
            return
        if self._pieces:
            await self._send_part()
        with told():
            await self._client.complete_multipart_upload(
                **self._place, UploadId=self.id, MultipartUpload={"Parts": self._parts}
            )

    async def abort(self) -> None:
        try:
            with told():
                await self._client.abort_multipart_upload(**self._place, UploadId=self.id)
        except TerraceError as error:  # the daily sweep tries again
            log.info("half an upload stays in the bucket until it is swept: %s", error)

    async def _send_part(self) -> None:
        body, md5 = await asyncio.to_thread(self._joined)
        with told():
            if self.id is None:
                self.id = (await self._client.create_multipart_upload(**self._place))["UploadId"]
            number = len(self._parts) + 1
            sent = await self._client.upload_part(
                **self._place, UploadId=self.id, PartNumber=number, Body=body, ContentMD5=md5
            )
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})

    def _joined(self) -> tuple[io.BytesIO, str]:
        """What was gathered, and its MD5, by which the service sees that it arrived whole. In a thread."""
        from base64 import b64encode

        body, self._pieces, self._gathered = b"".join(self._pieces), [], 0
        self._sum.hash(body)
        return io.BytesIO(body), b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


class S3Blobs(Reads):
    """Below `prefix` in `bucket`. Connects when first used, on the event loop that uses it."""

    def __init__(self, bucket: str, prefix: str, options: settings.S3) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._closing = AsyncExitStack()
        self._aborting: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"S3Blobs(s3://{self._bucket}/{self._prefix})"

    async def check(self) -> None:
        """Raises Invalid when there is no such bucket or it refuses us, Unavailable when it cannot be reached."""
        client = await self._connected()
        try:
            with told():
                await client.head_bucket(Bucket=self._bucket)
        except Missing as error:
            raise Invalid(
                f"There is no bucket {self._bucket} there. Make it, or mend storage.blobs.", code="bad_setting"
            ) from error

    @asynccontextmanager
    async def writer(self, key: str, *, limit: int | None = None) -> AsyncGenerator[Writer, None]:
        upload = _Upload(await self._connected(), self._place(key), limit)
        try:
            yield upload
            await upload.finish()
        except BaseException:
            if upload.id is not None:  # not awaited, so that it happens even when this task is being cancelled
                aborting = asyncio.get_running_loop().create_task(upload.abort())
                self._aborting.add(aborting)
                aborting.add_done_callback(self._aborting.discard)
            raise

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        if end is not None and end <= start:
            await self.size(key)
            return
        wanted = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
        client = await self._connected()
        with told():
            try:
                got = await client.get_object(**self._place(key), **wanted)
            except client.exceptions.ClientError as error:
                if _code(error) in ("InvalidRange", "416"):  # it ends before `start`
                    return
                raise
            async with got["Body"] as body:
                async for piece in body.iter_chunks(PIECE):
                    yield piece

    @asynccontextmanager
    async def local(self, key: str) -> AsyncGenerator[Path, None]:
        with tempfile.NamedTemporaryFile(prefix="terrace-") as file:
            async for piece in self.stream(key):
                await on_disk(file.write, piece)
            await on_disk(file.flush)
            yield Path(file.name)

    async def size(self, key: str) -> int:
        client = await self._connected()
        with told():
            return int((await client.head_object(**self._place(key)))["ContentLength"])

    async def exists(self, key: str) -> bool:
        try:
            await self.size(key)
        except Missing:
            return False
        return True

    async def delete(self, key: str) -> bool:
        if not await self.exists(key):
            return False
        client = await self._connected()
        with told():
            await client.delete_object(**self._place(key))
        return True

    async def list(self, prefix: str = "") -> AsyncGenerator[Blob, None]:
        client = await self._connected()
        with told():
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}{prefix}"
            )
            async for page in pages:
                for each in page.get("Contents", ()):
                    key = each["Key"].removeprefix(self._prefix)
                    if is_key(key):  # others may keep theirs in the same bucket
                        yield Blob(key, each["Size"], each["LastModified"].timestamp())

    async def link(self, key: str, *, name: str, media_type: str) -> str | None:
        place = self._place(key)
        if not self._options.presigned:
            return None
        client = await self._connected()
        with told():
            address: str = await client.generate_presigned_url(
                "get_object",
                Params=place
                | {
                    "ResponseContentDisposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
                    "ResponseContentType": media_type,
                },
                ExpiresIn=LINK_SECONDS,
            )
        return address

    async def sweep(self, before: float | None = None) -> int:
        """`before`: seconds since the epoch."""
        try:
            return await self._sweep(time.time() - STALE_SECONDS if before is None else before)
        except Invalid as error:  # a key that may read and write, but not list uploads
            log.warning("halves of uploads in the bucket are not swept: %s", error)
            return 0

    async def close(self) -> None:
        await asyncio.gather(*self._aborting)
        self._client = None
        await self._closing.aclose()

    async def _sweep(self, before: float) -> int:
        client, removed = await self._connected(), 0
        with told():
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._prefix)
            async for page in pages:
                for each in page.get("Uploads", ()):
                    if each["Initiated"].timestamp() < before:
                        await client.abort_multipart_upload(
                            Bucket=self._bucket, Key=each["Key"], UploadId=each["UploadId"]
                        )
                        removed += 1
        return removed

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{checked(key)}"}

    async def _connected(self) -> Any:
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await self._closing.enter_async_context(self._opened())
        return self._client

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Any, None]:
        from botocore.exceptions import PartialCredentialsError

        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(_client(self._options))
            except PartialCredentialsError as error:
                raise Invalid(
                    "Of storage.s3.access_key and secret_key only one is given: name both, or neither.",
                    code="bad_setting",
                ) from error
            except ValueError as error:
                raise Invalid(
                    "storage.s3.endpoint (or its region) is no address: write it like http://minio:9000.",
                    code="bad_setting",
                ) from error
            yield client


def _client(options: settings.S3) -> Any:
    try:
        from aiobotocore.config import AioConfig
    except ImportError as error:
        raise Invalid(f"Blobs in S3 need a package that is not there: {bring('s3')}", code="extra_missing") from error
    config = AioConfig(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "max_attempts": 3},
        signature_version="s3v4",
        # Parts carry their MD5; hashing them once more for the signature would hold up the event loop.
        s3={"addressing_style": "path" if options.endpoint else "auto", "payload_signing_enabled": False},
        # Checksums of newer kinds are unknown to many services that speak S3.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return session().create_client(
        "s3",
        endpoint_url=options.endpoint or None,
        region_name=options.region or None,
        aws_access_key_id=options.access_key.get_secret_value() or None,
        aws_secret_access_key=options.secret_key.get_secret_value() or None,
        config=config,
    )


def session() -> Any:
    """A new one, with what others have read."""
    from aiobotocore.session import get_session

    made = get_session()
    made.register_component("data_loader", _loader(made.get_config_variable("data_path")))
    return made


@cache
def _loader(path: str | None) -> Any:
    """Of what is known of the service's calls and addresses: some megabytes of JSON."""
    from botocore.loaders import create_loader

    return create_loader(path)


@contextmanager
def told() -> Iterator[None]:
    """What the service says, in our own words."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

    try:
        yield
    except ClientError as error:
        raise _answered(error) from error
    except NoCredentialsError as error:
        raise _denied("nobody is named") from error
    except ParamValidationError:
        raise  # our own mistake
    except (BotoCoreError, TimeoutError) as error:
        raise Unavailable(
            "The bucket with the files cannot be reached. Try again in a moment.",
            code="blobs_unavailable",
            retry_after=1,
        ) from error


def _answered(error: Any) -> TerraceError:
    code = _code(error)
    if code in ABSENT:
        return missing()
    if code == "NoSuchBucket":
        return Invalid("The bucket of storage.blobs is not there (any more).", code="no_such_bucket")
    if code in DENIED:
        return _denied(code)
    return Unavailable(f"The bucket with the files answered {code}. Try again in a moment.", code="blobs_unavailable")


def _denied(why: str) -> Invalid:
    return Invalid(
        f"The bucket with the files refuses us ({why}). Look at storage.s3.access_key and secret_key, and at what the "
        "key may do.",
        code="blobs_denied",
    )


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
