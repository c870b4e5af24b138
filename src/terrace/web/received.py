"""From a multipart body to the knowledge room, file by file as the bytes arrive."""
