"""What code interpreters do with /jupyter. Arguments: the address of /jupyter, the token or "", and "timeout", where code may
run for a few seconds, or "figures", where the interpreter has matplotlib and time to import it.

OpenWebUI sends what Open WebUI 0.6 sends, request for request; the rest is the official client and Jupyter's own messages."""
import asyncio
import base64
import json
import sys
import uuid

import aiohttp
import websockets
from jupyter_client.session import Session
from jupyter_kernel_client import JupyterKernelClient
from jupyter_kernel_client.wsclient import JupyterSubprotocol, WSSession

URL, TOKEN, WHAT = sys.argv[1:]


class OpenWebUI:
    """One run: a kernel, a socket, a cell, and the kernel deleted. Its answer has what Open WebUI shows."""

    def __init__(self, patience=60):
        self.patience = patience
        self.parameters = {"token": TOKEN} if TOKEN else {}

    async def run(self, code):
        async with aiohttp.ClientSession(trust_env=True, base_url=URL + "/") as http:
            async with http.post("api/kernels", params=self.parameters) as answer:
                answer.raise_for_status()
                kernel = (await answer.json())["id"]
            try:
                query = "?" + "&".join(f"{k}={v}" for k, v in self.parameters.items()) if self.parameters else ""
                async with websockets.connect(f"{URL.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels{query}") as socket:
                    return await self.execute(socket, code)
            finally:
                async with http.delete(f"api/kernels/{kernel}", params=self.parameters) as answer:
                    answer.raise_for_status()

    async def execute(self, socket, code):
        request = uuid.uuid4().hex
        await socket.send(json.dumps({
            "header": {"msg_id": request, "msg_type": "execute_request", "username": "user", "session": uuid.uuid4().hex, "date": "",
                       "version": "5.3"},
            "parent_header": {}, "metadata": {},
            "content": {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
                        "stop_on_error": True},
            "channel": "shell",
        }))
        out = {"stdout": "", "stderr": "", "result": []}
        while True:
            message = json.loads(await asyncio.wait_for(socket.recv(), self.patience))
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    out[content["name"]] += content["text"]
                case "execute_result" | "display_data":
                    if "image/png" in content["data"]:
                        out["result"].append("data:image/png;base64," + content["data"]["image/png"])
                    elif "text/plain" in content["data"]:
                        out["result"].append(content["data"]["text/plain"])
                case "error":
                    out["stderr"] += "\n".join(content["traceback"])
                case "status" if content["execution_state"] == "idle":
                    return out["stdout"].strip(), out["stderr"].strip(), "\n".join(out["result"]).strip()


def expect(what, got, want):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


