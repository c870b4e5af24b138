"""Documents, passages, metadata and vectors out of MongoDB and Qdrant."""
