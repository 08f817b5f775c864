"""A trained IRM -> static vectors that any llama.cpp program can add, or biases in the model file itself."""

GOOD_FIDELITY = 0.8  # below it static vectors carry only part of an IRM; stands here, as the UI reads it without torch
