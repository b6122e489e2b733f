"""Arms of your own, written as text."""
