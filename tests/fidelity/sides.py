"""The two sides of a comparison: a program inside the sandbox, and the same program as a plain process.

Both get the same interpreter, environment, resource limits, an empty network with loopback, an unprivileged id and a
/tmp of their own. What then differs is what the sandbox adds.
"""

import ctypes
import json
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

HERE = pathlib.Path(__file__).resolve().parent
START_SECONDS = 60
STOP_SECONDS = 20
# What an answer may take beyond the program's own time.
ANSWER_SECONDS = 30


class FidelityError(Exception):
    """What kept a side from running, in one sentence."""


@dataclass
class Outcome:
    """What one program did."""

    stdout: str
    stderr: str
    exit_code: int
    status: str  # as /execute says it: ok, error, timeout, ...
    seconds: float


@dataclass(frozen=True)
class Limits:
    """Bounds of both sides. Generous, for what is compared is behaviour, not the limits."""

    memory_mib: int = 2048
    processes: int = 300  # a test has a pool of 200
    open_files: int = 1024
    scratch_mib: int = 5120  # a test seeks beyond 4 GiB, and both sides stop files at this size

    def rlimits(self):
        """As pool/internal/confine/plan.go sets them: name -> value."""
        return {
            "RLIMIT_CORE": 0,
            "RLIMIT_FSIZE": self.scratch_mib << 20,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_DATA": 2 * self.memory_mib << 20,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_NPROC": self.processes,
        }

    def words(self):
        return (
            f"memory {self.memory_mib}MiB\n processes {self.processes}\n"
            f"open_files {self.open_files}\n scratch {self.scratch_mib}MiB\n output 1000000"
        )


CADDYFILE = """{{
	admin off
	auto_https off
	persist_config off
}}
http://:{port} {{
	bind 127.0.0.1
	python_sandbox {{
		python {python}
		workers {{
			idle 1
			max 2
			templates 1
		}}
		limits {{
			execute_timeout 30s 600s
			{limits}
		}}
		mcp off
	}}
}}
"""


class Inside:
    """A Caddy of our own, and programs posted to it. As a context manager it ends with its block."""

    def __init__(self, caddy, python, folder, limits=None):
        """limits=None leaves the product's defaults."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = folder / "caddy.log"
        caddyfile = folder / "Caddyfile"
        words = limits.words() if limits else ""
        caddyfile.write_text(CADDYFILE.format(port=self.port, python=python, limits=words))
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                [caddy, "run", "--config", caddyfile, "--adapter", "caddyfile"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )
        try:
            self._await_health()
        except BaseException:
            self.stop()
            raise

    def _await_health(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)
        raise FidelityError(f"the sandbox did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    def run(self, code, seconds):
        body = json.dumps({"code": code, "timeout": seconds}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/execute", body)
        begin = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=seconds + ANSWER_SECONDS) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as e:
            raise FidelityError(f"/execute answered {e.code}: {e.read()[:2000]!r}") from e
        except OSError as e:
            raise FidelityError(f"/execute did not answer: {e}") from e
        took = time.monotonic() - begin
        return Outcome(answer["stdout"], answer["stderr"], answer["exit_code"], answer["status"], took)

    def stop(self):
        if self.process.poll() is not None:
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


PR_SET_CHILD_SUBREAPER = 36
# What the template gives to user code (pool/template.go), less what only tunes the preload.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8",
    "USER": "sandbox", "LOGNAME": "sandbox",
}


class Plain:
    """`python main.py`, under plain.py, which takes rights and network away."""

    def __init__(self, python, prefixes, limits):
        self.python = python
        self.prefixes = prefixes
        self.limits = limits
        # Orphans of a program come to us, and can be ended with it.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self, code, seconds):
        others = set(children())
        begin = time.monotonic()
        spec = json.dumps({
            "python": self.python, "prefixes": self.prefixes, "environment": ENVIRONMENT,
            "rlimits": self.limits.rlimits(), "tmp_mib": self.limits.scratch_mib, "code": code,
        })
        process = subprocess.Popen(
            [sys.executable, "-I", HERE / "plain.py"], start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        process.stdin.write(spec.encode())
        process.stdin.close()
        # A grandchild may hold the pipes open after the program has ended, so their end is not waited for.
        output = {}
        readers = [
            threading.Thread(target=lambda name=name: output.update({name: getattr(process, name).read()}))
            for name in ("stdout", "stderr")
        ]
        for reader in readers:
            reader.start()
        try:
            exit_code = process.wait(seconds)
            status = "ok" if exit_code == 0 else "error"
        except subprocess.TimeoutExpired:
            exit_code, status = 124, "timeout"
        finally:  # when we are stopped, too
            took = time.monotonic() - begin
            end_children(others)
            process.wait()
        for reader in readers:
            reader.join()
        if exit_code < 0:
            exit_code, status = 128 - exit_code, "killed"
        text = {name: data.decode(errors="replace") for name, data in output.items()}
        if exit_code == 127 and "plain.py:" in text["stderr"]:
            raise FidelityError(text["stderr"].strip())
        return Outcome(text["stdout"], text["stderr"], exit_code, status, took)


def children():
    pids = []
    for task in os.listdir("/proc/self/task"):
        try:
            pids += (int(pid) for pid in pathlib.Path(f"/proc/self/task/{task}/children").read_text().split())
        except OSError:
            pass  # a thread that has ended
    return pids


def end_children(others):
    """End every process below this one that was not there before; each that dies hands its own children to us."""
    while strangers := set(children()) - others:
        for pid in strangers:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def resolve(python):
    """Return the interpreter behind shims: its path, version, and the directories that it needs."""
    ask = "import json, sys; print(json.dumps([sys.executable, sys.version.split()[0], sorted({sys.prefix, sys.base_prefix})]))"
    try:
        done = subprocess.run([python, "-c", ask], stdout=subprocess.PIPE, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as e:
        raise FidelityError(f"asking {python} what it is: {e}") from e
    return json.loads(done.stdout)


def token():
    """A word that no test prints by chance."""
    return f"fidelity-{secrets.token_hex(8)}"
