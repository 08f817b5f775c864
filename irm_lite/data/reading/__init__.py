"""Files and hub data sets -> rows, within limits on their size."""
