"""A score of what a steered model says, from its texts and NLLs (docs/score.md). Imports no torch."""
