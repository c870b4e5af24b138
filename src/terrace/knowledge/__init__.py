"""Documents in, passages out: parsing, chunking, embedding, the index, search and citations."""