async def open_webui():
    run = OpenWebUI().run
    expect("all kinds", await run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7"), ("out", "err", "42"))
    expect("unusual text", await run("'\\N{GRINNING FACE} \\u2028 <b>'"), ("", "", "'\N{GRINNING FACE} \\u2028 <b>'"))
    out, err, result = await run("def f():\n    return 1 / 0\n\nprint('before')\nf()")
    expect("before an error", (out, result), ("before", ""))
    assert err.startswith("Traceback (most recent call last):\n  File \"<cell 1>\", line 5, in <module>\n    f()\n"), err
    assert err.endswith("\nZeroDivisionError: division by zero") and "<kernel>" not in err, err
    if WHAT == "timeout":
        out, err, _ = await run("print('before', flush=True)\nimport time\ntime.sleep(60)")
        expect("before a timeout", out, "before")
        assert err.startswith("TimeoutError: the code ran longer than "), err
    out, _, _ = await run("print('x' * 30000)")
    assert "\n[... 20001 characters left out ...]\n" in out and len(out) < 10100, len(out)
    _, err, _ = await run("input('name? ')")
    assert "EOFError: input() is not supported here" in err, err
    # What Open WebUI puts before the code when it is told to block modules.
    expect("blocked modules", await run(
        "import builtins\n_real_import = builtins.__import__\n"
        "def restricted_import(name, globals=None, locals=None, fromlist=(), level=0):\n"
        "    if name.split('.')[0] in {'os'} and globals and globals.get('__name__') == '__main__':\n"
        "        raise ImportError(f'Direct import of module {name} is restricted.')\n"
        "    return _real_import(name, globals, locals, fromlist, level)\n"
        "builtins.__import__ = restricted_import\ntry:\n    import os\nexcept ImportError as e:\n    print(e)\n1"),
        ("Direct import of module os is restricted.", "", "1"))
    results = await asyncio.gather(*(run(f"import time; time.sleep(.1); {i}") for i in range(8)))
    expect("at once", [r[2] for r in results], [str(i) for i in range(8)])
    if WHAT == "figures":
        await figures(run)


async def figures(run):
    out, err, result = await run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint('shown')\nplt.figure()\nplt.bar([1], [2]);")
    expect("beside figures", (out, err), ("shown", ""))
    images = result.split("\n")
    assert len(images) == 2, result[:200]
    for image in images:
        assert base64.b64decode(image.removeprefix("data:image/png;base64,"), validate=True).startswith(b"\x89PNG"), image[:80]
    # A picture that would be larger than a message may be is made smaller.
    _, _, result = await run("import os, array, matplotlib.pyplot as plt\n"
                             "plt.figure(figsize=(6, 6), dpi=150)\nplt.imshow([list(os.urandom(900)) for _ in range(900)]);")
    assert result.startswith("data:image/png;base64,"), result[:200]


async def wrong_token():
    async with aiohttp.ClientSession() as http:
        for address, parameters in (("/api/kernels", {}), ("/api/kernels", {"token": "wrong"})):
            async with http.post(URL + address, params=parameters) as answer:
                expect("without the token", answer.status, 401)
        try:
            async with websockets.connect(URL.replace("http", "ws", 1) + "/api/kernels/x/channels"):
                raise AssertionError("a socket without the token is open")
        except websockets.InvalidStatus as e:
            expect("a socket without the token", e.response.status_code, 401)


# Version 1.0.2 wants to log the channel of a message, which it has not put there with the v1 protocol.
plain_deserialize = WSSession.deserialize
WSSession.deserialize = lambda *args, **kwargs: {**plain_deserialize(*args, **kwargs), "channel": ""}


def official(subprotocol):
    with JupyterKernelClient(server_url=URL, token=TOKEN or None, client_kwargs={"subprotocol": subprotocol}) as kernel:
        expect("the language", kernel.kernel_info["language_info"]["name"], "python")
        assert "are kept from cell to cell" in kernel.kernel_info["banner"]
        reply = kernel.execute("print('hello')\nx = 1\nx + 1")
        expect("a reply", reply, {"execution_count": 1, "status": "ok", "outputs": [
            {"output_type": "stream", "name": "stdout", "text": "hello\n"},
            {"output_type": "execute_result", "metadata": {}, "data": {"text/plain": "2"}, "execution_count": 1}]})
        reply = kernel.execute("x")
        expect("names are kept", (reply["status"], reply["outputs"][0]["data"], reply["execution_count"]), ("ok", {"text/plain": "1"}, 2))
        reply = kernel.execute("import sys\nprint(x, file=sys.stderr)\nraise ValueError")
        expect("an error", [(o["output_type"], o.get("text", o.get("ename"))) for o in reply["outputs"]], [("stream", "1\n"), ("error", "ValueError")])
        reply = kernel.execute("class A:\n    def _repr_html_(self): return '<b>a</b>'\n    def __repr__(self): return 'A'\ndisplay(A())")
        expect("html", reply["outputs"], [{"output_type": "display_data", "metadata": {}, "data": {"text/plain": "A", "text/html": "<b>a</b>"}}])
        reply = kernel.execute("1", silent=True)
        expect("silent", (reply["status"], reply["outputs"]), ("ok", []))
        assert kernel.is_alive() and kernel.id in [k["id"] for k in kernel.list_kernels()]
        kernel.restart()
        reply = kernel.execute("x")
        expect("after a restart", (reply["execution_count"], reply["outputs"][0]["ename"]), (1, "NameError"))
        client = kernel._manager.client
        for ask, kind in ((client.comm_info, "comm_info_reply"), (client.history, "history_reply"), (lambda: client.is_complete("1"), "is_complete_reply"),
                          (lambda: client.complete("pri"), "complete_reply"), (lambda: client.inspect("print"), "inspect_reply")):
            answer = client._recv_reply(ask(), timeout=10)
            expect("a reply's type", answer["header"]["msg_type"], kind)
    assert not kernel.has_kernel
    with JupyterKernelClient(server_url=URL, token=TOKEN or None, client_kwargs={"subprotocol": subprotocol}) as kernel:
        kernel._manager.shutdown_kernel(now=False)   # by a message, for which kernel.stop has closed the socket too soon
        assert not kernel.has_kernel


async def interrupt(by_message):
    """Jupyter's own Session makes and reads the messages, with parts as the v1 protocol has them left to it."""
    session = Session()
    headers = {"Authorization": f"token {TOKEN}"} if TOKEN else {}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(URL + "/api/kernels", json={"name": "python3"}) as answer:
            kernel = (await answer.json())["id"]
        async with http.ws_connect(f"{URL}/api/kernels/{kernel}/channels?session_id={session.session}") as socket:
            async def execute(code):
                request = session.msg("execute_request", {"code": code})
                await socket.send_str(json.dumps({**request, "channel": "shell"}, default=str))
                return request

            request = await execute("x = 5\nprint('on', flush=True)\nimport time\ntime.sleep(60)")
            failed = replied = idle = False
            while not (failed and replied and idle):
                message = await socket.receive_json(timeout=20)
                content = message["content"]
                if message["parent_header"]["msg_id"] != request["header"]["msg_id"]:
                    continue
                match message["msg_type"]:
                    case "stream" if by_message:   # it comes while the cell runs
                        stop = session.msg("interrupt_request", {})
                        await socket.send_str(json.dumps({**stop, "channel": "control"}, default=str))
                    case "stream":
                        async with http.post(f"{URL}/api/kernels/{kernel}/interrupt") as answer:
                            expect("interrupt", answer.status, 204)
                    case "error":
                        failed = content["ename"] == "KeyboardInterrupt"
                    case "execute_reply":
                        replied = content["status"] == "error"
                    case "status":
                        idle = content["execution_state"] == "idle"
            request = await execute("x")
            while (message := await socket.receive_json(timeout=20))["msg_type"] not in ("execute_result", "error"):
                pass
            expect("names after an interrupt", (message["parent_header"]["msg_id"], message["content"].get("data")),
                   (request["header"]["msg_id"], {"text/plain": "5"}))
        async with http.delete(f"{URL}/api/kernels/{kernel}") as answer:
            expect("deleting", answer.status, 204)


asyncio.run(open_webui())
if TOKEN:
    asyncio.run(wrong_token())
for subprotocol in JupyterSubprotocol:
    official(subprotocol)
for by_message in (True, False):
    asyncio.run(interrupt(by_message))
print("ok")
