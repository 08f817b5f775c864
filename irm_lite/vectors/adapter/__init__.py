"""LoRA adapters that do what a control vector does, in closed form: made, measured, written."""
