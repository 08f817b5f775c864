"""`irm-lite serve --http` as a process: its port, its key, its log, its end."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from irm_lite.cli.main import run as irm_lite
from irm_lite.cli.verbs.serve_http import named
from irm_lite.core.errors import InputError
from irm_lite.serve.http.run import bind, is_loopback
from irm_lite.serve.http.settings import Settings
from support.live_server import PATIENCE


@contextmanager
def serving(arguments: list[str], log: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process, and what it says when it is ready."""
    command = [sys.executable, "-m", "irm_lite", "serve", "--http", "--port", "0", "--json", "--context", "256", *arguments]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **environment})
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line == "}\n":
                    break
            assert lines, log.read_text()
            yield process, json.loads("".join(lines))
        finally:
            process.kill()
            process.wait(PATIENCE)
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("log_prompts", [False, True])
def test_from_start_to_end(llama_gguf: Path, vectors: Path, adapter: Path, run: Path, tmp_path: Path, log_prompts: bool) -> None:
    steering = ["--vector", f"angry={vectors / 'angry.gguf'}", "--vector", f"{vectors / 'sad.gguf'}:0.5", "--irm", f"net={run}"]
    steering += ["--adapter", f"lora={adapter}:0.5"]
    flags = ["--gguf", str(llama_gguf), "--model-name", "tiny", *steering, *(["--log-prompts"] if log_prompts else [])]
    log = tmp_path / "log"
    with serving(flags, log, IRM_LITE_API_KEY="a-long-secret") as (process, ready):
        assert (ready["model"], ready["steering"]) == ("tiny", ["angry", "sad", "lora", "net"])
        client = OpenAI(base_url=ready["url"], api_key="a-long-secret", max_retries=0, timeout=PATIENCE)
        asked: list[Any] = [{"role": "user", "content": "Marzipan"}]
        models = {"tiny", "tiny:angry", "tiny:sad@2", "tiny:net", "tiny:lora@-1"}
        for model in models:
            assert client.chat.completions.create(model=model, messages=asked, max_tokens=4).usage
        stream = client.chat.completions.create(model="tiny", messages=asked, max_tokens=40, stream=True)
        next(iter(stream))
        process.send_signal(signal.SIGTERM)
        assert [each.choices[0].finish_reason for each in stream][-1] in ("stop", "length")  # it may finish what it says
        client.close()
        assert process.wait(PATIENCE) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert [each["event"] for each in lines].count("answer") == 6
    assert {each["model"] for each in lines if each["event"] == "answer"} == models
    assert ("Marzipan" in log.read_text()) is log_prompts
    assert "a-long-secret" not in log.read_text()
    assert not [each for each in lines if each["event"] == "failure"]


def test_a_port_in_use(capsys: pytest.CaptureFixture[str], llama_gguf: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert irm_lite(["serve", "--http", "--gguf", str(llama_gguf), "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 cannot be used" in error
    assert "--port" in error


def test_others_need_a_key() -> None:
    with pytest.raises(InputError, match="no key is set"):
        bind(Settings("tiny", host="0.0.0.0", port=0))
    with bind(Settings("tiny", host="0.0.0.0", port=0, key="a-long-secret")) as listening:
        assert not is_loopback(listening.getsockname()[0])
    assert [is_loopback(each) for each in ("127.0.0.1", "127.8.8.8", "::1", "192.168.0.1", "::")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "9"], "--port is of the HTTP server"),
        (["--http", "--port", "70000"], "there is no port 70000"),
        (["--http", "--contexts", "0"], "--contexts 0 makes no sense"),
        (["--http", "--max-seconds", "nan"], "--max-seconds nan makes no sense"),
        (["--http", "--model-name", "a:b"], "cannot be a model's name"),
        (["--http", "--host", "256.0.0.1", "--port", "0"], "cannot be used"),
        (["--http", "--port", "0", "--api-key-file", "/nowhere"], "the key in /nowhere cannot be read"),
        (["--http", "--port", "0", "--vectors-folder", "/nowhere"], "/nowhere is not a folder"),
        (["--http", "--port", "0", "--vector", "a b=/nowhere"], "nowhere"),
        (["--irm", "a", "--irm", "b"], "one --irm alone"),
    ],
)
def test_flags_that_cannot_be_used(capsys: pytest.CaptureFixture[str], llama_gguf: Path, flags: list[str], said: str) -> None:
    assert irm_lite(["serve", "--gguf", str(llama_gguf), *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_without_the_extra(llama_gguf: Path) -> None:
    script = "import sys; sys.modules['uvicorn'] = None; from irm_lite.cli.main import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "serve", "--http", "--gguf", str(llama_gguf), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "--http needs uvicorn: pip install 'irm-lite[serve]'" in done.stderr


def test_a_short_key_is_none(capsys: pytest.CaptureFixture[str], llama_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short\n")
    assert irm_lite(["serve", "--http", "--gguf", str(llama_gguf), "--port", "0", "--api-key-file", str(tmp_path / "key")]) == 2
    assert "8 or more" in capsys.readouterr().err


def test_names_of_vectors(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.gguf"
    odd.write_bytes(b"")
    assert named("angry=V.gguf:0.8") == ("angry", "V.gguf:0.8")
    assert named("folder/cross.gguf:0.8") == ("cross", "folder/cross.gguf:0.8")
    assert named(str(odd)) == ("a=b", str(odd))
