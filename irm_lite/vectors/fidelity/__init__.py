"""How much of an IRM a vector carries: base, IRM and vector on the same answers, in transformers or in llama.cpp."""
