"""Postgres: connecting, its schema, its views and its roles; the embedded server."""
