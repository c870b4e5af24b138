"""LiteLLM's proxy on the same load, installed into an environment of its own (kept between runs)."""

import json
import secrets
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.gateway import CONCURRENCY, MESSAGES, Row
from benchmarks.gateway_load import closed_loop, request_bytes
from benchmarks.gateway_servers import Process, free_port, running

ENVIRONMENT = Path(tempfile.gettempdir()) / "terrace-benchmark-litellm"
REQUESTS = 300  # it takes tens of milliseconds each
CONFIG = """
model_list:
  - model_name: mock
    litellm_params:
      model: openai/mock
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: sk-upstream
litellm_settings:
  telemetry: false
"""


def _install() -> Path:
    command = ENVIRONMENT / "bin" / "litellm"
    if not command.exists():
        print("installing LiteLLM ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "-q", "litellm[proxy]"]
        subprocess.run(pip, check=True)
    return command


async def litellm_rows(stack: ExitStack, folder: Path, mock: Process, our_cpu: float, our_rate: float) -> list[Row]:
    """Rows whose reference column is LiteLLM; `our_cpu` in milliseconds a request."""
    command = _install()
    config = folder / "litellm.yaml"
    config.write_text(CONFIG.format(upstream=mock.port))
    port = free_port()
    started = [str(command), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    key = "sk-" + secrets.token_hex(32)  # it does not start without one
    environ = {"LITELLM_MASTER_KEY": key}
    peer = stack.enter_context(
        running("litellm", started, port, environ=environ, ready="/health/liveliness", patience=300)
    )
    body = json.dumps({"model": "mock", "messages": MESSAGES}).encode()
    request = request_bytes("/v1/chat/completions", body, key)
    await closed_loop(port, request, concurrency=CONCURRENCY, requests=CONCURRENCY)  # warms up
    before = peer.cpu()
    took = await closed_loop(port, request, concurrency=CONCURRENCY, requests=REQUESTS)
    cpu, rate = (peer.cpu() - before) / REQUESTS * 1000, REQUESTS / took
    return [
        Row("CPU a request (first column: LiteLLM)", "ms", cpu, our_cpu, "<= 1/100", our_cpu <= cpu / 100),
        Row("requests a second (first column: LiteLLM)", "1/s", rate, our_rate, ">= 100x", our_rate >= 100 * rate),
    ]
