"""Answers side by side, steered and not."""
