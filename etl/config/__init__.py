"""What callflow.toml and the environment say, and what of it is secret."""
