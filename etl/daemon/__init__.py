"""The background process: who leads, what is due, what the outside sees."""
