"""How real patches of a volume look."""
