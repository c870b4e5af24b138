"""The HTTP doors: the API, OpenAI's /v1, and the page."""
