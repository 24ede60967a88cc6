"""What the clients written in Python do, each by way of a Client of its own.

A program calls main with its client. It reads the names of scenarios, one a line, and says "ok NAME" when one has ended well.
Some wait in their middle for the line "now". The end of its input, or "leave", ends it."""

import asyncio
import base64
import signal
import sys
import time
from dataclasses import dataclass, field

STILL = "print('still here')"
ENDLESS = {"code": "import time\nwhile True: time.sleep(1)", "timeout": 110}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="


@dataclass
class Answer:
    """What a tool answered: the object that is its result, or the words of a refusal."""

    result: dict | None = None
    refusal: str | None = None
    images: list = field(default_factory=list)  # (media type, base64)


class Client:
    """One connection to the sandbox. Those that differ override."""

    large = "x", 5_000_000  # a text and how often it is printed
    refused = (
        ({}, "code is missing"),
        ({"code": "x", "timeout": 121}, "up to 120"),
        ({"code": "x", "timeout": "soon"}, "number of seconds"),
    )

    async def call(self, tool, arguments, progress=None) -> Answer:
        raise NotImplementedError

    async def check_list(self):
        raise NotImplementedError

    async def image(self):
        """What the tool of the fixtures answers that shows an image."""
        raise NotImplementedError

    async def cancel(self, gate):
        """Cancel an endless call when the gate opens."""
        raise NotImplementedError

    async def leave(self):
        """Go away in the middle of a call, if more is to do for that than to end the connection."""

    async def unknown(self):
        """Call a tool that is not there, and return the words of the refusal."""
        raise NotImplementedError

    async def run(self, code, progress=None, **arguments):
        answer = await self.call("execute_python", {"code": code, **arguments}, progress)
        assert answer.refusal is None, answer
        return answer.result


async def call(client):
    got = await client.run("print('Hello, World!')\nprint(f'{2 + 2 = }')", timeout=10)
    assert got["stdout"] == "Hello, World!\n2 + 2 = 4\n" and got["success"] is True, got
    got = await client.run("import sys; print(sys.stdin.read())", stdin="é\u0085\u2028\U0001f600", timeout=2.5)
    assert got["stdout"] == "é\u0085\u2028\U0001f600\n", got
    answer = await client.call("pip_install", {"package": "forbidden-package"})
    assert answer.result["status"] == "blocked", answer


async def odd(client):
    """Characters that end lines elsewhere, NUL, and bytes that are no text: a lone surrogate and a stray one."""
    got = await client.run("print('a\\u0085b\\u2028c\\x00d', '\\U0001f600', flush=True)\n"
                           "import sys; sys.stdout.buffer.write(b'\\xed\\xa0\\x80|\\xff|')")
    text = got["stdout"]
    assert text.startswith("a\u0085b\u2028c\x00d \U0001f600\n") and text.endswith("|") and text.encode(), ascii(text)


async def large(client):
    piece, times = client.large
    got = await client.run(f"print({piece!r} * {times})")
    assert got["stdout"] == piece * times + "\n", len(got["stdout"])


async def picture(client):
    """A program that prints an image: its bytes are no text, and in base64 it comes as it is."""
    got = await client.run(f"import base64, sys\nsys.stdout.buffer.write(base64.b64decode('{PNG}'))\nprint('{PNG}', file=sys.stderr)")
    assert "PNG\r\n\x1a\n" in got["stdout"] and "IEND" in got["stdout"] and got["stdout"].encode(), ascii(got)
    assert got["stderr"] == PNG + "\n", ascii(got)


async def image(client):
    answer = await client.image()
    assert answer.images == [("image/png", PNG)] and base64.b64decode(PNG), answer


async def failure(client):
    got = await client.run("print(1 / 0)")
    assert got["exit_code"] == 1 and "ZeroDivisionError" in got["stderr"] and got["status"] == "error", got
    got = await client.run("import time; print('one', flush=True); time.sleep(9)", timeout=1)
    assert got["exit_code"] == 124 and got["status"] == "timeout" and got["stdout"] == "one\n", got


async def refused(client):
    """What is refused is a tool's error in words, not a failure of the protocol."""
    for arguments, words in client.refused:
        answer = await client.call("execute_python", arguments)
        assert answer.refusal and words in answer.refusal, answer
    assert "no_such_tool" in await client.unknown()


async def together(client):
    start = time.monotonic()
    await asyncio.gather(*(client.run("import time; time.sleep(3)") for _ in range(4)))
    took = time.monotonic() - start
    assert took < 10, took


async def progress(client):
    notes = []
    await client.run("import time; time.sleep(4.5)", notes.append)
    assert notes, "no progress"


async def again(client):
    got = await client.run(STILL)
    assert got["stdout"] == "still here\n", got


async def across(client):
    got = await client.run("import time; time.sleep(10); print('across')")
    assert got["stdout"] == "across\n", got


async def long(client, *progress):
    got = await client.run("import time; time.sleep(70); print('at last')", *progress, timeout=110)
    assert got["stdout"] == "at last\n", got


async def long_noted(client):
    notes = []
    await long(client, notes.append)
    assert notes, "no progress"


SCENARIOS = {
    "list": lambda client: client.check_list(), "call": call, "odd": odd, "5 MB": large, "picture": picture, "image": image,
    "failure": failure, "refused": refused, "together": together, "progress": progress, "again": again,
    "reload": across, "70 s": long_noted, "70 s, silent": long,
}


async def main(client):
    """Run what is asked for in the connection of client, an asynchronous context. A scenario that fails ends the program."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # what was started here is ended here
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    gate = asyncio.Event()

    async def do(name):
        if name in ("cancel", "abandon"):
            await getattr(client, name)(gate)
        else:
            await SCENARIOS[name](client)
        print("ok " + name, flush=True)

    async with client:
        print("ok connect", flush=True)
        line, running, leaving = asyncio.create_task(reader.readline()), set(), None
        while True:
            done, _ = await asyncio.wait({line, *running}, return_when=asyncio.FIRST_COMPLETED)
            for task in done & running:
                task.result()
                running.discard(task)
            if line not in done:
                continue
            name = line.result().decode().strip()
            if not name or leaving:
                break
            if name == "now":
                gate.set()
            elif name == "leave":
                leaving = asyncio.create_task(client.call("execute_python", ENDLESS))
            else:
                gate.clear()
                running.add(asyncio.create_task(do(name)))
            line = asyncio.create_task(reader.readline())
        if leaving:
            await client.leave()
    if leaving:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        print("ok leave", flush=True)
