"""Ways to steer on the same base, data, questions and score, each at its best strength, which is chosen on validation.

python benchmarks/steering.py [--model demo|FILE.gguf] [--data anger] [--seeds 0,1,2] [--methods a,b] --json FILE
python benchmarks/steering.py --table FILE [FILE ...]

Each method is tried with two or three rates (choices of layers, phrasings) on the first seed; the one that scores best on 20
validation questions, greedy, is taken for all seeds. Then its strength is chosen there, up or down from the one that it was
trained at as long as the score rises, and is taken for all seeds too. The table has the score of the test questions, its
parts, the NLL of the tone's answers, the KL to the base on 24 neutral ones, the seconds of training (of the chosen rate alone)
and trained parameters. Methods with a star run in transformers (their edits have no counterpart in llama.cpp) on the base in 4
bits as it was trained, and are scored beside that base; the others in llama.cpp on the file. Results are kept in the JSON as they
are made: a run that was stopped goes on where it was, with the same flags; more seeds and methods can be added. Runs of
irm_lite's own lie in FILE.runs.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from irm_lite.core.errors import EXIT_INTERRUPTED, InputError, IrmLiteError
from irm_lite.core.files.atomic import require_folder
from irm_lite.core.visible_text import safe
from steering_methods.arena import Arena, Extents
from steering_methods.measuring import Judge, measure
from steering_methods.method import Method
from steering_methods.methods import BY_NAME, USUAL
from steering_methods.store import Store, read_document
from steering_methods.table import markdown


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    try:
        if options.table:
            print("\n\n".join(markdown(read_document(path)) for path in options.table))
            return
        print(markdown(compare(options).document))
    except IrmLiteError as error:
        print(f"steering.py: {safe(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        kept = f"; what was measured is in {options.json}, the same command goes on" if options.json else ""
        print(f"steering.py: stopped{kept}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--model", default="demo", help="demo, or a .gguf file")
    found.add_argument("--data", default="anger", help="a shipped tone, or a file")
    found.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    found.add_argument("--methods", type=names, default=list(USUAL), help=f"of {', '.join(BY_NAME)}")
    found.add_argument("--questions", type=int, help="test questions (all)")
    found.add_argument("--choices", type=int, default=Extents.choices, help="multiple-choice questions at most (108)")
    found.add_argument("--steps", type=int, default=Extents.steps, help="optimiser steps of each training (100)")
    found.add_argument("--variants", type=int, help="rates and the like that are tried of each method at most (all)")
    found.add_argument("--prompt", help="the system prompt, in place of those that are known for the shipped tones")
    found.add_argument("--json", type=Path, help="where results are kept, and gone on with")
    found.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="print the tables of such files, and nothing else")
    return found


def numbers(text: str) -> list[int]:
    return list(dict.fromkeys(int(each) for each in text.split(",")))


def names(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


def compare(options: argparse.Namespace) -> Store:
    """All that the store does not have yet. Raises InputError for what the user gave."""
    unknown = [name for name in options.methods if name not in BY_NAME]
    if unknown:
        raise InputError(f"there is no method {unknown[0]!r}", f"choose of {', '.join(BY_NAME)}")
    if options.steps < 1 or options.choices < 0 or (options.questions or 1) < 1 or (options.variants or 1) < 1:
        raise InputError("--steps, --questions, --choices or --variants makes no sense", "give 1 or more")
    extents = Extents(options.questions, options.choices, options.steps)
    if options.json:
        require_folder(options.json.parent)
    settings = ("model", "data", "questions", "choices", "steps", "prompt")
    store = Store(options.json, {name: getattr(options, name) for name in settings})
    with _work(options.json) as work:
        arena = Arena(options.model, options.data, extents, work, options.prompt)
        try:
            _all(Judge(arena, store, say), [BY_NAME[name] for name in options.methods], options)
        finally:
            arena.close()
    return store


def _all(judge: Judge, methods: list[Method], options: argparse.Namespace) -> None:
    arena, store = judge.arena, judge.store
    store.document["left_out"] = {}
    jobs: list[tuple[Method, int]] = []
    for method in methods:
        if reason := method.left_out(arena):
            say(f"{method.name} is left out: {reason}")
            store.leave_out(method.name, reason)
            continue
        jobs += [(method, seed) for seed in (options.seeds if method.seeded else options.seeds[:1])]
    waiting = [(method, seed) for method, seed in jobs if store.result(method.name, seed) is None]
    say(f"{len(jobs)} results, {len(jobs) - len(waiting)} of them known")
    began = time.monotonic()
    for done, (method, seed) in enumerate(waiting):
        say(f"{done + 1} of {len(waiting)}: {method.name}, seed {seed}")
        try:
            found = measure(judge, method, seed, options.variants)
        except IrmLiteError as error:
            say(f"{method.name}, seed {seed} failed: {error}")
            store.keep_failure(method.name, seed, str(error))
            continue
        store.keep_result(found)
        left = (time.monotonic() - began) / (done + 1) * (len(waiting) - done - 1)
        value = "no score" if found.score.value is None else f"score {found.score.value:.2f}"
        say(f"{method.name}, seed {seed}: {value} in {found.whole_seconds:.0f} s; about {left / 3600:.1f} h left")


@contextmanager
def _work(kept: Path | None) -> Iterator[Path]:
    """Where runs lie: beside the results, or nowhere that lasts."""
    if kept is not None:
        yield kept.with_name(kept.name + ".runs")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def say(text: str) -> None:
    print(safe(text), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
