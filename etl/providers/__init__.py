"""What each provider declares."""
