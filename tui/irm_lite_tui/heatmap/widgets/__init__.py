"""One widget of the heatmap a file."""
