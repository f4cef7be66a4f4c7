"""Heads as hospitals have them: registration, brain masks and in-plane detail, measured on the data pack."""
