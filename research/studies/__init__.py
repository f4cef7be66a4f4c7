"""Methods, cases and settings compared in tables."""
