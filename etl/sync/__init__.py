"""One run of one stream: `run` is the spine."""
