"""What several modes use."""
