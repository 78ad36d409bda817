"""What a person calls: the command line."""
