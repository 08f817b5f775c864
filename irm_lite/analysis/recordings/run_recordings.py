"""Runs with the recording of each that is looked at, and whether they may be looked at together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from irm_lite.analysis.recordings.recording import Phase, Recording, Statistics, load_recording, recording_name
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, RunError
from irm_lite.core.private_text import told_apart
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.irm_files import read_saved
from irm_lite.steering.layers import format_layers


@dataclass(frozen=True)
class RecordedRun:
    """A run and the recording of it that is looked at. Its IRM is not loaded: 24 of the paper's would not fit."""

    directory: RunDirectory
    config: TrainConfig
    recording: Recording
    folder: Path  # the recording's
    data: str  # the dataset as a report names it: of a file no folders, but where two have one name

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def tone(self) -> str:
        """What its answers are: the dataset, and the column where it is not the usual one."""
        column = self.config.answer_column
        return self.data if column == "answer" else f"{self.data}, {column}"

    def is_of(self, data: str) -> bool:
        """Whether it was trained on this: a tone, a file, or that file's name."""
        path = Path(self.config.data)
        return data in (self.tone, self.config.data, path.name, path.stem, self.config.answer_column)

    @property
    def setting(self) -> str:
        """What runs may share beside their answers."""
        about = self.recording.about
        return f"{about.kind} {about.site} {format_layers(about.layers)} l1 {self.config.l1:g}"

    def phase(self, phase: Phase) -> Statistics:
        """Raises RunError where nothing was recorded in this phase."""
        if phase not in self.recording.statistics:
            raise RunError(f"the recording of {self.name} has no {phase} tokens", "record again, or choose the other --phase")
        return self.recording.statistics[phase]


def with_recordings(runs: Sequence[Path], recording: str | None = None) -> list[RecordedRun]:
    """Each run with its recording of that name, or its newest.

    Raises RunError where one has none, or has another run's; InputError where bases differ.
    """
    found = [_with_recording(RunDirectory(path), recording) for path in runs]
    first, *others = found
    for each in others:
        if not each.directory.fingerprint().is_of(first.directory.fingerprint()):
            raise InputError(
                f"{first.directory.path} and {each.directory.path} are of different bases", "analyze the runs of one base together"
            )
    named = told_apart(each.config.data for each in found)
    found = [replace(each, data=named[each.config.data]) for each in found]
    paths = {each.name: each.directory.path for each in reversed(found)}
    for each in found:
        if each.directory.path is not paths[each.name]:
            same = each.directory.path.resolve() == paths[each.name].resolve()
            hint = "give it once" if same else "rename one of their folders"
            raise InputError(f"two runs have the same name, {each.name}", hint)
    return found


def _with_recording(run: RunDirectory, name: str | None) -> RecordedRun:
    config, saved = run.config(), read_saved(run.path)
    folder = run.newest_recording() if name is None else run.recordings / recording_name(name)
    if folder is None:
        raise RunError(f"{run.path} has no recording", f"irm-lite record {run.path}")
    recording = load_recording(folder)
    about = recording.about
    if not about.base.is_of(run.fingerprint()):
        raise RunError(f"{folder} was recorded on another base", "record again with --force")
    same = (tuple(about.layers), about.hidden_size, about.data) == (saved.layers, saved.hidden_size, config.data)
    if not same or (saved.digest and about.irm_sha256 and about.irm_sha256 != saved.digest):
        raise RunError(f"{folder} is a recording of another IRM", "record again with --force")
    return RecordedRun(run, config, recording, folder, config.data)


def differences(runs: Sequence[RecordedRun]) -> list[str]:
    """What makes the recordings of runs unlike, a sentence each: what is compared over unlike texts differs by the texts too."""
    found = []
    for what, values in (
        ("The recordings have different names", {each.folder.name for each in runs}),
        ("The recordings are of different numbers of prompts", {str(each.recording.about.n_prompts) for each in runs}),
        ("The recordings were made in different programs", {each.recording.about.measured_in for each in runs}),
        ("The recordings were made on different weights", {each.recording.about.weights for each in runs}),
    ):
        if len(values) > 1:
            found.append(f"{what}: {', '.join(sorted(told_apart(values).values()))}.")
    return found
