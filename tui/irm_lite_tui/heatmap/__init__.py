"""Layers by neuron index, panned and zoomed."""
