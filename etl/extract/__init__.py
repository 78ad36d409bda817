"""From a provider's API to pages of records: this stage knows each provider's envelope."""
