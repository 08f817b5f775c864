"""What a fresh interpreter has imported."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "bitsandbytes", "llama_cpp", "textual", "matplotlib", "sklearn")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy modules a fresh interpreter holds after running the code."""
    program = f"import sys\n{code}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())
