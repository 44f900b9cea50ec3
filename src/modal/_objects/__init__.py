"""One file an object: immutable descriptions with dependencies, each loaded once."""
