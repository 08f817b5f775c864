"""A run's way into llama.cpp."""
