"""One step: rows through the injected base, the loss, the optimiser's rounding."""
