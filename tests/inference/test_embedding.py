"""/v1/embeddings of the model server."""

from pathlib import Path

import numpy as np
import openai
import pytest
from tests.inference.conftest import KEY, inferring, settings_of


async def test_openais_own_sdk_embeds(tmp_path: Path) -> None:
    async with (
        inferring(settings_of(tmp_path, None)) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY) as sdk,
    ):
        texts = ["the harbour", "the port", "a sonata"]
        answer = await sdk.embeddings.create(model="all-MiniLM-L6-v2", input=texts)
        plain = await sdk.embeddings.create(model="all-MiniLM-L6-v2", input=texts[0], encoding_format="float")
        vectors = np.array([each.embedding for each in answer.data])
        assert vectors.shape == (3, 384)
        assert np.allclose(vectors[0], plain.data[0].embedding, atol=0.02)
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
        assert answer.usage.prompt_tokens > 3
        for wrong in ({"input": []}, {"input": "x", "dimensions": 5}, {"input": [1, 2]}):
            with pytest.raises(openai.BadRequestError):
                await sdk.embeddings.create(model="all-MiniLM-L6-v2", **wrong)  # type: ignore[arg-type]
        with pytest.raises(openai.NotFoundError):
            await sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
