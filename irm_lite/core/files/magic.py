"""What a file that is not the one expected may be, told by its first bytes: what downloads and copies leave in a model's place."""

_KINDS = {  # by the first bytes: what it is, and what to do
    b"version https://git-lfs": ("a pointer of Git LFS to one", "run `git lfs pull` in its folder"),
    b"<!DOCTYPE html": ("a web page", "download the file itself, not the page about it"),
    b"<!doctype html": ("a web page", "download the file itself, not the page about it"),
    b"<html": ("a web page", "download the file itself, not the page about it"),
    b"PK\x03\x04": (
        "a zip archive, or a pickle of PyTorch",
        "unpack it, or convert it by llama.cpp's convert_hf_to_gguf.py",
    ),
    b"\x1f\x8b": ("packed by gzip", "unpack it"),
    b"(\xb5/\xfd": ("packed by zstd", "unpack it"),
    b"lmgg": ("in llama.cpp's format of 2023", "download a newer file of the model"),
    b"fmgg": ("in llama.cpp's format of 2023", "download a newer file of the model"),
    b"tjgg": ("in llama.cpp's format of 2023", "download a newer file of the model"),
    b"algg": ("a LoRA in llama.cpp's format of 2023", "give a model"),
}
LONGEST = max(map(len, _KINDS))  # bytes that `format_of` needs


def format_of(start: bytes) -> tuple[str, str] | None:
    """What a file that begins with these bytes is, and what to do; None where it is nothing that is known here."""
    if start and not any(start):
        return "nothing but zeros at its beginning", "download it again: it was not downloaded to its end"
    if not start:
        return "empty", "download it again"
    return next((what for magic, what in _KINDS.items() if start.startswith(magic)), None)
