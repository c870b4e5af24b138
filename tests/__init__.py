"""A package, so that no other of this name, which some distributions install, is taken for it."""
