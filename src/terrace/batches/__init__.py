"""Many requests in one file, answered in the background: what OpenAI calls files and batches."""
