"""The usual service: FastAPI, and a fresh `python -c` for every request.

It is what a sandbox looks like before anybody makes it fast, written the way
such services are written: uvicorn, a worker process per core, asyncio's
subprocess, and the same JSON in and out as the sandbox. It confines nothing.
"""

import argparse
import asyncio
import os
import socket
import sys
import time

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from uvicorn.supervisors import Multiprocess

app = FastAPI()


class ExecuteRequest(BaseModel):
    code: str
    timeout: float = Field(default=30, gt=0, le=120)
    stdin: str = ""


class ExecuteResponse(BaseModel):
    stdout: str
    stderr: str
    exit_code: int
    execution_time: float
    success: bool
    status: str


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/execute")
async def execute(request: ExecuteRequest) -> ExecuteResponse:
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        request.code,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(request.stdin.encode()), request.timeout)
        exit_code = process.returncode
        status = "ok" if exit_code == 0 else "error"
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        stdout, stderr, exit_code, status = b"", b"", 124, "timeout"
    return ExecuteResponse(
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        exit_code=exit_code,
        execution_time=time.perf_counter() - started,
        success=exit_code == 0,
        status=status,
    )


def serve(port, processes):
    """Run uvicorn as its command line does with --workers, on a socket of our own."""
    # asyncio turns Nagle's algorithm off only where a socket says that it is
    # TCP, and the socket that uvicorn shares between its workers does not: each
    # answer would wait 40 ms for a delayed ACK, and every ratio would flatter us.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.set_inheritable(True)
    config = uvicorn.Config("spawn:app", port=port, workers=processes)
    if processes == 1:
        uvicorn.Server(config).run(sockets=[listener])
    else:
        Multiprocess(config, sockets=[listener]).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    serve(parser.parse_args().port, len(os.sched_getaffinity(0)))
