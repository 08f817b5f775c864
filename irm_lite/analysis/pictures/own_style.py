"""matplotlib as these pictures need it, whatever the user's own is: no backend is asked for, no matplotlibrc changes a picture.

A notebook leaves MPLBACKEND behind, which matplotlib looks at as it is imported, and refuses where the notebook's package is not
installed; a matplotlibrc in the folder or the home may ask for LaTeX, or for fonts that are not there.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from irm_lite.core.errors import MissingPart, reason

_BACKEND = "MPLBACKEND"


def require_matplotlib() -> None:
    """Import matplotlib: called before the work whose end is a picture. Raises MissingPart where it cannot be imported."""
    if "matplotlib.backends.backend_agg" in sys.modules:
        return
    logger, backend = logging.getLogger("matplotlib"), os.environ.get(_BACKEND)
    level = logger.level
    logger.setLevel(logging.ERROR)  # else it tells of each odd line of a matplotlibrc, and of a home that cannot be written
    os.environ[_BACKEND] = "agg"
    try:
        import matplotlib.backends.backend_agg  # noqa: F401
    except Exception as error:  # a matplotlibrc that is not text, a home and a folder for temporary files that cannot be written
        hint = "mend or rename the matplotlibrc in this folder or your home, or set MPLCONFIGDIR to a folder that can be written"
        raise MissingPart(f"matplotlib cannot be imported ({reason(error)})", hint) from error
    finally:
        logger.setLevel(level)
        if backend is None:
            del os.environ[_BACKEND]
        else:
            os.environ[_BACKEND] = backend


@contextmanager
def own_style() -> Iterator[None]:
    """Within, also as a decorator: matplotlib's own defaults hold, not the user's; they do again afterwards."""
    require_matplotlib()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
