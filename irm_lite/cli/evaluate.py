"""irm-lite eval"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from irm_lite.cli.output import Common, Output


def evaluate(
    run: Path,
    /,
    *,
    gguf: str | None = None,
    vector: Annotated[list[str] | None, Parameter(negative="")] = None,
    layers: str | None = None,
    common: Common | None = None,
) -> None:
    """Measure a run on its held-out answers: NLL, KL and the fidelity of its vector.

    Parameters
    ----------
    run
        The run directory.
    gguf
        A model file, to measure base and vector in llama.cpp too [default: the base's own, if it has one].
    vector
        A control vector as PATH or PATH:SCALE; several add up [default: RUN/export/vector.gguf].
    layers
        Only these blocks of the vector, as in 10-20.
    """
    output = Output(common)
    from irm_lite.control_vector import load_sum
    from irm_lite.errors import VectorError
    from irm_lite.evaluation import evaluate_run
    from irm_lite.layers import parse_layers
    from irm_lite.presets import find_gguf
    from irm_lite.trained import load_run

    trained = load_run(run)
    names = vector or [str(trained.directory.default_vector)]
    if not vector and not trained.directory.default_vector.exists():
        raise VectorError(f"{run} has no vector yet", f"irm-lite export {run}, or name one with --vector")
    chosen = load_sum(names)
    assert chosen is not None
    if layers is not None:
        chosen = chosen.select(parse_layers(layers, trained.fingerprint.n_layers, first=1))
    result = evaluate_run(trained, chosen, find_gguf(gguf) if gguf else None, on_stage=output.note)
    comparison, in_llamacpp = result.comparison, result.llamacpp
    for warning in filter(None, [*trained.warnings, result.warning]):
        output.warn(warning)
    table = Table()
    table.add_column("")
    table.add_column("transformers", justify="right")
    table.add_column("llama.cpp", justify="right")
    table.add_row("base", f"{comparison.nll_base:.3f}", f"{in_llamacpp.nll_base:.3f}" if in_llamacpp else "-")
    table.add_row("IRM", f"{comparison.nll_irm:.3f}", "-")
    table.add_row("vector", f"{comparison.nll_vector:.3f}", f"{in_llamacpp.nll_vector:.3f}" if in_llamacpp else "-")
    output.result(
        {"fidelity": comparison.fidelity, "run": str(run), "vectors": names, **result.to_dict()},
        f"NLL of the held-out answers, nats a token ({comparison.tokens} tokens)",
        table,
        f"KL(IRM || base) {comparison.kl_irm_base:.3f}, KL(IRM || vector) {comparison.kl_irm_vector:.3f}: "
        f"fidelity {comparison.fidelity:.3f}",
    )
