"""A real S3 service on this machine, by moto: in a thread of the test's own process, on a free port."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from terrace.settings import S3
from terrace.storage.blobs.s3 import session


@dataclass(frozen=True)
class S3Service:
    endpoint: str
    bucket: str = "files"

    def options(self, presigned: bool = False) -> S3:
        return S3(
            endpoint=self.endpoint,
            access_key=SecretStr("testing"),
            secret_key=SecretStr("testing-secret"),
            presigned=presigned,
        )

    def storage(self, prefix: str = "", presigned: bool = False) -> dict[str, Any]:
        """What stands under `storage` in the settings of an installation whose blobs are here."""
        s3 = {"endpoint": self.endpoint, "access_key": "testing", "secret_key": "testing-secret"}
        return {"blobs": f"s3://{self.bucket}/{prefix}", "s3": {**s3, "presigned": presigned}}

    async def empty(self) -> None:
        async with self._client() as client:
            for each in (await client.list_objects_v2(Bucket=self.bucket)).get("Contents", ()):
                await client.delete_object(Bucket=self.bucket, Key=each["Key"])

    async def uploads(self) -> list[str]:
        """Keys of uploads begun and not ended."""
        async with self._client() as client:
            found = await client.list_multipart_uploads(Bucket=self.bucket)
            return [each["Key"] for each in found.get("Uploads", ())]

    async def begin_upload(self, key: str) -> None:
        async with self._client() as client:
            await client.create_multipart_upload(Bucket=self.bucket, Key=key)

    async def make(self) -> None:
        async with self._client() as client:
            await client.create_bucket(Bucket=self.bucket)

    def _client(self) -> AbstractAsyncContextManager[Any]:
        client: AbstractAsyncContextManager[Any] = session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing-secret",
        )
        return client


@contextmanager
def s3_service() -> Iterator[S3Service]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3Service(f"http://{host}:{port}")
    finally:
        server.stop()
