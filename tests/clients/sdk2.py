"""Version 2 of the official MCP SDK for Python: sdk2.py sse|http|auto SITE EXTENDED, as sdk1.py.

auto, the SDK's default, probes for the newest revision over streamable HTTP; http shakes hands as version 1 does."""

import asyncio
import json
import sys

from mcp import Client, MCPError
from mcp.client.sse import sse_client

import scenarios

REVISIONS = {"sse": "2025-11-25", "http": "2025-11-25", "auto": "2026-07-28"}


def connect(transport, site):
    if transport == "sse":
        return Client(sse_client(site + "/mcp/sse"))
    return Client(site + "/mcp", mode="legacy" if transport == "http" else "auto")


class SDK2(scenarios.Client):
    def __init__(self, transport, site, extended):
        self.transport, self.extended = transport, extended
        self.client = connect(transport, site)
        if transport == "sse":  # this SDK takes events of up to 1 MiB, and the text is in an answer twice
            self.large = "x", 400_000

    async def __aenter__(self):
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self.client.__aexit__(*error)

    async def call(self, tool, arguments, progress=None):
        async def note(done, total, message):
            progress((done, total, message))

        got = await self.client.call_tool(tool, arguments, progress_callback=note if progress else None)
        assert len(got.content) == 1, got
        if got.is_error:
            return scenarios.Answer(refusal=got.content[0].text)
        # The SDK itself has checked the structured content against the output schema.
        assert json.loads(got.content[0].text) == got.structured_content, got
        return scenarios.Answer(got.structured_content)

    async def image(self):
        async with connect(self.transport, self.extended) as client:
            got = await client.call_tool("test_image_content", {})
            return scenarios.Answer(images=[(block.mime_type, block.data) for block in got.content])

    async def check_list(self):
        assert self.client.protocol_version == REVISIONS[self.transport], self.client.protocol_version
        assert self.client.server_info.name == "python-sandbox" and "execute_python" in self.client.instructions
        tools = {tool.name: tool for tool in (await self.client.list_tools()).tools}
        assert sorted(tools) == ["execute_python", "pip_install"], tools

    async def unknown(self):
        try:
            return f"called: {await self.client.call_tool('no_such_tool', {})}"
        except MCPError as e:
            return str(e)

    async def cancel(self, gate):
        """To stop waiting is to cancel: the SDK tells the server, in the way of the revision."""
        call = asyncio.create_task(self.call("execute_python", scenarios.ENDLESS))
        await gate.wait()
        call.cancel()
        try:
            raise AssertionError(await call)
        except asyncio.CancelledError:
            pass


asyncio.run(scenarios.main(SDK2(*sys.argv[1:])))
