"""How much memory this process may hold: what it has now, and what is free beside it."""

import psutil


def free_bytes(device: str) -> int:
    """Bytes. CUDA: of the GPU, within the share that torch was given. MPS: what Metal recommends. CPU: of the system's memory."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        share = int(total * torch.cuda.get_per_process_memory_fraction())
        return min(free + torch.cuda.memory_reserved(), share)
    if device == "mps":
        import torch

        return torch.mps.recommended_max_memory()
    return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)
