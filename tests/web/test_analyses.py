"""Documents analysed, through the doors people use: curl on the short paths, the API, the events."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from terrace.settings import Settings
from tests.analysis.seer import Asked, Seer, answered
from tests.analysis.sheets import as_bytes, numbered, picture
from tests.models.upstream import json_reply
from tests.models.wires import AnthropicWire, OllamaWire, OpenAIWire, Wire
from tests.web.conftest import Client, served
from tests.web.people import register
from tests.web.test_questions import curl

OVER = ("succeeded", "failed", "cancelled")


def with_model(settings: Settings, seer: Seer, name: str = "lab", model: str = "pixtral", **more: Any) -> Settings:
    models = {"discover": False, "retries": 0, "providers": {name: seer.provider(model)}}
    return Settings.model_validate({**settings.model_dump(), "models": models, **more})


async def analyse(client: Any, name: str, data: bytes, **fields: str) -> Any:
    answer = await client.request("POST", "/api/analyses", files={"file": (name, data)}, data=fields)
    assert answer.status_code == 202, answer.text
    return await over(client, answer.json()["id"])


async def over(client: Any, analysis_id: str) -> Any:
    """The analysis once it has ended."""
    for _ in range(1500):
        analysis = (await client.get(f"/api/analyses/{analysis_id}")).json()
        if analysis["state"] in OVER:
            return analysis
        await asyncio.sleep(0.02)
    raise TimeoutError(analysis)


async def test_by_curl_on_the_short_paths(settings: Settings, tmp_path: Path) -> None:
    """What the documentation tells people to type."""
    file = tmp_path / "resume.pdf"
    file.write_bytes(numbered(2, ("white", "red")))
    async with Seer() as seer, served(with_model(settings, seer)) as client:
        status, uploaded = await curl(client, "POST", "/upload", "-F", f"file=@{file}")
        assert (status, list(uploaded)) == (202, ["file_id"])
        words = []
        while not words or words[-1] not in ("api call done", "failed"):
            status, told = await curl(client, "GET", f"/{uploaded['file_id']}")
            assert status == 200
            words.append(told["status"])
        while told["result"] is None:
            _, told = await curl(client, "GET", f"/{uploaded['file_id']}")
    assert told == {
        "_id": uploaded["file_id"],
        "name": "resume.pdf",
        "status": "api call done",
        "result": told["result"],
    }
    assert set(words) <= {"queued", "processing", "conversion complete", "api call done"}
    assert told["result"]["markdown"] == "1 bars on white, 1653x2339 PNG; 2 bars on red, 1653x2339 PNG"


async def test_the_last_path_takes_nothing_but_ids(client: Client) -> None:
    await register(client, "Ada")
    for elsewhere in ("/ana_nothing", "/nothing", "/upload"):
        assert (await client.get(elsewhere)).status_code in (404, 405), elsewhere
    assert (await client.get("/ana_" + "0" * 26)).status_code == 401


async def test_from_upload_to_document(settings: Settings) -> None:
    """Everything the API tells of one analysis."""
    async with Seer() as seer, served(with_model(settings, seer)) as client:
        done = await analyse(client, "plan.pdf", numbered(3), prompt="How many bars?")
        assert done["state"] == "succeeded", done
        assert (done["way"], done["model"], done["pages"], done["pages_done"]) == ("vision", "lab/pixtral", 3, 3)
        assert done["why"] == "`lab/pixtral` reads images, so it looked at the pages."
        assert done["usage"] == {"calls": 1, "input_tokens": 7, "output_tokens": 3}
        assert [page["note"][:6] for page in done["result"]["pages"]] == ["1 bars", "2 bars", "3 bars"]
        assert "How many bars?" in seer.asked[0].text
        at = f"/api/analyses/{done['id']}"
        [listed] = (await client.get("/api/analyses")).json()["items"]
        assert listed == {**done, "result": None}
        page = await client.get(f"{at}/pages/2.png")
        assert (page.status_code, page.headers["content-type"]) == (200, "image/png")
        assert (await client.get(f"{at}/pages/4.png")).status_code == 404
        assert (await client.get(f"{at}/original")).content == numbered(3)
        events = (await client.get(f"{at}/events")).text
        assert '"state":"converted"' in events
        assert events.count("event: page") == 3
        assert events.rstrip().endswith('{"state":"succeeded"}')
        kept = (await client.post(f"{at}/document")).json()["document"]
        assert kept["name"] == "plan.md"
        await client.ready(kept["id"])
        text = (await client.get(f"/api/documents/{kept['id']}/text")).json()["text"]
        assert "1 bars on white" in text
        assert (await client.post(f"{at}/retry")).status_code == 409
        assert (await client.delete(at)).status_code == 204
        assert (await client.get(at)).status_code == 404
        assert not [each for each in (settings.data / "blobs").rglob("*") if each.is_file() and "analyses" in str(each)]


@pytest.mark.parametrize(
    ("wire", "name"),
    [(OpenAIWire(), "qwen2.5-vl"), (AnthropicWire(), "claude-sonnet-4-5"), (OllamaWire(), "ours:latest")],
    ids=["openai", "anthropic", "ollama"],
)
async def test_each_kind_of_provider_gets_the_same_pictures(settings: Settings, wire: Wire, name: str) -> None:
    async with Seer(wire=wire) as seer, served(with_model(settings, seer, model=name)) as client:
        seer.on("/api/show", json_reply({"capabilities": ["completion", "vision"]}))  # Ollama tells what a model can
        done = await analyse(client, "photo.jpg", as_bytes(picture(5, "blue"), "JPEG"))
    assert (done["state"], done["way"], done["model"]) == ("succeeded", "vision", f"lab/{name}"), done
    assert done["result"]["markdown"].startswith("5 bars on blue, 600x300")


async def test_a_resume_fills_its_fields(settings: Settings) -> None:
    fields = {
        "name": "Ada", "email": None, "phone": None, "location": None, "headline": None, "summary": None, "skills": [],
        "languages": [], "links": [], "experience": [], "education": [],
    }  # fmt: skip
    async with Seer(answered(fields)) as seer, served(with_model(settings, seer)) as client:
        done = await analyse(client, "cv.png", as_bytes(picture(), "PNG"), type="resume")
        types = (await client.get("/api/analyses/types")).json()["items"]
    assert done["result"]["fields"] == fields
    assert done["result"]["warnings"] == []
    sent = seer.asked[0].body["response_format"]["json_schema"]["schema"]["properties"]["fields"]
    assert sent == next(each["schema"] for each in types if each["name"] == "resume")


async def test_prose_where_json_was_asked_is_mended(settings: Settings) -> None:
    schema = {"type": "object", "properties": {"bars": {"type": "integer"}}, "required": ["bars"]}

    def says(asked: Asked) -> str:
        match asked.turns:
            case 2:
                return "I see three bars. Is there anything else?"
            case 4:
                return 'Sorry!\n```json\n{"markdown": "Three.", "pages": [], "fields": {"bars": "three"}}\n```'
            case _:
                return 'Here: {"markdown": "Three.", "pages": [], "fields": {"bars": 3},} Bye.'

    async with Seer(says) as seer, served(with_model(settings, seer)) as client:
        done = await analyse(client, "a.png", as_bytes(picture(3), "PNG"), schema=json.dumps(schema))
    assert done["state"] == "succeeded"
    assert done["result"]["fields"] == {"bars": 3}
    assert done["usage"]["calls"] == 3
    assert "not JSON" in seer.asked[1].text
    assert "'three' is not of type 'integer'" in seer.asked[2].text
    assert len(seer.asked[2].pictures) == 1


async def test_fields_that_never_fit_are_left_out_and_the_markdown_kept(settings: Settings) -> None:
    schema = json.dumps({"type": "object", "required": ["total"]})
    async with Seer(answered({"sum": 1}, "An invoice.")) as seer, served(with_model(settings, seer)) as client:
        done = await analyse(client, "a.png", as_bytes(picture(), "PNG"), schema=schema)
    result = done["result"]
    assert (done["state"], result["markdown"], result["fields"]) == ("succeeded", "An invoice.", None)
    assert result["rejected"] == {"sum": 1}
    assert "'total' is a required property" in result["warnings"][-1]
    assert len(seer.asked) == 3


async def test_what_cannot_be_asked_is_refused_in_a_sentence(settings: Settings) -> None:
    good = as_bytes(picture(), "PNG")
    wrong = [
        ({"type": "poem"}, 422, "analysis_type"),
        ({"schema": "{"}, 422, "bad_schema"),
        ({"schema": "[]"}, 422, "bad_schema"),
        ({"schema": '{"type": "nothing"}'}, 422, "bad_schema"),
        ({"schema": '{"$ref": "http://127.0.0.1/x.json"}'}, 422, "bad_schema"),
        ({"schema": '{"a":' * 40 + "{}" + "}" * 40}, 422, "bad_schema"),
        ({"webhook": "file:///etc/passwd"}, 422, "bad_url"),
        ({"model": "lab2/none"}, 404, "model_unknown"),
        ({"colour": "red"}, 422, "invalid"),
    ]
    async with Seer() as seer, served(with_model(settings, seer)) as client:
        for fields, status, code in wrong:
            answer = await client.post("/api/analyses", files={"file": ("a.png", good)}, data=fields)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (fields, answer.text)
        for name, data, code in (("a.png", b"", "document_empty"),
                                 ("a.heic", b"\0\0\0\x18ftypheic", "document_unsupported"),
                                 ("a.zip", b"PK\x03\x04nothing", "document_damaged")):  # fmt: skip
            answer = await client.post("/api/analyses", files={"file": (name, data)})
            assert answer.json()["code"] == code, answer.text
        twice = [("file", ("a.png", good)), ("file", ("b.png", good))]
        assert (await client.post("/api/analyses", files=twice)).json()["code"] == "one_file_only"
        assert (await client.post("/api/analyses", data={"type": "free"}, files={})).status_code in (415, 422)
        assert (await client.get("/api/analyses")).json()["items"] == []
        assert not [each for each in (settings.data / "blobs").rglob("*") if each.is_file()]


async def test_one_idempotency_key_analyses_once(settings: Settings) -> None:
    async with Seer() as seer, served(with_model(settings, seer)) as client:

        async def send(data: bytes, **fields: str) -> Any:
            return await client.post(
                "/api/analyses", files={"file": ("a.png", data)}, data=fields, headers={"idempotency-key": "once"}
            )

        first, again = await send(as_bytes(picture(), "PNG")), await send(as_bytes(picture(), "PNG"))
        assert first.json()["id"] == again.json()["id"]
        assert (await send(as_bytes(picture(2), "PNG"))).json()["code"] == "key_reused"
        assert (await send(as_bytes(picture(), "PNG"), prompt="Else?")).status_code == 409
        await over(client, first.json()["id"])
        assert len((await client.get("/api/analyses")).json()["items"]) == 1
    assert len(seer.asked) == 1


async def test_it_is_private_and_leaves_with_its_owner(settings: Settings) -> None:
    async with Seer() as seer, served(with_model(settings, seer)) as client:
        ada = await register(client, "Ada")
        done = await analyse(ada, "a.png", as_bytes(picture(), "PNG"))
        offer = (await ada.post("/api/invitations", {"role": "admin"})).json()
        bob = await register(client, "Bob", invitation=offer["token"])
        for path in (f"/api/analyses/{done['id']}", f"/{done['id']}", f"/api/analyses/{done['id']}/pages/1.png"):
            assert (await bob.get(path)).status_code == 404
        assert (await bob.get("/api/analyses")).json()["items"] == []
        exported = (await ada.get("/api/tenant/export")).content
        assert f"analyses/{done['id']}/a.png".encode() in exported
        mine = await analyse(bob, "b.png", as_bytes(picture(2), "PNG"))
        left = [each for each in (settings.data / "blobs").rglob("*") if mine["id"] in str(each) and each.is_file()]
        assert left
        assert (await ada.delete(f"/api/users/{bob.id}")).status_code in (200, 204)
        for _ in range(1000):
            left = [each for each in left if each.exists()]
            if not left:
                break
            await asyncio.sleep(0.02)
        assert left == []


async def test_without_a_model_the_text_is_given_and_it_says_why(client: Client) -> None:
    done = await analyse(client, "a.txt", b"The notice period is four weeks.\n\nThe quay is seven metres deep.",
                         prompt="How deep is the quay?")  # fmt: skip
    assert (done["state"], done["way"]) == ("succeeded", "quote"), done
    assert "No model is connected" in done["why"]
    assert "seven metres deep" in done["result"]["markdown"]
    assert "four weeks" in done["result"]["markdown"]


async def test_from_the_terminal(settings: Settings, tmp_path: Path) -> None:
    file, schema, out = tmp_path / "plan.pdf", tmp_path / "schema.json", tmp_path / "plan.md"
    file.write_bytes(numbered(2))
    schema.write_text('{"type": "object", "required": ["bars"]}')

    async def run(*arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "terrace", "analyze", *arguments,
            env={**os.environ, "TERRACE_DATA": str(settings.data)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, noted = await process.communicate()
        return process.returncode or 0, told.decode(), noted.decode()

    async with Seer(answered({"bars": 3}, "Three bars.")) as seer, served(with_model(settings, seer)):
        status, told, noted = await run(str(file), "--prompt", "How many?", "--schema", str(schema), "-o", str(out))
        assert (status, told) == (0, ""), noted
        assert out.read_text() == "Three bars.\n"
        assert "bars: 3" in noted
        assert "reads images" in noted
        seer.says = lambda asked: json_reply({"error": {"message": "no pictures, please"}}, 400)
        status, told, noted = await run(str(file), "--json")
    assert (status, told) == (2, "")
    assert "no pictures, please" in noted


async def test_the_text_is_rendered_where_it_is_asked_for(settings: Settings) -> None:
    async with served(settings) as client:
        done = await analyse(client, "notes.md", b"# Lighthouse\n\n**Seven** keepers. <script>alert(1)</script>")
        plain = (await client.get(f"/api/analyses/{done['id']}")).json()["result"]
        rendered = (await client.get(f"/api/analyses/{done['id']}?render=html")).json()["result"]
    assert "html" not in plain
    assert "<h1>Lighthouse</h1>" in rendered["html"]
    assert "<strong>Seven</strong>" in rendered["html"]
    assert "<script" not in rendered["html"]
