"""What the HTTP server costs: tokens a second of `irm-lite serve --http` against a plain server on the same model, paired.

python benchmarks/http_server.py --plain python [--gguf demo] [--clients 1 4] [--json FILE]
python benchmarks/http_server.py --plain /path/to/llama-server

`--plain python` is llama-cpp-python's own server (pip install 'llama-cpp-python[server]'); anything else is the path of a stock
llama-server. Both servers hold the model at once and are asked in turn, the same questions, greedy, the one that is asked first
changing from round to round; the ratio is of the two rates of one round. `cpu` is the same of the processor's seconds that the
servers took, which other work on the machine disturbs less. Each question begins otherwise, so that no server can use its cache of
another (llama-cpp-python's always does where it can; llama-server is told not to). With --vector also what another strength in each
request costs, against the same strength: the time to the first token, less the prompt's evaluation, which both pay.
"""

import argparse
import json
import platform
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from openai import OpenAI

from irm_lite.base.presets import find_gguf
from irm_lite.core.machine.usable_cores import usable_cores

_MODEL = "m"
_START = 300.0  # seconds for a server to be ready
_SUBJECTS = ("the sea", "bread", "the moon", "a violin", "winter", "iron", "a lighthouse", "tea")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", default="python", help="python, or the path of a llama-server")
    parser.add_argument("--gguf", default="demo")
    parser.add_argument("--vector", help="a control vector, for the cost of another strength")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of the plain server; ours takes all cores")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gguf = find_gguf(options.gguf)
    found: dict[str, Any] = {"cpu": platform.processor() or platform.machine(), "threads": options.threads, "plain": options.plain}
    with ExitStack() as stack:
        ours = stack.enter_context(_ours(gguf, options.context, options.vector))
        plain = stack.enter_context(_plain(options.plain, gguf, options.context, options.threads))
        for clients in options.clients:
            found[f"{clients} clients"] = row = compare(ours, plain, clients, options.tokens, options.rounds)
            rates = f"ours {row['ours']:.1f} tokens/s, plain {row['plain']:.1f}"
            ratios = f"ratio {row['ratio']:.3f} {row['interval']}, by cpu {row['cpu']:.3f} {row['cpu_interval']}"
            print(f"{clients} clients: {rates}, {ratios}")
        if options.vector:
            found["another strength"] = row = strengths(ours.client, options.rounds * 4)
            print(f"another strength: {row['extra_ms']:.2f} ms more to the first token {row['interval']}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


@dataclass(frozen=True)
class Contender:
    """A server that is up."""

    client: OpenAI
    process: psutil.Process

    def seconds(self) -> float:
        """The processor's, until now."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def compare(ours: Contender, plain: Contender, clients: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Medians of both rates and of their ratio in a round, by the clock and by the processor's time, with bootstrap intervals."""
    rates: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    for number in range(rounds + 1):
        order = [("ours", ours), ("plain", plain)]
        for name, contender in order if number % 2 else reversed(order):
            rate = _rate(contender, clients, tokens, number)
            if number:  # the first round warms up
                rates[name].append(rate)
    by_clock, by_cpu = (np.array(rates["ours"]) / np.array(rates["plain"])).T
    medians = {name: float(np.median([each[0] for each in found])) for name, found in rates.items()}
    ratios = {"ratio": float(np.median(by_clock)), "interval": _interval(by_clock)}
    cpu = {"cpu": float(np.median(by_cpu)), "cpu_interval": _interval(by_cpu)}
    return {**medians, **ratios, **cpu, "rounds": rates}


def strengths(ours: OpenAI, rounds: int) -> dict[str, Any]:
    """Milliseconds to the first token with another strength each time, less those with the strength of the time before."""
    extra = []
    for number in range(rounds + 1):
        scale = 0.5 + 0.01 * number
        _first(ours, f"{_MODEL}:v@{scale:.2f}", number)
        same = _first(ours, f"{_MODEL}:v@{scale:.2f}", number)
        other = _first(ours, f"{_MODEL}:v@{scale + 0.005:.3f}", number)
        if number:
            extra.append(1000 * (other - same))
    return {"extra_ms": float(np.median(extra)), "interval": _interval(np.array(extra))}


def _rate(contender: Contender, clients: int, tokens: int, number: int) -> tuple[float, float]:
    """Tokens a second of all clients together, each with two questions of its own, by the clock and by the processor's time."""
    subjects = [f"{number} {subject}" for subject in _SUBJECTS[: 2 * clients]]

    def ask(subject: str) -> int:
        system = {"role": "system", "content": f"{subject}: that is what you write stories about."}
        asked: list[Any] = [system, {"role": "user", "content": f"Write a long story about {subject}."}]
        answer = contender.client.chat.completions.create(model=_MODEL, messages=asked, max_tokens=tokens, temperature=0)
        assert answer.usage is not None
        return answer.usage.completion_tokens

    start, worked = time.perf_counter(), contender.seconds()
    with ThreadPoolExecutor(clients) as threads:
        written = sum(threads.map(ask, subjects))
    return written / (time.perf_counter() - start), written / (contender.seconds() - worked)


def _first(client: OpenAI, model: str, number: int) -> float:
    """Seconds to the first token of a streamed answer."""
    start = time.perf_counter()
    asked: list[Any] = [{"role": "user", "content": f"Say {number}."}]
    with client.chat.completions.create(model=model, messages=asked, max_tokens=2, temperature=0, stream=True) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
    return time.perf_counter() - start


def _interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """A bootstrap interval of 95% of the median."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values)))
    return [round(float(each), 3) for each in np.percentile(np.median(drawn, axis=1), [2.5, 97.5])]


@contextmanager
def _ours(gguf: Path, context: int, vector: str | None) -> Iterator[Contender]:
    port = _free_port()
    command = [sys.executable, "-m", "irm_lite", "serve", "--http", "--gguf", str(gguf), "--port", str(port), "--quiet"]
    with _running(
        [*command, "--context", str(context), "--model-name", _MODEL, *(["--vector", f"v={vector}"] if vector else [])], port
    ) as contender:
        yield contender


@contextmanager
def _plain(kind: str, gguf: Path, context: int, threads: int) -> Iterator[Contender]:
    port = _free_port()
    if kind == "python":
        command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--n_ctx", str(context), "--port", str(port)]
        command += ["--n_threads", str(threads), "--n_threads_batch", str(threads), "--verbose", "False", "--model_alias", _MODEL]
    else:
        command = [kind, "-m", str(gguf), "-c", str(4 * context), "-np", "4", "--port", str(port), "-t", str(threads)]
        command += ["--no-cache-prompt", "--alias", _MODEL, "--no-webui"]
    with _running(command, port) as contender:
        yield contender


@contextmanager
def _running(command: list[str], port: int) -> Iterator[Contender]:
    """The process, and a client once it answers."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _await(process, port)
            client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=600)
            yield Contender(client, psutil.Process(process.pid))
        finally:
            process.terminate()


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"a server ended at once (exit code {process.returncode}): try its command by hand")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("a server did not come up")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return int(place.getsockname()[1])


if __name__ == "__main__":
    main()
