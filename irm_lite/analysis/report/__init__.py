"""The page and the plain words that `irm-lite analyze` writes."""
