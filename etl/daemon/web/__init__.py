"""The daemon seen from outside, over HTTP: probes, metrics, the state as JSON, a page to read."""
