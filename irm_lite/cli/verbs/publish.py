"""irm-lite publish"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PublishFlags:
    """Where to, and what only its publisher knows."""

    to: Path
    """The folder to write: a new or empty one, or one that was published before."""
    push: str | None = None
    """Also upload the folder to this repository of the Hugging Face hub, owner/name; nothing leaves the machine without it."""
    private: Annotated[bool, Parameter(negative="")] = False
    """With --push: a repository that is made for it is private."""
    strength: float = 1.0
    """The strength that the card recommends (of a vector, irm-lite calibrate finds one)."""
    title: str = ""
    """The card's heading [default: of data and base]."""
    base_model: str = ""
    """The base's id on the hub, owner/name, where the run has it from a folder or file."""
    licence: str = ""
    """Under which licence it is published, by the hub's name, as apache-2.0 [default: a preset's own]."""
    data_licence: str = ""
    """The licence of the data that it was trained on."""
    force: Annotated[bool, Parameter(negative="")] = False
    """Write anew what was published there before."""


def publish(what: Path, /, *, flags: PublishFlags, common: Common | None = None) -> None:
    """Write a folder to give away: vector, adapter, IRM, figures, a model card, and what it takes to make it again.

    Parameters
    ----------
    what
        A run directory, or a control vector (.gguf).
    """
    output = Output(common)
    from irm_lite.jobs.publishing.gathered import Wishes
    from irm_lite.jobs.publishing.publish import publish as write
    from irm_lite.jobs.publishing.push import push, require_login

    if flags.push is not None:
        require_login(flags.push)
    wishes = Wishes(
        strength=flags.strength,
        title=flags.title,
        base_model=flags.base_model,
        licence=flags.licence,
        data_licence=flags.data_licence,
        repository=flags.push or "",
    )
    published = write(what, flags.to, wishes, flags.force)
    for line in published.warnings:
        output.warn(line)
    address = None
    if flags.push is not None:
        output.note(f"uploading to {flags.push}")
        address = push(flags.to, flags.push, flags.private)
    again = f"made again and compared: irm-lite reproduce {shlex.quote(str(flags.to))} -o NEW-RUN"
    output.result(
        {**published.to_dict(), "pushed_to": address},
        f"{flags.to}: {', '.join(published.digests)}",
        *([again] if published.gathered.run is not None else []),
        *([f"pushed: {address}"] if address else []),
    )
