"""How often a method may err before it is called wrong."""

from scipy import stats

TRIALS = 200


def most(rate: float, trials: int = TRIALS) -> int:
    """Errors in so many trials that a method with that error rate passes but once in a thousand times."""
    return int(stats.binom.ppf(0.999, trials, rate))
