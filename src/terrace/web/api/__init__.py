"""The API, one file a resource. Each offers `router` (canonical, under /api) and, where promised, `short`."""
