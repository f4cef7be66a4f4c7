"""What keeps a bundle honest: manifest, allow-list, versions and overrides, and its release archive."""
