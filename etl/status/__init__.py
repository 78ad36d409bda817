"""The state of sources and streams, and how a person sees it."""
