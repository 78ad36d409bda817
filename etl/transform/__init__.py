"""From a provider's records to rows. Pure: no I/O, no clock, inputs are not changed."""
