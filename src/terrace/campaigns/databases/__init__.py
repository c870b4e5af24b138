"""Other databases that contacts come from: asked read-only, one statement at a time."""
