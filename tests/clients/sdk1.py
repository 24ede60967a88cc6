"""The official MCP SDK for Python: sdk1.py sse|http SITE EXTENDED. EXTENDED is a site with the tools of the fixtures besides."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack, asynccontextmanager

from mcp import ClientSession, McpError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

import scenarios


@asynccontextmanager
async def connect(transport, site):
    opener, path = (sse_client, "/mcp/sse") if transport == "sse" else (streamablehttp_client, "/mcp")
    async with opener(site + path) as streams, ClientSession(streams[0], streams[1]) as session:
        yield session, await session.initialize()


class SDK1(scenarios.Client):
    # A lone surrogate in an argument is not among those: pydantic does not send it.

    def __init__(self, transport, site, extended):
        self.transport, self.site, self.extended = transport, site, extended

    async def __aenter__(self):
        self.stack = AsyncExitStack()
        self.session, self.started = await self.stack.enter_async_context(connect(self.transport, self.site))
        return self

    async def __aexit__(self, *error):
        await self.stack.__aexit__(*error)

    async def call(self, tool, arguments, progress=None):
        async def note(done, total, message):
            progress((done, total, message))

        got = await self.session.call_tool(tool, arguments, progress_callback=note if progress else None)
        assert len(got.content) == 1, got
        if got.isError:
            return scenarios.Answer(refusal=got.content[0].text)
        # The SDK itself has checked the structured content against the output schema.
        assert json.loads(got.content[0].text) == got.structuredContent, got
        return scenarios.Answer(got.structuredContent)

    async def image(self):
        async with connect(self.transport, self.extended) as (session, _):
            got = await session.call_tool("test_image_content", {})
            return scenarios.Answer(images=[(block.mimeType, block.data) for block in got.content])

    async def check_list(self):
        assert self.started.serverInfo.name == "python-sandbox", self.started
        assert "execute_python" in self.started.instructions, self.started
        assert self.started.capabilities.resources is None and self.started.capabilities.prompts is None, self.started
        tools = {tool.name: tool for tool in (await self.session.list_tools()).tools}
        assert sorted(tools) == ["execute_python", "pip_install"], tools
        tool = tools["execute_python"]
        assert tool.title and tool.description, tool
        assert tool.inputSchema["required"] == ["code"], tool
        for name, field in tool.inputSchema["properties"].items():
            assert field["title"] and field["description"], (name, field)
            assert name == "code" or "default" in field, (name, field)
        assert tool.outputSchema["properties"]["stdout"], tool
        assert tool.annotations.readOnlyHint is False, tool

    async def unknown(self):
        try:
            return f"called: {await self.session.call_tool('no_such_tool', {})}"
        except McpError as e:
            return str(e)

    async def cancel(self, gate):
        """The SDK has no call for it, and does not tell the ids of its requests."""
        request = self.session._request_id
        call = asyncio.create_task(self.call("execute_python", scenarios.ENDLESS))
        await gate.wait()
        await self.session.send_notification(ClientNotification(CancelledNotification(
            params=CancelledNotificationParams(requestId=request, reason="a test"))))
        try:
            answer = await call
        except McpError:
            return
        assert answer.refusal, answer


asyncio.run(scenarios.main(SDK1(*sys.argv[1:])))
