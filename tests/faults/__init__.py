"""Faults: what providers, networks, Postgres, hosts and people can do to a sync."""
