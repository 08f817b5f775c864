"""What tests share: tiny models, a second derivation of the formulas, scripted processes."""
