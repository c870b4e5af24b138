"""The answer cache through the doors, over real documents."""

from typing import Any

from tests.web.conftest import Client
from tests.web.people import invited, register

QUESTION = {"message": "How deep is the quay?", "cache": True}


async def ask(client: Client, **more: Any) -> dict[str, Any]:
    answer = await client.post("/api/chat", json={**QUESTION, **more})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_an_answer_serves_until_its_documents_change(client: Client) -> None:
    document = await client.upload("quay.txt", b"The quay is seven metres deep.")
    await client.ready(document["id"])
    first, second = await ask(client), await ask(client)
    assert (first["cached"], first["cached_at"], second["cached"]) == (False, None, True)
    assert second["cached_at"] is not None
    assert second["sources"] == first["sources"] != []
    assert second["usage"]["input_tokens"] == 0
    conversation = (await client.get(f"/api/conversations/{second['conversation_id']}")).json()
    assert [message["cached"] for message in conversation["messages"]] == [False, True]

    async def stale() -> None:
        assert not (await ask(client))["cached"]
        assert (await ask(client))["cached"]

    await client.ready((await client.upload("ship.txt", b"The ship is forty metres long."))["id"])
    await stale()
    assert (await client.patch(f"/api/documents/{document['id']}", json={"tags": ["new"]})).status_code == 200
    await stale()
    await client.post(f"/api/documents/{document['id']}/reprocess")
    await client.ready(document["id"])
    await stale()
    assert (await client.delete(f"/api/documents/{document['id']}")).status_code == 204
    await stale()


async def test_the_cache_is_shown_counted_and_cleared(client: Client) -> None:
    owner = await register(client, "Root")
    member = await invited(owner, "Ada", "member")
    for person in (owner, member):
        for _ in range(2):
            assert (await person.post("/api/chat", {**QUESTION, "use_rag": False})).status_code == 200
    used = (await owner.get("/api/usage?by=day")).json()["total"]["calls"]
    assert used == 2
    tally = (await owner.get("/api/cache")).json()
    assert (tally["entries"], tally["hits"], tally["exact_hits"], tally["semantic_hits"]) == (2, 2, 2, 0)
    assert tally["saved_tokens"] > 0
    metrics = (await owner.get("/metrics")).text
    assert 'terrace_cache_hits_total{kind="exact"} 2' in metrics
    assert "terrace_cache_misses_total 2" in metrics
    assert (await member.get("/api/cache")).status_code == 403
    assert (await owner.delete("/api/cache")).json() == {"removed": 2}
    assert (await owner.get("/api/cache")).json()["entries"] == 0
    streamed = await owner.post("/api/chat", {**QUESTION, "use_rag": False, "stream": True})
    assert '"cached":true' not in streamed.text.replace(" ", "")
    streamed = await owner.post("/api/chat", {**QUESTION, "use_rag": False, "stream": True})
    assert '"cached":true' in streamed.text.replace(" ", "")
