"""The limit: fork, run the code, read what it printed, wait. Nothing else.

One loop per core in a preloaded process, with no isolation and no HTTP. A
server that hands each request a fresh process cannot be faster than this for
long, so its rate is the yardstick that the sandbox is measured against.
"""

import argparse
import gc
import importlib
import json
import os
import sys
import time

# The sandbox's template is single-threaded too: forking beside BLAS threads
# would make the limit slower than it has to be.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def run_once(source):
    """Run source in a forked child and return what it wrote to stdout."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            os.dup2(writer, 1)
            os.close(writer)
            exec(compile(source, "main.py", "exec"), {"__name__": "__main__"})
            sys.stdout.flush()
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    chunks = []
    while chunk := os.read(reader, 65536):
        chunks.append(chunk)
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    return b"".join(chunks), status


def loop(args, seed, start_line):
    """Run until the time is over; return the latencies and the wrong answers."""
    for name in args.preload:
        importlib.import_module(name)
    # The first compile() of a process builds the types of the syntax tree, a
    # millisecond that every child would pay again. The sandbox's template has
    # long compiled something when it forks, so the limit has too.
    compile(args.code, "main.py", "exec")
    gc.collect()
    gc.freeze()
    # Ready: wait for the others, so that all loops load the machine together.
    start_line.ready()
    begin = time.perf_counter() + args.warmup
    end = begin + args.seconds
    latencies, wrong, serial = [], 0, 0
    while True:
        nonce = f"{seed:04x}{serial:08x}"
        serial += 1
        source = args.code.replace("NONCE", nonce)
        started = time.perf_counter()
        if started >= end:
            break
        stdout, status = run_once(source)
        done = time.perf_counter()
        if status != 0 or stdout != nonce.encode() + b"\n":
            wrong += 1
        elif begin <= done < end:
            latencies.append(done - started)
        if args.think:
            time.sleep(args.think)
    return latencies, wrong


class StartLine:
    """Every loop says that it is ready, then waits until all of them are."""

    def __init__(self):
        self.arrivals = os.pipe()
        self.gate = os.pipe()

    def ready(self):
        os.write(self.arrivals[1], b".")
        os.close(self.gate[1])
        os.read(self.gate[0], 1)

    def release(self, count):
        os.close(self.arrivals[1])
        for _ in range(count):
            if not os.read(self.arrivals[0], 1):
                raise RuntimeError("a loop ended before it was ready")
        os.close(self.gate[1])


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warmup", type=float, default=0.3, help="seconds that do not count")
    parser.add_argument("--think", type=float, default=0.0, help="seconds between two runs")
    parser.add_argument("--preload", nargs="*", default=[], help="modules to import first")
    parser.add_argument("--code", default='print("NONCE")', help="NONCE becomes new in each run")
    args = parser.parse_args()

    start_line = StartLine()
    results = []
    for number in range(args.processes):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            answer = json.dumps(loop(args, number, start_line)).encode()
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(answer)
            os._exit(0)
        os.close(writer)
        results.append(reader)
    start_line.release(args.processes)

    latencies, wrong = [], 0
    for reader in results:
        with os.fdopen(reader, "rb") as pipe:
            part, bad = json.loads(pipe.read())
        latencies += part
        wrong += bad
        os.wait()
    latencies.sort()
    figures = {
        "clients": args.processes,
        "runs": len(latencies),
        "seconds": args.seconds,
        "runs_per_second": len(latencies) / args.seconds,
        "errors": 0,
        "wrong": wrong,
    }
    if latencies:
        figures["p50_ms"] = percentile(latencies, 0.50) * 1000
        figures["p99_ms"] = percentile(latencies, 0.99) * 1000
        figures["max_ms"] = latencies[-1] * 1000
    json.dump(figures, sys.stdout)
    print()


if __name__ == "__main__":
    main()
