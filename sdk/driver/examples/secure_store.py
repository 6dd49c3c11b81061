"""A driver in Python: a secure store in memory that a server uses with `driver = 'remote'`.

    python3 secure_store.py 1401                # prints its address
    [driver-secure-storage]
    driver = 'remote'
    url = 'http://127.0.0.1:1401'

A call is `POST /{store}/{method}`; requests and responses are the messages of `sdk/driver/proto/driver.proto` in their JSON
form: names in lowerCamelCase, bytes as base64, 64-bit numbers as text, and fields with their default value left out.
What each method must do is described in `sdk/driver/src/secure_store.rs`.
"""

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Largest body of a request: a secret of 8 MiB as base64, and some more.
BODY_BYTES_MAX = 16 * 1024 * 1024


class Failure(Exception):
    """An error of the store: its kind and HTTP status."""

    def __init__(self, status, kind, message):
        super().__init__(message)
        self.status = status
        self.kind = kind


class SecureStore:
    """Sealed values and their versions by name. One method per method of the store."""

    def __init__(self):
        self.secrets = {}
        self.lock = threading.Lock()

    def open(self, request):
        # Nothing is durable here, so no capability is named.
        return {"handle": "1", "capabilities": {}}

    def health(self, request):
        return {}

    def close(self, request):
        return {}

    def get(self, request):
        with self.lock:
            found = self.secrets.get(request.get("name", ""))
        if found is None:
            return {}
        value, version = found
        return {"secret": {"bytes": base64.b64encode(value).decode(), "version": str(version)}}

    def put(self, request):
        name = request.get("name", "")
        value = base64.b64decode(request.get("bytes", ""))
        with self.lock:
            version = self.secrets.get(name, (b"", 0))[1]
            # A field of its own presence: 0 says that there must be no secret of that name.
            if "expected" in request and int(request["expected"]) != version:
                message = f"secret `{name}` has version {version}, expected {request['expected']}"
                raise Failure(409, "ERROR_KIND_CONFLICT", message)
            self.secrets[name] = (value, version + 1)
        return {"version": str(version + 1)}

    def delete(self, request):
        with self.lock:
            return {"removed": self.secrets.pop(request.get("name", ""), None) is not None}

    def list(self, request):
        prefix = request.get("prefix", "")
        with self.lock:
            return {"names": sorted(name for name in self.secrets if name.startswith(prefix))}


METHODS = {"open", "health", "close", "get", "put", "delete", "list"}


class Handler(BaseHTTPRequestHandler):
    """Reads a request, calls the store, writes the response."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    store = SecureStore()

    def do_POST(self):
        parts = self.path.strip("/").split("/")
        try:
            request = self.request_message()
            if len(parts) != 2 or parts[0] != "secure" or parts[1] not in METHODS:
                raise Failure(404, "ERROR_KIND_INVALID", f"there is no `{self.path}`")
            self.respond(200, getattr(self.store, parts[1])(request))
        except Failure as failure:
            error = {"kind": failure.kind, "operation": parts[-1], "message": str(failure)}
            self.respond(failure.status, error)

    def request_message(self):
        length = int(self.headers.get("Content-Length", "0"))
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            raise Failure(413, "ERROR_KIND_INVALID", f"the request has {length} bytes")
        body = self.rfile.read(length)
        try:
            return json.loads(body) if body else {}
        except ValueError as error:
            raise Failure(400, "ERROR_KIND_INVALID", f"the request is not valid JSON: {error}") from error

    def respond(self, status, message):
        body = json.dumps(message).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
