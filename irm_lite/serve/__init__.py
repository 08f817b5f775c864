"""`irm-lite serve`: one GGUF loaded once, answered by base, control vector and IRM side by side, for other programs."""
