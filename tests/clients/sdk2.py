"""Speak to the sandbox with the official MCP SDK for Python, version 2: sdk2.py sse|legacy|auto URL. Prints ok at the end.

auto, the SDK's default, probes for the newest revision over streamable HTTP; legacy shakes hands as version 1 does.
"""

import asyncio
import json
import sys
import time

from mcp import Client, MCPError
from mcp.client.sse import sse_client

REVISIONS = {"sse": "2025-11-25", "legacy": "2025-11-25", "auto": "2026-07-28"}


def connect(transport, url):
    if transport == "sse":
        return Client(sse_client(url + "/mcp/sse"))
    return Client(url + "/mcp", mode=transport)


async def run(client, code, **arguments):
    """Call the tool; the SDK itself checks the structured content against the output schema."""
    result = await client.call_tool("execute_python", {"code": code, **arguments})
    assert not result.is_error, result
    assert len(result.content) == 1, result
    assert json.loads(result.content[0].text) == result.structured_content, result
    return result.structured_content


async def main(transport, url):
    async with connect(transport, url) as client:
        assert client.protocol_version == REVISIONS[transport], client.protocol_version
        assert client.server_info.name == "python-sandbox" and "execute_python" in client.instructions
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert sorted(tools) == ["execute_python", "pip_install"], tools

        got = await run(client, "print('Hello, World!')\nprint(f'{2 + 2 = }')", timeout=10)
        assert got["stdout"] == "Hello, World!\n2 + 2 = 4\n" and got["success"] is True, got
        odd = "é\u0085\u2028\x00\U0001f600"
        got = await run(client, "import sys; print(sys.stdin.read())", stdin=odd, timeout=2.5)
        assert got["stdout"] == odd + "\n", got
        got = await run(client, "import sys; sys.stdout.buffer.write(b'\\xed\\xa0\\x80|\\xff|')")
        assert got["stdout"].endswith("|"), got
        # This SDK takes events of up to 1 MiB, and the text is in an answer twice.
        length = 400_000 if transport == "sse" else 5_000_000
        got = await run(client, f"print('x' * {length})")
        assert got["stdout"] == "x" * length + "\n", len(got["stdout"])
        got = await run(client, "print(1 / 0)")
        assert got["exit_code"] == 1 and "ZeroDivisionError" in got["stderr"], got

        for arguments, words in (({}, "code is missing"), ({"code": "x", "timeout": 121}, "up to 120")):
            result = await client.call_tool("execute_python", arguments)
            assert result.is_error and words in result.content[0].text, result
        result = await client.call_tool("pip_install", {"package": "forbidden-package"})
        assert result.structured_content["status"] == "blocked", result
        try:
            await client.call_tool("no_such_tool", {})
            raise AssertionError("an unknown tool was called")
        except MCPError as e:
            assert "no_such_tool" in str(e), e

        start = time.monotonic()
        await asyncio.gather(*(run(client, "import time; time.sleep(2)") for _ in range(4)))
        assert time.monotonic() - start < 6, time.monotonic() - start

        notes = []

        async def note(done, total, message):
            notes.append((done, total, message))

        await client.call_tool("execute_python", {"code": "import time; time.sleep(4.5)"}, progress_callback=note)
        assert notes, "no progress"
        got = await run(client, "print('still here')")
        assert got["stdout"] == "still here\n", got
    print("ok")


asyncio.run(main(*sys.argv[1:]))
