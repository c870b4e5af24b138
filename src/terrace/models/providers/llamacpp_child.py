"""The process that runs llama.cpp.

It reads one line of JSON, {path, name, key, context, slots, threads}, from its input, writes one, {address} or {error},
and serves until its input is closed, which also happens when its parent dies.
"""

import json
import sys
from typing import Any


def main() -> None:
    wanted: dict[str, Any] = json.loads(sys.stdin.readline())
    try:
        server = serve(**wanted)
        said = {"address": server.listening_address}
    except ImportError:
        server, said = None, {"error": "missing"}
    except RuntimeError:  # all xllamacpp tells
        server, said = None, {"error": "load"}
    print(json.dumps(said), flush=True)
    if server is not None:
        sys.stdin.read()


def serve(path: str, name: str, key: str, context: int, slots: int, threads: int) -> Any:
    """A running server on a free loopback port; it answers nobody without `key`."""
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path, params.model_alias = path, {name}
    params.n_ctx, params.n_parallel, params.kv_unified = context, slots, True  # one call may use most of the context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [key]
    params.ui = params.endpoint_slots = False
    params.verbosity = -1
    return Server(params)


if __name__ == "__main__":
    main()
