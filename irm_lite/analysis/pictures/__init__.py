"""What people look at: matplotlib figures and the terminal's heatmap, of recordings and control vectors."""
