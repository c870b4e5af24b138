"""Conversations, and answers that survive their client."""
