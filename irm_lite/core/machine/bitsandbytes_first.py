"""Imported before transformers' Trainer, which imports bitsandbytes by itself: that would talk, and look for kernels on the hub."""

from irm_lite.core.machine.quiet import import_bitsandbytes

import_bitsandbytes()
