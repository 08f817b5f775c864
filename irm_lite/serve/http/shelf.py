"""What requests can be steered by, by name: what was given at the start, and what is loaded from the folder."""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from irm_lite.core.errors import InputError, IrmLiteError, LayerError, LlamaCppError, VectorError
from irm_lite.core.files.paths import is_utf8
from irm_lite.llamacpp import Model
from irm_lite.llamacpp.adapters import LoadedAdapter, Scaled, free
from irm_lite.serve.http.errors import ApiError, told
from irm_lite.serve.http.names import NAME
from irm_lite.serve.http.pictures import picture
from irm_lite.serve.http.schema import Item
from irm_lite.serve.http.sources import Source, Steering
from irm_lite.steering.control_vector import ControlVector, parse_vector_argument, require_scale
from irm_lite.steering.layers import choose_layers, format_layers
from irm_lite.steering.steering_file import is_adapter

Between = Callable[[Callable[[], Any]], Any]  # calls something where the model is not at work, and gives its result

_SUMS = 64  # of vectors that were asked for together, so that the same request finds the same sum
_MOST = 256  # names


_Part = tuple[Source, tuple[float, tuple[int, ...]]]  # with its scale and layers


def _at_once(work: Callable[[], Any]) -> Any:
    return work()


class Shelf:
    """Everything by its name. `folder`: the only place that clients may load from."""

    def __init__(self, model: Model, folder: Path | None = None) -> None:
        """Raises InputError where the folder is none."""
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder} is not a folder", "name the folder that holds vectors and adapters")
        self.defaults: tuple[Item, ...] = ()
        self._model, self._fingerprint, self._folder = model, model.fingerprint, folder
        self._sources: dict[str, Source] = {}
        self._numbers = count()
        self._sums: OrderedDict[tuple[Any, ...], ControlVector] = OrderedDict()
        self._left: deque[Any] = deque()  # handles of adapters that nobody has any more

    @property
    def names(self) -> list[str]:
        """All that can be asked for."""
        return list(self._sources)

    @property
    def irms(self) -> set[int]:
        """The numbers of the IRMs among them."""
        return {source.number for source in list(self._sources.values()) if source.irm is not None}

    def add_vector(self, name: str, argument: str) -> Source:
        """A vector PATH[:SCALE]; the scale becomes 1 under this name. Raises VectorError where it does not fit."""
        path, scale = parse_vector_argument(argument)
        vector = ControlVector.load(path)
        vector = vector if scale == 1.0 else vector * scale
        match = vector.require_fit(self._fingerprint, self._model.path.name)
        return self._add(Source(name, next(self._numbers), path.name, vector.layers, match, vector=vector))

    def add_irm(self, name: str, run: str) -> Source:
        """The IRM of a run directory. Raises RunError or VectorError."""
        from irm_lite.core.files.paths import expanded
        from irm_lite.runs.trained import load_run  # torch, which vectors do not wait for
        from irm_lite.steering.injection_checks import require_shape

        trained = load_run(expanded(run))
        match = trained.match(self._fingerprint, self._model.path.name)
        require_shape(trained.irm, self._fingerprint.n_layers, self._fingerprint.hidden_size)
        return self._add(Source(name, next(self._numbers), Path(run).name, trained.irm.layers, match, irm=trained.irm))

    def add_adapter(self, name: str, argument: str, between: Between = _at_once) -> Source:
        """A LoRA adapter PATH[:SCALE], as `add_vector`. Its memory is free again some time after nobody is steered by it."""
        path, scale = parse_vector_argument(argument)
        self._require_name(name)  # before llama.cpp has it

        def part_of_llamacpp(work: Callable[[], Any]) -> Any:
            def loaded() -> Any:
                while self._left:
                    free(self._left.popleft())
                return work()

            return between(loaded)

        adapter = LoadedAdapter(self._model, path, part_of_llamacpp)
        adapter.leave_to(self._left.append)
        return self._add(Source(name, next(self._numbers), path.name, (), adapter.match, adapter=adapter, factor=scale))

    def load(self, file: str, name: str | None, kind: str | None, between: Between) -> Source:
        """A vector or an adapter of the folder; without `kind` what the file says it is. Raises ApiError."""
        path = self._in_folder(file)
        self._require_no_default(name or path.stem)  # it may have other layers, or none
        try:
            kind = kind or ("adapter" if is_adapter(path) else "vector")
            if kind == "adapter":
                return self.add_adapter(name or path.stem, f"{path}:1", between)
            return self.add_vector(name or path.stem, f"{path}:1")
        except IrmLiteError as error:
            code = f"{kind or 'vector'}_does_not_fit" if isinstance(error, VectorError | LlamaCppError) else "invalid_name"
            raise ApiError(400, code, str(error).replace(f"{path}", path.name), "file") from None

    def unload(self, name: str) -> None:
        """Forget a name; answers that are being written go on. Raises ApiError."""
        if name not in self._sources:
            raise self._unknown(name)
        self._require_no_default(name)
        del self._sources[name]
        self._sums.clear()

    def files(self) -> list[str]:
        """The vectors and adapters of the folder by file name, loaded or not."""
        if self._folder is None:
            return []
        names = (each.name for each in self._folder.glob("*.gguf") if each.is_file())
        return sorted(name for name in names if is_utf8(name))[:_MOST]  # others no JSON can say

    def documents(self) -> list[dict[str, Any]]:
        """What clients are told of all of it."""
        return [source.document() for source in list(self._sources.values())]  # names are loaded meanwhile

    def picture(self, name: str) -> dict[str, Any]:
        """What clients are told of one, with `rows`: of each layer of a vector the strongest value of at most 192 stretches
        of indices. Those of an IRM and of an adapter depend on the text, and are empty. Raises ApiError."""
        if name not in self._sources:
            raise self._unknown(name)
        source = self._sources[name]
        return {"rows": [], **source.document(), **((source.vector and picture(source.vector.directions)) or {})}

    def set_defaults(self, items: Sequence[Item]) -> None:
        """What steers requests that name nothing. Raises ApiError."""
        self.resolve(items)
        self.defaults = tuple(items)

    def resolve(self, items: Sequence[Item]) -> Steering:
        """What these names, scales and layers amount to. Raises ApiError."""
        sources = [self._source(item) for item in items]
        scaled = [self._checked(item, source) for item, source in zip(items, sources, strict=True)]
        shown = tuple(
            {"name": source.name, "scale": scale, **({"layers": format_layers(layers)} if layers else {})}
            for source, (scale, layers) in zip(sources, scaled, strict=True)
        )
        networks = [at for at, source in enumerate(sources) if source.irm is not None]
        if networks and len(items) > 1:
            raise ApiError(
                400,
                "steering_conflict",
                f"{items[networks[0]].name} is an IRM, which steers alone: ask for it by itself",
                "steering",
            )
        if networks:
            return Steering(shown, irm=sources[0], strength=scaled[0][0], layers=scaled[0][1])
        if not items:
            return Steering()
        parts = list(zip(sources, scaled, strict=True))
        vector = self._sum([each for each in parts if each[0].vector is not None])
        adapters = _added(parts)
        return Steering(shown, vector, layers=vector.layers if vector is not None else (), adapters=adapters)

    def _sum(self, parts: list[_Part]) -> ControlVector | None:
        """The vectors' sum, in their order: the same object each time it is asked for; of none: None."""
        key = tuple((source.number, *each) for source, each in parts)
        if key in self._sums:
            self._sums.move_to_end(key)
            return self._sums[key]
        total: ControlVector | None = None
        try:
            for source, (scale, layers) in parts:
                assert source.vector is not None
                chosen = source.vector if layers == source.layers else source.vector.select(layers)
                each = chosen if scale == 1.0 else chosen * scale
                total = each if total is None else total + each
        except VectorError as error:
            raise told(error, "scale_out_of_range", "steering") from None
        if total is None:
            return None
        self._sums[key] = total
        while len(self._sums) > _SUMS:
            self._sums.popitem(last=False)
        return total

    def _source(self, item: Item) -> Source:
        if item.name not in self._sources:
            raise self._unknown(item.name)
        return self._sources[item.name]

    def _checked(self, item: Item, source: Source) -> tuple[float, tuple[int, ...]]:
        """Its scale and layers."""
        try:
            scale = require_scale(item.scale, f" of {item.name}")
        except VectorError as error:
            raise told(error, "scale_out_of_range", "steering") from None
        if item.layers is None:
            return scale, source.layers
        if source.adapter is not None:
            raise ApiError(400, "no_layers", f"{item.name} is an adapter, which works whole: leave layers out", "steering")
        try:
            first = 0 if source.irm is not None else 1
            return scale, choose_layers(item.layers, self._fingerprint.n_layers, source.layers, item.name, first)
        except LayerError as error:
            raise told(error, "layers_out_of_range", "steering") from None

    def _unknown(self, name: str) -> ApiError:
        known = ", ".join(self._sources) or "nothing"
        return ApiError(400, "unknown_steering", f"nothing called {name[:80]!r} is loaded: there is {known}", "steering")

    def _add(self, source: Source) -> Source:
        self._require_name(source.name)
        self._sources[source.name] = source
        return source

    def _require_no_default(self, name: str) -> None:
        if any(item.name == name for item in self.defaults):
            raise ApiError(409, "in_use", f"{name} is one of the defaults: change them first (POST /v1/steering)", "name")

    def _require_name(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise InputError(f"{name[:80]!r} cannot be a name", "use up to 64 letters, digits, '.', '_' and '-'")
        if len(self._sources) >= _MOST and name not in self._sources:
            raise InputError(f"{_MOST} names are loaded", "unload one first")

    def _in_folder(self, file: str) -> Path:
        """The file's path. Raises ApiError where it is not one that lies in the folder itself."""
        if self._folder is None:
            raise ApiError(403, "no_folder", "this server was started without a folder of vectors (--vectors-folder)", "file")
        # Of what the folder lists, so that no text of a client is ever made a path; what a link leads to must lie there too.
        for path in self._folder.glob("*.gguf"):
            if path.name == file and path.is_file() and path.resolve().parent == self._folder.resolve():
                return path
        listed = ", ".join(self.files()[:20]) or "none"
        raise ApiError(404, "not_in_folder", f"there is no {file[:80]!r} in the folder of vectors: it has {listed}", "file")


def _added(parts: list[_Part]) -> tuple[Scaled, ...]:
    """The adapters with their scales: llama.cpp takes each once."""
    scales: dict[LoadedAdapter, float] = {}
    for source, (scale, _) in parts:
        if source.adapter is not None:
            scales[source.adapter] = scales.get(source.adapter, 0.0) + scale * source.factor
    return tuple(scales.items())
