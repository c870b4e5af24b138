"""The /v1 door: what OpenAI's own SDKs expect, errors included."""

from terrace.web.openai.base import Answerer, Sources
from terrace.web.openai.door import OpenAIDoor

__all__ = ["Answerer", "OpenAIDoor", "Sources"]
