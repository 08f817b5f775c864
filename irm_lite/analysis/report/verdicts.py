"""What a finding is: a claim, a verdict, and the figures in words."""

HOLDS, FAILS, UNCLEAR = "holds", "does not hold", "unclear"

Finding = dict[str, str]


def verdict(count: int, of: int) -> str:
    """Of a claim about several: it holds where it does of each, and does not where it does of none."""
    return HOLDS if count == of else FAILS if count == 0 else UNCLEAR


def finding(claim: str, found: str, text: str) -> Finding:
    return {"claim": claim, "verdict": found, "text": text}
