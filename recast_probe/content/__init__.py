"""What a value is, by content."""
