"""Datasets -> examples -> token ids -> packed rows."""
