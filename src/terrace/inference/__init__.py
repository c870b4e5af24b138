"""A model server of our own, as OpenAI's SDKs and Terrace's `kind=openai` providers expect one: llama.cpp writes, with
continuous batching, and the built-in model embeds. It keeps nothing and knows no people, only one shared key."""

from terrace.inference.door import Door
from terrace.inference.opening import Inference, open_inference

__all__ = ["Door", "Inference", "open_inference"]
