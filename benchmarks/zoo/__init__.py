"""Tiny random models of every architecture that irm-lite claims, made from transformers' configurations."""
