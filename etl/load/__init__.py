"""From rows to tables: staging, merge, history, bookkeeping. Knows SQL, and no provider."""
