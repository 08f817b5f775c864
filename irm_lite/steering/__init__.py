"""The IRM, the control vector, and the injection of either into a residual stream."""
