"""The command line of the MCP Inspector: inspector_cli.py sse|http|modern SITE EXTENDED, as sdk1.py. $NODE runs it, from the
working directory. Each call is a process and a session of its own."""

import asyncio
import json
import os
import signal
import sys

import scenarios

PROGRAM = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
TOOL_ERROR = 5  # its exit code for an answer that a tool marks as an error


class Inspector(scenarios.Client):
    refused = scenarios.Client.refused[:2]  # it makes a number, or nothing, of what should be one

    def __init__(self, transport, site, extended):
        self.way = ["--transport", "sse"] if transport == "sse" else ["--transport", "http"]
        if transport == "modern":
            self.way += ["--protocol-era", "modern"]
        self.path = "/mcp/sse" if transport == "sse" else "/mcp"
        self.site, self.extended = site, extended
        self.processes = set()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.leave()

    async def leave(self):
        while self.processes:  # each leads a group, in which its launcher may have started more
            process = self.processes.pop()
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def inspect(self, *arguments, site=None, codes=(0,)):
        process = await asyncio.create_subprocess_exec(
            os.environ["NODE"], PROGRAM, "--cli", (site or self.site) + self.path, *self.way, "--connect-timeout", "60000", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True)
        self.processes.add(process)
        out, err = await process.communicate()
        self.processes.discard(process)
        assert process.returncode in codes, (process.returncode, out[-2000:], err[-2000:])
        return process.returncode, json.loads(out)

    async def tool(self, tool, arguments, *more, **options):
        return await self.inspect("--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments), *more, **options)

    async def call(self, tool, arguments, progress=None):
        code, got = await self.tool(tool, arguments, codes=(0, TOOL_ERROR))
        assert len(got["content"]) == 1 and (code == TOOL_ERROR) == bool(got.get("isError")), got
        if code == TOOL_ERROR:
            return scenarios.Answer(refusal=got["content"][0]["text"])
        assert json.loads(got["content"][0]["text"]) == got["structuredContent"], got
        return scenarios.Answer(got["structuredContent"])

    async def unknown(self):
        try:
            await self.tool("no_such_tool", {})
        except AssertionError as e:
            return str(e)

    async def image(self):
        _, got = await self.tool("test_image_content", {}, site=self.extended)
        return scenarios.Answer(images=[(block["mimeType"], block["data"]) for block in got["content"]])

    async def check_list(self):
        _, got = await self.inspect("--method", "tools/list", "--strict")
        assert sorted(tool["name"] for tool in got["tools"]) == ["execute_python", "pip_install"], got

    async def load(self):
        _, got = await self.tool("execute_python", {"code": "print(1)"}, "--load", "--load-requests", "500", "--load-concurrency", "20")
        assert got["ok"] == 500 and got["errors"] == 0, got


scenarios.SCENARIOS["load"] = lambda client: client.load()
asyncio.run(scenarios.main(Inspector(*sys.argv[1:])))
