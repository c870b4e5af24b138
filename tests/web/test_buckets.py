"""A house whose files are in a bucket: what is uploaded is read, searched, shown and fetched as from a folder."""

from collections.abc import Iterator

import httpx
import pytest

from terrace.settings import Settings
from tests.s3 import S3Service, s3_service
from tests.web.conftest import Client, served

TEXT = b"The quay is seven metres deep."


@pytest.fixture(scope="module")
def service() -> Iterator[S3Service]:
    with s3_service() as service:
        yield service


def on_bucket(settings: Settings, service: S3Service, *, presigned: bool) -> Settings:
    storage = {**settings.storage.model_dump(), **service.storage("terrace", presigned)}
    return Settings(**{**settings.model_dump(), "storage": storage})


async def batch_file(client: Client) -> str:
    form = {"file": ("lines.jsonl", b"{}\n")}
    answer = await client.post("/v1/files", files=form, data={"purpose": "batch"})
    return str(answer.json()["id"])


async def test_originals_are_fetched_from_the_bucket_itself_where_links_are_wanted(
    settings: Settings, service: S3Service
) -> None:
    await service.make()
    async with served(on_bucket(settings, service, presigned=True)) as client:
        document = await client.upload("quay.txt", TEXT)
        assert (await client.ready(document["id"]))["state"] == "ready"
        hits = (await client.post("/api/search", json={"query": "quay"})).json()["hits"]
        assert [hit["document_id"] for hit in hits] == [document["id"]]
        for path in (
            f"/api/documents/{document['id']}/original",
            f"/v1/files/{await batch_file(client)}/content",
        ):
            answer = await client.get(path)
            assert answer.status_code == 307
            assert answer.headers["cache-control"] == "no-store"
            link = answer.headers["location"]
            assert link.startswith(service.endpoint)
            async with httpx.AsyncClient(timeout=30) as anybody:
                fetched = await anybody.get(link)
            assert fetched.content in (TEXT, b"{}\n")
            assert fetched.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
        assert (await client.get("/api/documents/doc_nobody/original")).status_code == 404
        assert not (settings.data / "blobs").exists()


async def test_originals_are_streamed_where_no_links_are_wanted(settings: Settings, service: S3Service) -> None:
    await service.make()
    async with served(on_bucket(settings, service, presigned=False)) as client:
        document = await client.upload("quay.txt", TEXT)
        answer = await client.get(f"/api/documents/{document['id']}/original")
        assert (answer.status_code, answer.content) == (200, TEXT)
