"""A small server that speaks Qdrant's REST, over an embedded Qdrant, and fails as it is told to."""

import http.server
import json
import re
import threading

from qdrant_client import QdrantClient, models


class Server:
    """A Qdrant on a port of this machine that can go away and come back with its data.

    Each request takes the first of `faults`, if there is one: a status (503, 400), "close" (the connection is closed
    unanswered), "lost" (the same, after the request has been carried out), "slow" (longer than a second) or "nonsense".
    A 429 says to come again after `retry_after` seconds, where these are set. Bodies of more than 32 MB are refused.
    """

    def __init__(self, version="1.20.0"):
        self.qdrant, self.version, self.port = QdrantClient(":memory:"), version, 0
        self.retry_after = None
        self.lock, self.faults, self.asked, self.http = threading.Lock(), [], [], None
        self.up()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def up(self):
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), handler_of(self))
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def down(self):
        self.http.shutdown()
        self.http.server_close()

    def close(self):
        self.down()
        self.qdrant.close()

    def answer(self, method, path, body):
        """Status and result of a request."""
        if path == "/":
            return 200, None
        name, call = re.fullmatch(r"/collections/([^/]+)(/.*)?", path).groups()
        if call == "/exists":
            return 200, {"exists": self.qdrant.collection_exists(name)}
        there = self.qdrant.collection_exists(name)
        if (method, call) == ("PUT", None):
            return (409, f"Collection `{name}` already exists!") if there else (200, self.create(name, body))
        if not there:
            return 404, f"Not found: Collection `{name}` doesn't exist!"
        return 200, CALLS[method, call](self.qdrant, name, body)

    def create(self, name, body):
        vectors = models.VectorParams(**body["vectors"])
        return self.qdrant.create_collection(name, vectors_config=vectors, metadata=body.get("metadata"))


LIMIT = 2**25

CALLS = {
    ("GET", None): lambda qdrant, name, _: qdrant.get_collection(name).model_dump(mode="json"),
    ("PUT", "/points"): lambda qdrant, name, body: qdrant.upsert(name, models.Batch(**body["batch"])).model_dump(),
    ("POST", "/points"): lambda qdrant, name, body: dumped(
        qdrant.retrieve(name, body["ids"], with_payload=body["with_payload"], with_vectors=body["with_vector"])
    ),
    ("POST", "/points/delete"): lambda qdrant, name, body: qdrant.delete(name, body["points"]).model_dump(),
    ("POST", "/points/scroll"): lambda qdrant, name, body: {
        "points": dumped(qdrant.scroll(name, limit=body["limit"], with_vectors=body["with_vector"])[0])
    },
    ("POST", "/points/count"): lambda qdrant, name, body: qdrant.count(
        name, count_filter=models.Filter(**body["filter"]) if "filter" in body else None, exact=body["exact"]
    ).model_dump(),
    ("POST", "/points/query/batch"): lambda qdrant, name, body: [
        answer.model_dump(mode="json")
        for answer in qdrant.query_batch_points(name, [models.QueryRequest(**one) for one in body["searches"]])
    ],
}


def dumped(records):
    return [record.model_dump(mode="json") for record in records]


def handler_of(server):
    """The handler of one server's requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do(self):
            length = int(self.headers.get("Content-Length", 0))
            if length > LIMIT:
                self.close_connection = True
                self.reply(400, f"Payload error: JSON payload ({length} bytes) is larger than allowed", nonsense=False)
                return
            body = json.loads(self.rfile.read(length) or "null")
            path = self.path.partition("?")[0]
            with server.lock:
                server.asked.append((self.command, path))
                fault = server.faults.pop(0) if server.faults else None
                if fault is None or fault == "lost":
                    status, result = server.answer(self.command, path, body)
            if fault in ("close", "lost"):
                self.close_connection = True
                return
            if fault == "slow":
                threading.Event().wait(1.5)
                return
            if fault is not None:
                status, result = (200, None) if fault == "nonsense" else (fault, "as told")
            self.reply(status, result, nonsense=fault == "nonsense")

        do_GET = do_PUT = do_POST = do_DELETE = do  # noqa: N815 (the names that the server calls)

        def reply(self, status, result, *, nonsense):
            told = {"title": "qdrant - vector search engine", "version": server.version} if self.path == "/" else {}
            good = {"result": result, "status": "ok", "time": 0.0, **told}
            content = json.dumps(good if status == 200 else {"status": {"error": result}, "time": 0.0}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 429 and server.retry_after is not None:
                self.send_header("Retry-After", str(server.retry_after))
            self.end_headers()
            self.wfile.write(b'{"result": 3}' if nonsense else content)

        def log_message(self, *_):
            pass

    return Handler
