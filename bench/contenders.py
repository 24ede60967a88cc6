"""The three that are measured, behind one interface: measure(case, seconds) -> figures."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
START_SECONDS = 60
STOP_SECONDS = 20


@dataclass(frozen=True)
class Case:
    """One kind of load. NONCE in the code becomes a new word in each request."""

    name: str
    title: str
    clients: int
    think: float = 0.0
    code: str = 'print("NONCE")'
    preload: tuple = ()
    # Runs of seconds need a longer look than runs of milliseconds.
    stretch: dict = field(default_factory=dict)


class BenchError(Exception):
    """What kept the benchmark from measuring, in one sentence."""


def run_json(command, seconds):
    """Run a measuring command that is bounded in time and return what it printed."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=seconds + 90, check=True)
    except (subprocess.SubprocessError, OSError) as e:
        raise BenchError(f"measuring: {e}") from e
    return json.loads(done.stdout)


class Limit:
    name = "limit"

    def __init__(self, python, cores):
        self.python = python
        self.cores = cores

    def measure(self, case, seconds):
        command = [self.python, str(HERE / "limit.py"), "--seconds", str(seconds), "--warmup", "0.5"]
        command += ["--processes", str(min(case.clients, self.cores)), "--think", str(case.think)]
        command += ["--code", case.code]
        if case.preload:
            command += ["--preload", *case.preload]
        return run_json(command, seconds)


class Server:
    """A server on a loopback port of its own, and the load that it is put under."""

    def __init__(self, name, load):
        self.name = name
        self.load = load
        self.process = None
        self.log = None

    def start(self, command, port, log, env=None):
        self.port = port
        self.log = log
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env
            )
        try:
            self._await_health()
        except BaseException:
            self.stop()
            raise
        return self

    def _await_health(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended with status {self.process.returncode}:\n{self.log_tail()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except OSError:
                pass  # not listening yet, or 503: URLError is an OSError
            time.sleep(0.05)
        raise BenchError(f"{self.name} was not ready within {START_SECONDS} s:\n{self.log_tail()}")

    def log_tail(self):
        return self.log.read_text(errors="replace")[-2000:]

    def measure(self, case, seconds):
        warmup = 0.5 * case.stretch.get(self.name, 1)
        return run_json(
            [self.load, "-address", f"127.0.0.1:{self.port}", "-clients", str(case.clients)]
            + ["-duration", f"{seconds}s", "-warmup", f"{warmup}s", "-think", f"{case.think}s"]
            + ["-code", case.code],
            seconds + warmup,
        )

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def spawn(python, load, folder):
    port = free_port()
    command = [python, str(HERE / "spawn.py"), "--port", str(port)]
    # uvicorn's workers import the application by name, from where it lies.
    env = dict(os.environ, PYTHONPATH=str(HERE))
    return Server("spawn", load).start(command, port, folder / f"spawn-{port}.log", env)


# The defaults of the product, but for the words that a case needs.
CADDYFILE = """{{
	admin off
	auto_https off
	persist_config off
}}
http://:{port} {{
	bind 127.0.0.1
	route {{
		python_sandbox {{
			python {python}
			{preload}
			{workers}
			{isolation}
		}}
	}}
}}
"""


@dataclass(frozen=True)
class Ours:
    """How to start the sandbox, again and again with other settings."""

    caddy: str
    python: str
    load: str
    folder: pathlib.Path
    isolation: str = ""

    def start(self, preload=(), **workers):
        port = free_port()
        config = self.folder / f"Caddyfile-{port}"
        words = "\n".join(f"\t\t\t\t{word} {value}" for word, value in workers.items())
        config.write_text(
            CADDYFILE.format(
                port=port,
                python=self.python,
                preload=f"preload {' '.join(preload)}" if preload else "",
                workers=f"workers {{\n{words}\n\t\t\t}}" if workers else "",
                isolation=f"isolation {self.isolation}" if self.isolation else "",
            )
        )
        # Nothing of the bench may land in the user's own Caddy directories.
        env = dict(os.environ, XDG_DATA_HOME=str(self.folder), XDG_CONFIG_HOME=str(self.folder))
        command = [self.caddy, "run", "--config", str(config), "--adapter", "caddyfile"]
        return Server("ours", self.load).start(command, port, self.folder / f"ours-{port}.log", env)

    def version(self):
        try:
            done = subprocess.run([self.caddy, "version"], capture_output=True, text=True, timeout=20, check=True)
        except (subprocess.SubprocessError, OSError) as e:
            print(f"bench: {self.caddy} version: {e}", file=sys.stderr)
            return "unknown"
        return done.stdout.strip()
