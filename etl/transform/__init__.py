"""From a provider's records to rows. Pure: no I/O, no clock, the input stays as it was."""
