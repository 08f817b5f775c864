"""What an IRM or a vector looks like, neuron by neuron."""
