"""Settings that reach through several rooms, seen from outside."""

import stat
from pathlib import Path

import pytest

from terrace.errors import Invalid
from terrace.settings import Settings
from tests.models.upstream import Upstream, json_reply
from tests.web.conftest import served

VECTOR = {"object": "list", "data": [{"index": 0, "embedding": [0.6, 0.8]}], "usage": {"prompt_tokens": 3}}


def changed(settings: Settings, **values: object) -> Settings:
    return Settings.model_validate({**settings.model_dump(), **values})


async def test_documents_are_embedded_by_a_provider(settings: Settings) -> None:
    async with Upstream() as upstream:
        upstream.replies["/v1/embeddings"] = [json_reply(VECTOR)]
        upstream.replies["/v1/models"] = [json_reply({"object": "list", "data": [{"id": "small"}]})]
        lab = {"kind": "openai", "base_url": f"{upstream.url}/v1", "api_key": "k"}
        provided = changed(
            settings,
            models={"discover": False, "providers": {"lab": lab}},
            knowledge={"embedding": {"model": "lab/small"}},
        )
        async with served(provided) as client:
            document = await client.ready((await client.upload())["id"])
            assert document["searchable"] == "meaning"
            found = (await client.post("/api/search", json={"query": "depth", "mode": "vector"})).json()
            assert found["embedding"] == "lab/small"
            assert [hit["document_id"] for hit in found["hits"]] == [document["id"]]


async def test_without_an_embedding_model_search_goes_by_words_and_says_so(settings: Settings) -> None:
    async with served(settings) as client:
        document = await client.ready((await client.upload())["id"])
        assert document["searchable"] == "words"
        assert document["warnings"]
        found = (await client.post("/api/search", json={"query": "quay"})).json()
        assert (found["mode"], found["embedding"], len(found["hits"])) == ("text", None, 1)


async def test_beyond_loopback_nobody_is_let_in_before_there_is_an_account(settings: Settings) -> None:
    async with served(changed(settings, host="0.0.0.0")) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/api/auth/session")).json()["mode"] == "setup"
        for path in ("/api/documents", "/api/conversations", "/api/status", "/v1/models"):
            assert (await client.get(path)).status_code == 401, path
    async with served(changed(settings, host="0.0.0.0", insecure=True)) as client:
        assert (await client.get("/api/documents")).status_code == 200


async def test_the_docs_can_be_switched_off(settings: Settings) -> None:
    async with served(settings) as client:
        page = await client.get("/docs")
        assert "swagger-ui" in page.text
        assert "http" not in page.text.replace("http-equiv", "")
        assert (await client.get("/docs/static/swagger-ui.css")).status_code == 200
    async with served(changed(settings, web={"docs": False})) as client:
        assert (await client.get("/docs")).status_code == 404
        assert (await client.get("/openapi.json")).status_code == 404


async def test_the_data_folder_is_closed_to_others(settings: Settings, tmp_path: Path) -> None:
    async with served(changed(settings, data=tmp_path / "new" / "folder")):
        assert stat.S_IMODE((tmp_path / "new" / "folder").stat().st_mode) == 0o700


async def test_a_data_folder_that_cannot_be_made_is_told(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Invalid, match="TERRACE_DATA"):
        async with served(changed(settings, data=tmp_path / "file" / "folder")):
            """Not reached."""
