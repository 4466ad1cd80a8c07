"""A small Hugging Face Hub on 127.0.0.1: it can create a repository and take an upload."""

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_good"
MOST_REQUESTS = 100  # all later ones are refused, so that no client retries for ever


class FakeHub(ThreadingHTTPServer):
    """The server; `repos` has what was pushed; `refusals` maps parts of paths to the (status, reason) of a failure."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.requests: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_any()

    do_POST = do_PUT = do_GET

    def handle_any(self) -> None:
        hub, path = self.server, self.path.split("?")[0]
        hub.requests.append(f"{self.command} {path}")
        body = self.read_body()
        refusal = next((answer for part, answer in hub.refusals.items() if part in path), None)
        if len(hub.requests) > MOST_REQUESTS:
            refusal = (400, "too many requests for a test")
        if refusal is None and not path.startswith("/lfs/") and self.headers["Authorization"] != f"Bearer {TOKEN}":
            refusal = (401, "Invalid credentials in Authorization header")
        if refusal:
            self.answer(refusal[0], {"error": refusal[1]}, {"X-Error-Message": refusal[1]})
        elif path == "/api/whoami-v2":
            self.answer(200, {"name": "ada", "type": "user"})
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path.startswith("/lfs/"):
            hub.blobs[path.removeprefix("/lfs/")] = body
            self.answer(200, {})
        else:
            self.handle_repo(path, body)

    def handle_repo(self, path: str, body: bytes) -> None:
        hub, repo = self.server, "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
        repo = repo.removesuffix(".git")
        if repo not in hub.repos:
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {True: "lfs", False: "regular"}
            self.answer(
                200,
                {
                    "files": [
                        {"path": name, "uploadMode": modes[name.endswith(".safetensors")], "shouldIgnore": False}
                        for name in files
                    ]
                },
            )
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{hub.url}/lfs/{item['oid']}"}}
            self.answer(200, {"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            self.commit(repo, [json.loads(line) for line in body.splitlines()])
        else:
            self.answer(200, {"id": repo, "private": hub.repos[repo]["private"], "siblings": [], "tags": []})

    def create(self, wanted: dict) -> None:
        hub, repo = self.server, f"{wanted['organization'] or 'ada'}/{wanted['name']}"
        exists = repo in hub.repos
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        hub.repos.setdefault(repo, {"private": private, "files": {}})
        self.answer(409 if exists else 200, {"url": f"{hub.url}/{repo}"})

    def commit(self, repo: str, lines: list[dict]) -> None:
        hub = self.server
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                hub.repos[repo]["files"][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.repos[repo]["files"][value["path"]] = hub.blobs[value["oid"]]
        self.answer(200, {"commitUrl": f"{hub.url}/{repo}/commit/{'a' * 40}", "commitOid": "a" * 40})

    def read_body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status: int, content: dict, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextlib.contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Run one in the background."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
