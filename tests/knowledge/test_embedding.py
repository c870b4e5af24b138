"""The embedding model in its own process: what comes out, and what happens when it is away or dies."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from terrace.errors import Unavailable
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.embedding.base import EmbeddingAbsent, StatefulEmbedder
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.embedding.process import SLICE, ProcessEmbedder
from terrace.models.base import Embeddings, Usage
from terrace.settings import Embedding
from terrace.types import Scope

TEXTS = ["A cat sat on the mat.", "A kitten rested on the rug.", "Interest rates rose by half a percent."]
PUBLISHED = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder shared by the tests of one run, so that the graph is built once."""
    return tmp_path_factory.mktemp("embedding")


@pytest.fixture
async def builtin(kept: Path) -> AsyncIterator[ProcessEmbedder]:
    embedder = open_embedder(Embedding(threads=2), kept)
    assert isinstance(embedder, ProcessEmbedder)
    yield embedder
    await embedder.close()


def tiny_export(folder: Path, *, pooled: bool = False, prompts: dict[str, str] | None = None) -> Path:
    """A sentence encoder of a few numbers: each of six words has its own axis; states are those axes."""
    from onnx import TensorProto, helper, numpy_helper, save
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    vocabulary = {"[PAD]": 0, "[UNK]": 1, "sun": 2, "moon": 3, "star": 4, "ask": 5}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    (folder / "onnx").mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    shape: list[Any] = ["batch", "tokens", 6]
    if pooled:
        nodes.append(
            helper.make_node("ReduceMean", ["last_hidden_state"], ["sentence_embedding"], axes=[1], keepdims=0)
        )
        shape = ["batch", 6]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("input_ids",)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.eye(6, dtype=np.float32), "table")],
    )
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "onnx/model.onnx"
    )
    if prompts:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """A hub of one model, `tiny/stars`, on loopback."""
    tiny_export(tmp_path / "hub/tiny/stars/resolve/main")
    tiny_export(tmp_path / "hub/tiny/headless/resolve/main")
    shutil.rmtree(tmp_path / "hub/tiny/headless/resolve/main/onnx")
    handler = partial(_Quiet, directory=str(tmp_path / "hub"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


# -- the built-in model


async def test_meaning_is_near_and_rows_are_unit(builtin: ProcessEmbedder) -> None:
    assert builtin.state().state == "unloaded"
    vectors = await builtin.embed(TEXTS)
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cat, kitten, rates = vectors
    assert cat @ kitten > 0.5 > 0.2 > cat @ rates
    assert builtin.name == "all-MiniLM-L6-v2/int8"
    assert builtin.state().state == "ready"


async def test_int8_is_close_to_fp32(builtin: ProcessEmbedder, kept: Path) -> None:
    full = open_embedder(Embedding(precision="fp32", threads=1), kept)
    try:
        assert full.name == "all-MiniLM-L6-v2/fp32"
        exact, short = await full.embed(PUBLISHED), await builtin.embed(PUBLISHED)
    finally:
        await full.close()
    assert ((exact * short).sum(1) > 0.97).all()
    similar = exact @ exact.T  # what the model's authors print for these sentences
    assert [similar[0, 1], similar[0, 2], similar[1, 2]] == pytest.approx([0.6660, 0.1046, 0.1411], abs=1e-4)


async def test_order_and_batching_do_not_change_which_vector_belongs_to_which_text(builtin: ProcessEmbedder) -> None:
    texts = [f"Report {number} " + "about rivers and hills " * (number % 40) for number in range(SLICE + 32)]
    together = await builtin.embed(texts)
    for place in (0, 39, 100, SLICE + 31):
        alone = (await builtin.embed([texts[place]]))[0]
        assert together[place] @ alone > 0.97
    assert (await builtin.embed([])).shape == (0, 384)


async def test_tokens_are_counted_beyond_what_the_model_takes(builtin: ProcessEmbedder) -> None:
    assert await builtin.count_tokens(["hello world", "", "word " * 5000]) == [2, 0, 5000]
    assert (await builtin.embed(["word " * 5000, "\0\u202e", ""])).shape == (3, 384)


async def test_a_query_overtakes_bulk_work(builtin: ProcessEmbedder) -> None:
    await builtin.embed(["warm"], query=True)
    bulk = asyncio.create_task(builtin.embed([f"{number} " + "long text " * 120 for number in range(8 * SLICE)]))
    await asyncio.sleep(0)
    for _ in range(3):
        await builtin.embed(["what is it?"], query=True)
    assert not bulk.done(), "we are asked for each slice of it"
    bulk.cancel()
    await asyncio.wait([bulk])


async def test_a_killed_process_is_replaced_and_its_work_done_again(builtin: ProcessEmbedder) -> None:
    await builtin.embed(["warm"])
    first = builtin.pid
    assert first is not None
    bulk = asyncio.create_task(builtin.embed(["some text " * 15] * (2 * SLICE)))
    await builtin.embed(["under way"], query=True)
    os.kill(first, signal.SIGKILL)  # before we can have asked for the second slice and been answered
    assert (await bulk).shape == (2 * SLICE, 384)
    assert builtin.pid not in (None, first)


async def test_a_process_that_hangs_is_replaced(tmp_path: Path) -> None:
    embedder = open_embedder(Embedding(model=str(tiny_export(tmp_path / "tiny")), precision="fp32"), tmp_path)
    assert isinstance(embedder, ProcessEmbedder)
    embedder.patience = 0.5
    before = await embedder.embed(["one"])
    first = embedder.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    for _ in range(100):  # those who give up waiting do not start its patience anew
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(embedder.embed(["one"], query=True), 0.1)
        if embedder.pid != first:
            break
    else:
        raise AssertionError("the process is still there")
    after = await asyncio.wait_for(embedder.embed(["one"]), 20)
    assert embedder.pid not in (None, first)
    assert np.array_equal(before, after)
    await embedder.close()


async def test_idle_it_leaves_memory_and_comes_back(kept: Path) -> None:
    embedder = open_embedder(Embedding(threads=1, unload_after=0.05), kept)
    assert isinstance(embedder, ProcessEmbedder)
    await embedder.embed(["hello"])
    pid = embedder.pid
    await until(lambda: embedder.state().state == "unloaded")
    assert embedder.pid is None
    assert (await embedder.embed(["hello"])).shape == (1, 384)
    assert embedder.pid != pid
    await embedder.close()
    with pytest.raises(Unavailable):
        await embedder.embed(["too late"])


async def test_it_dies_with_its_parent(kept: Path) -> None:
    script = """
        import asyncio, sys
        from pathlib import Path
        from terrace.knowledge.embedding import open_embedder
        from terrace.settings import Embedding

        async def main():
            embedder = open_embedder(Embedding(threads=1), Path(sys.argv[1]))
            await embedder.embed(["hello"])
            print(embedder.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(kept)]
    parent = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    await until(lambda: not _alive(child))


async def test_what_bulk_work_took_is_given_back(builtin: ProcessEmbedder) -> None:
    await builtin.embed(["The tide turns at noon and the pilot comes aboard. " * 30] * 40)
    assert builtin.pid is not None
    loaded = _own_memory(builtin.pid)
    await until(lambda: _own_memory(builtin.pid) < loaded - 20_000)


def _own_memory(pid: int | None) -> int:
    """kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    """Whether it still runs; one that ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_damaged_graph_is_made_again(kept: Path, tmp_path: Path) -> None:
    async with Opened(Embedding(threads=1), kept) as embedder:
        await embedder.embed(["hello"])
    (graph,) = (kept / "embedding").glob("*-int8-*.onnx")
    folder = tmp_path / "data/embedding"
    folder.mkdir(parents=True)
    (folder / graph.name).write_bytes(graph.read_bytes()[:-1] + b"x")
    async with Opened(Embedding(threads=1), tmp_path / "data") as embedder:
        assert (await embedder.embed(["hello"])).shape == (1, 384)
    assert [path.read_bytes() for path in folder.iterdir()] == [graph.read_bytes()]


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    from terrace.knowledge.embedding.weights import builtin_model

    weights = tmp_path / "weights"
    weights.mkdir()
    with pytest.raises(EmbeddingAbsent, match="missing"):
        builtin_model(weights, tmp_path, "int8")
    (weights / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(EmbeddingAbsent, match="SHA-256"):
        builtin_model(weights, tmp_path, "int8")
    assert list(tmp_path.rglob("*.onnx")) == []


# -- other models


class Opened:
    def __init__(self, settings: Embedding, data: Path) -> None:
        self._embedder = open_embedder(settings, data)

    async def __aenter__(self) -> StatefulEmbedder:
        return self._embedder

    async def __aexit__(self, *_: object) -> None:
        await self._embedder.close()


@pytest.mark.parametrize("pooled", [True, False])
async def test_a_folder_with_an_export(tmp_path: Path, pooled: bool) -> None:
    folder = tiny_export(tmp_path / "stars", pooled=pooled)
    async with Opened(Embedding(model=str(folder), precision="fp32", threads=1), tmp_path) as embedder:
        vectors = await embedder.embed(["sun sun", "sun moon", "star star"] if pooled else ["sun", "sun moon", "star"])
        assert embedder.dimensions == 6
        assert embedder.name.startswith("stars-")
    assert np.allclose(vectors[0], [0, 0, 1, 0, 0, 0])
    assert np.allclose(vectors[1], [0, 0, 0.5**0.5, 0.5**0.5, 0, 0])
    assert np.allclose(vectors[2], [0, 0, 0, 0, 1, 0])


async def test_prompts_of_a_model_are_used(tmp_path: Path) -> None:
    folder = tiny_export(tmp_path / "stars", prompts={"query": "ask "})
    async with Opened(Embedding(model=str(folder), threads=1), tmp_path) as embedder:
        (passage,), (query,) = await embedder.embed(["sun"]), await embedder.embed(["sun"], query=True)
    assert passage @ query == pytest.approx(0.5**0.5, abs=0.01)


async def test_a_model_from_a_hub_is_fetched_once(tmp_path: Path, hub: str) -> None:
    settings = Embedding(model="tiny/stars", hub=hub, precision="fp32", threads=1)
    async with Opened(settings, tmp_path / "data") as embedder:
        assert (await embedder.embed(["moon"])).tolist() == [[0, 0, 0, 1, 0, 0]]
        assert embedder.name == "tiny/stars/fp32"
    gone = settings.model_copy(update={"hub": "http://127.0.0.1:9"})
    async with Opened(gone, tmp_path / "data") as embedder:
        assert (await embedder.embed(["moon"])).shape == (1, 6)


@pytest.mark.parametrize(
    ("model", "says"),
    [("tiny/missing", "404"), ("tiny/headless", "no ONNX export")],
)
async def test_a_hub_without_the_model(tmp_path: Path, hub: str, model: str, says: str) -> None:
    async with Opened(Embedding(model=model, hub=hub, threads=1), tmp_path / "data") as embedder:
        with pytest.raises(EmbeddingAbsent, match=says):
            await embedder.embed(["moon"])
        assert embedder.state().state == "absent"
        assert says in embedder.state().why
        assert await embedder.count_tokens(["eight letters"]) == [4]
    assert list((tmp_path / "data").rglob("*.part")) == []


async def test_a_hub_that_cannot_be_reached_is_a_reason(tmp_path: Path) -> None:
    async with Opened(Embedding(model="tiny/stars", hub="http://127.0.0.1:9", threads=1), tmp_path) as embedder:
        with pytest.raises(EmbeddingAbsent, match="could not be fetched"):
            await embedder.embed(["moon"], query=True)


async def test_who_gives_up_waiting_does_not_stop_the_loading(tmp_path: Path, hub: str) -> None:
    settings = Embedding(model="tiny/stars", hub=hub, precision="fp32", threads=1)
    async with Opened(settings, tmp_path / "data") as embedder:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await embedder.embed(["moon"], query=True)
        assert embedder.state().state == "preparing"
        await until(lambda: embedder.state().state == "ready")


async def test_closing_does_not_wait_for_the_loading(tmp_path: Path, hub: str) -> None:
    settings = Embedding(model="tiny/stars", hub=hub, precision="fp32", threads=1)
    async with Opened(settings, tmp_path / "data") as embedder:
        waiting = asyncio.create_task(embedder.embed(["moon"]))
        while embedder.state().state == "unloaded":  # noqa: ASYNC110 what follows is soon over
            await asyncio.sleep(0)
        assert embedder.state().state == "preparing"
    with pytest.raises(Unavailable, match="shutting down"):
        await waiting


@pytest.mark.parametrize(
    ("modes", "says"),
    [
        ({"lasttoken": True}, "pools by lasttoken"),
        ({"mean_tokens": True, "max_tokens": True}, "mean_tokens and max_tokens"),
    ],
)
async def test_a_pooling_that_is_not_ours_is_a_reason(tmp_path: Path, modes: dict[str, bool], says: str) -> None:
    """Its vectors would be others than the model's."""
    folder = tiny_export(tmp_path / "stars")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    told = {"word_embedding_dimension": 6, "include_prompt": True, "pooling_mode_cls_token": False}
    config = {**told, **{f"pooling_mode_{name}": on for name, on in modes.items()}}
    (folder / "1_Pooling/config.json").write_text(json.dumps(config))
    async with Opened(Embedding(model=str(folder), precision="fp32", threads=1), tmp_path) as embedder:
        with pytest.raises(EmbeddingAbsent, match=says):
            await embedder.embed(["moon"])


@pytest.mark.parametrize("content", [b"", b"not a model"])
async def test_a_broken_export_is_a_reason(tmp_path: Path, content: bytes) -> None:
    folder = tiny_export(tmp_path / "stars")
    (folder / "onnx/model.onnx").write_bytes(content)
    async with Opened(Embedding(model=str(folder), precision="fp32", threads=1), tmp_path) as embedder:
        with pytest.raises(EmbeddingAbsent, match="cannot be loaded"):
            await embedder.embed(["moon"])


@pytest.mark.parametrize(
    ("model", "says"),
    [("none", "switched off"), ("./nowhere", "neither a folder"), ("one-word", "neither a folder")],
)
async def test_settings_that_name_no_model(tmp_path: Path, model: str, says: str) -> None:
    async with Opened(Embedding(model=model), tmp_path) as embedder:
        assert embedder.state().state == "absent"
        assert says in embedder.state().why
        with pytest.raises(EmbeddingAbsent, match=says):
            await embedder.embed(["hello"])
        assert await embedder.count_tokens(["x" * 40]) == [10]


class OneProvider:
    """Embeds a text as its length and its number of a's."""

    name = "lengths"

    def __init__(self) -> None:
        self.asked: list[Scope] = []

    async def embed(self, model: str, texts: Sequence[str], scope: Scope) -> Embeddings:
        self.asked.append(scope)
        rows = [[float(len(text)), float(text.count("a"))] for text in texts]
        return Embeddings(rows if model == "good" else rows[1:], Usage(1, 0))


async def test_a_providers_model(tmp_path: Path) -> None:
    embedder = open_embedder(Embedding(model="lengths/good"), tmp_path, {"lengths": OneProvider()})  # type: ignore[dict-item]
    assert np.allclose(await embedder.embed(["aaa", "bbbb"]), [[0.5**0.5, 0.5**0.5], [1, 0]])
    assert (embedder.name, embedder.dimensions) == ("lengths/good", 2)
    short = open_embedder(Embedding(model="lengths/short"), tmp_path, {"lengths": OneProvider()})  # type: ignore[dict-item]
    with pytest.raises(Unavailable, match="wrong number"):
        await short.embed(["aaa", "bbbb"])


async def test_a_providers_model_is_paid_by_whoever_asked(tmp_path: Path) -> None:
    """And is the operator's choice: what models a caller may use says nothing about it."""
    provider = OneProvider()
    embedder = open_embedder(Embedding(model="lengths/good"), tmp_path, {"lengths": provider})  # type: ignore[dict-item]
    who = Scope("acme", "usr_ada", "key_ada", "job_1", (frozenset({"openai/*"}),))
    await embedder.embed(["aaa"], scope=who)
    await embedder.embed(["aaa"])
    assert provider.asked == [Scope("acme", "usr_ada", "key_ada", "job_1"), Scope()]


async def test_hashed_vectors_know_spelling() -> None:
    embedder = HashEmbedder()
    rain, rainy, snow = await embedder.embed(["heavy rain", "heavy rains", "light snow"])
    assert rain @ rainy > 0.5 > rain @ snow
    assert np.allclose(np.linalg.norm(await embedder.embed(["", "a"]), axis=1), 1)
