"""Keys, themes and preferences."""
