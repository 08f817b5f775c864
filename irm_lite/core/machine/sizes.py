"""Sizes of memory as people write them."""

from irm_lite.core.errors import InputError

_UNITS = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6}


def parse_size(text: str) -> int:
    """'8GB' (10^9) or '8GiB' (2^30) -> bytes. Raises InputError."""
    for unit, factor in _UNITS.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal() and 0 < float(number) < 1e12:
            return int(float(number) * factor)
    raise InputError(f"{text!r} is no size of memory", "give a number and GB or GiB, as 8GB")
