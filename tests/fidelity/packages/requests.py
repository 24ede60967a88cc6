import http.server
import json
import threading

import requests


class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"path": self.path, "got": json.loads(body)}).encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
threading.Thread(target=server.serve_forever, daemon=True).start()
for host in ("127.0.0.1", "localhost"):
    answer = requests.post(f"http://{host}:{server.server_port}/echo", params={"q": 1}, json={"n": [1, 2]}, timeout=5)
    print(answer.status_code, answer.json())
server.shutdown()
# Everything further away is not there, and says so at once.
try:
    requests.get("https://example.com", timeout=5)
except requests.exceptions.ConnectionError as e:
    print(type(e).__name__)
# -> 200 {'path': '/echo?q=1', 'got': {'n': [1, 2]}}
# -> 200 {'path': '/echo?q=1', 'got': {'n': [1, 2]}}
# -> ConnectionError
