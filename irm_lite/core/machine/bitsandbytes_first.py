"""Import this before transformers' Trainer, whose own import of bitsandbytes prints, and looks for kernels on the hub."""

from irm_lite.core.machine.quiet import import_bitsandbytes

import_bitsandbytes()
