"""Where a base comes from: a GGUF file, a Hugging Face folder; its shape before anything is loaded."""
