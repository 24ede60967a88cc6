"""Give the sandbox's tools to LangChain (pip install langchain-mcp-adapters): python examples/langchain_tools.py [URL]"""

import asyncio
import json
import sys

from langchain_mcp_adapters.client import MultiServerMCPClient


async def main(url):
    client = MultiServerMCPClient({"sandbox": {"transport": "streamable_http", "url": url}})
    tools = {tool.name: tool for tool in await client.get_tools()}   # for an agent: create_agent(model, list(tools.values()))
    answer = await tools["execute_python"].ainvoke({"code": "print(sum(range(10)))"})
    print(json.loads(answer[0]["text"])["stdout"], end="")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8001/mcp"))
