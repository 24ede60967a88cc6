"""Call the sandbox with the official MCP SDK (pip install 'mcp<2'): python examples/python_sdk.py [URL]"""

import asyncio
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main(url):
    async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        result = await session.call_tool("execute_python", {"code": "print(sum(range(10)))"})
        print(result.structuredContent["stdout"], end="")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8001/mcp"))
