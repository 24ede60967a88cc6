"""mcpo, which Open WebUI speaks to: it turns the tools into an OpenAPI service. mcpo_http.py TYPE SITE EXTENDED, as sdk1.py;
TYPE is mcpo's name for the transport."""

import asyncio
import base64
import json
import os
import socket
import sys
import tempfile

import httpx

import scenarios


class MCPO(scenarios.Client):
    def __init__(self, transport, site, extended):
        path = "/mcp/sse" if transport == "sse" else "/mcp"
        self.config = {"mcpServers": {"sandbox": {"type": transport, "url": site + path}, "extended": {"type": transport, "url": extended + path}}}

    async def __aenter__(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.file = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump(self.config, self.file)
        self.file.flush()
        self.process = await asyncio.create_subprocess_exec(
            os.path.join(os.path.dirname(sys.executable), "mcpo"), "--config", self.file.name, "--host", "127.0.0.1", "--port", port,
            stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=130, trust_env=False)
        try:
            while self.process.returncode is None:  # it listens when it has listed the tools of both
                try:
                    await self.http.get("/sandbox/openapi.json")
                    return self
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
            raise AssertionError("mcpo ended")
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 5)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self.http.aclose()
        self.file.close()

    async def post(self, tool, arguments, server="sandbox", **options):
        return await self.http.post(f"/{server}/{tool}", content=json.dumps(arguments), headers={"Content-Type": "application/json"}, **options)

    async def call(self, tool, arguments, progress=None):
        response = await self.post(tool, arguments)
        if response.status_code == 200:
            return scenarios.Answer(response.json())
        assert response.status_code in (422, 500), response.text  # 422 is mcpo's own, for what the schema says
        return scenarios.Answer(refusal=response.text)

    refused = (({}, "code"), ({"code": "x", "timeout": 121}, "up to 120"), ({"code": "x", "timeout": "soon"}, "timeout"))

    async def unknown(self):
        response = await self.post("no_such_tool", {})
        assert response.status_code == 404, response
        return "no_such_tool has no path"

    async def image(self):
        response = await self.post("test_image_content", {}, "extended")
        assert response.status_code == 200, response.text
        kind, _, data = response.json().removeprefix("data:").partition(";base64,")
        return scenarios.Answer(images=[(kind, data)])

    async def check_list(self):
        document = (await self.http.get("/sandbox/openapi.json")).json()
        assert sorted(document["paths"]) == ["/execute_python", "/pip_install"], document
        assert all(path["post"]["description"] for path in document["paths"].values()), document
        assert "execute_python" in document["info"]["description"], document  # the instructions

    async def abandon(self, gate):
        """The caller of mcpo goes away. mcpo does not tell the sandbox."""
        try:
            raise AssertionError(await self.post("execute_python", {**scenarios.ENDLESS, "timeout": 6}, timeout=1))
        except httpx.ReadTimeout:
            pass

    async def leave(self):
        self.process.kill()
        await self.process.wait()


asyncio.run(scenarios.main(MCPO(*sys.argv[1:])))
