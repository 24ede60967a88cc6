"""Speak to the sandbox with the official MCP SDK for Python: sdk.py sse|streamable URL. Prints ok at the end."""

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager

from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client


@asynccontextmanager
async def connect(transport, url):
    opener = sse_client if transport == "sse" else streamablehttp_client
    async with opener(url) as streams, ClientSession(streams[0], streams[1]) as session:
        started = await session.initialize()
        assert started.serverInfo.name == "python-sandbox", started
        assert "execute_python" in started.instructions, started
        assert started.capabilities.resources is None and started.capabilities.prompts is None, started
        yield session


async def run(session, code, **arguments):
    """Call the tool; the SDK itself checks the structured content against the output schema."""
    result = await session.call_tool("execute_python", {"code": code, **arguments})
    assert not result.isError, result
    assert len(result.content) == 1, result
    assert json.loads(result.content[0].text) == result.structuredContent, result
    return result.structuredContent


async def main(transport, url):
    async with connect(transport, url) as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert sorted(tools) == ["execute_python", "pip_install"], tools
        tool = tools["execute_python"]
        assert tool.title and tool.description, tool
        assert tool.inputSchema["required"] == ["code"], tool
        for name, field in tool.inputSchema["properties"].items():
            assert field["title"] and field["description"], (name, field)
            assert name == "code" or "default" in field, (name, field)
        assert tool.outputSchema["properties"]["stdout"], tool
        assert tool.annotations.readOnlyHint is False, tool

        got = await run(session, "print('Hello, World!')\nprint(f'{2 + 2 = }')", timeout=10)
        assert got["stdout"] == "Hello, World!\n2 + 2 = 4\n" and got["success"] is True, got
        got = await run(session, "import sys; print(sys.stdin.read())", stdin="é\u0085\u2028\U0001f600", timeout=2.5)
        assert got["stdout"] == "é\u0085\u2028\U0001f600\n", got
        got = await run(session, "print('x' * 5_000_000)")
        assert got["stdout"] == "x" * 5_000_000 + "\n", len(got["stdout"])
        got = await run(session, "print(1 / 0)")
        assert got["exit_code"] == 1 and "ZeroDivisionError" in got["stderr"] and got["status"] == "error", got
        got = await run(session, "import time; print('one', flush=True); time.sleep(9)", timeout=0.5)
        assert got["exit_code"] == 124 and got["status"] == "timeout" and got["stdout"] == "one\n", got

        # Calls of one session run side by side.
        start = time.monotonic()
        await asyncio.gather(*(run(session, "import time; time.sleep(1)") for _ in range(4)))
        assert time.monotonic() - start < 3, time.monotonic() - start

        # What is refused is a tool error in words, not a failure of the protocol.
        for arguments, words in (
            ({}, "code is missing"),
            ({"code": "x", "timeout": 121}, "up to 120"),
            ({"code": "x", "timeout": "soon"}, "number of seconds"),
        ):
            result = await session.call_tool("execute_python", arguments)
            assert result.isError and words in result.content[0].text, result

        result = await session.call_tool("pip_install", {"package": "forbidden-package"})
        assert result.structuredContent["status"] == "blocked", result

        got = await run(session, "print('still here')")
        assert got["stdout"] == "still here\n", got

    # Two clients at once do not meet.
    async with connect(transport, url) as one, connect(transport, url) as two:
        first, second = await asyncio.gather(run(one, "print('one')"), run(two, "print('two')"))
        assert (first["stdout"], second["stdout"]) == ("one\n", "two\n")
    print("ok")


asyncio.run(main(*sys.argv[1:]))
