"""A trained IRM -> static vectors that any llama.cpp program can add, or biases in the model file itself; measured."""
