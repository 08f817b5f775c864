"""What is computed of the untouched base, once for all runs that are held against it."""

from collections.abc import Iterable, Sequence
from typing import Any

from irm_lite.analysis.base_controls.features import base_features, stream_power
from irm_lite.analysis.base_controls.gradient_field import gradient_field, shuffled
from irm_lite.analysis.base_controls.gradient_split import gradient_split
from irm_lite.analysis.recordings.run_recordings import RecordedRun
from irm_lite.analysis.statistics.channels import described_channels
from irm_lite.analysis.statistics.striations import cosines, layer_normalised, two_way
from irm_lite.core.types import FloatArray, Progress
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.runs.trained import TrainedRun
from irm_lite.steering.irm import Site

NEUTRAL = "neutral"  # the shipped data without a tone
_SHUFFLED = ", shuffled"


class BaseControls:
    """Gradient fields and features of the base that `first` was trained on, over `samples` training answers."""

    def __init__(self, first: TrainedRun, samples: int, on_progress: Progress) -> None:
        self.base, self._samples, self._progress = first.base, samples, on_progress
        self._max_length = first.config.max_length
        self._fields: dict[tuple[str, Site], FloatArray] = {}
        self._power: dict[Site, FloatArray] = {}
        self._answers: dict[str, list[Sample]] = {}

    def field_of(self, run: RecordedRun) -> FloatArray:
        """The gradient field of a run's own answers at every layer, (n_layers, H)."""
        if run.tone not in self._answers:
            self._answers[run.tone] = self._encoded(run.config.data, run.config.answer_column)
        return self._field(run.tone, run.recording.about.site)

    def neutral_field(self, site: Site) -> FloatArray:
        """That of the neutral answers, which are of no run's tone."""
        self._neutral()
        return self._field(NEUTRAL, site)

    def features(self, layers: Sequence[int], site: Site) -> dict[str, FloatArray]:
        """See base_features."""
        if site not in self._power:
            self._power[site] = stream_power(self.base, self._neutral(), site)
        return base_features(self.base, self._power[site], layers, site)

    def split(self, marks: Sequence[int]) -> dict[str, Any]:
        """How the gradient field of each tone and site goes: see described_channels. Raises BaseModelError where the base has norms
        that it cannot be parted by."""
        layers, found = tuple(range(self.base.n_layers)), {}
        for (tone, site), field in list(self._fields.items()):
            if tone.endswith(_SHUFFLED):
                continue

            def report(done: int, of: int, _what: str, tone: str = tone) -> None:
                self._progress(done, of, f"direct, or through denominators: {tone}")

            parts = gradient_split(self.base, self._answers[tone], layers, site, whole=field, on_progress=report)
            found[f"{tone} ({site})"] = described_channels(parts, self.features(layers, site)["residual RMS"], marks)
        return found

    def described(self) -> dict[str, Any]:
        """Striation of the gradient fields: of the runs' answers, of neutral ones, and of answers with their tokens shuffled."""
        sites: Iterable[Site] = sorted({site for _, site in self._fields})
        for site in sites:
            self.neutral_field(site)
            tone = next(tone for tone, where in self._fields if where == site)
            self._answers[tone + _SHUFFLED] = shuffled(self._answers[tone])
            self._field(tone + _SHUFFLED, site)
        return {
            f"{tone} ({site})": {"cosines": cosines(field).to_dict(), "two_way": two_way(layer_normalised(field)).to_dict()}
            for (tone, site), field in self._fields.items()
        }

    def _neutral(self) -> list[Sample]:
        if NEUTRAL not in self._answers:
            self._answers[NEUTRAL] = self._encoded(NEUTRAL, "answer")
        return self._answers[NEUTRAL]

    def _encoded(self, data: str, answer_column: str) -> list[Sample]:
        examples = load_dataset(data, answer_column).train[: self._samples]
        return encode_all(self.base.tokenizer, examples, self._max_length)[0]

    def _field(self, answers: str, site: Site) -> FloatArray:
        def report(done: int, of: int, _what: str) -> None:
            self._progress(done, of, f"the base's gradient field, {answers}")

        if (answers, site) not in self._fields:
            layers = tuple(range(self.base.n_layers))
            self._fields[answers, site] = gradient_field(self.base, self._answers[answers], layers, site, report)
        return self._fields[answers, site]
