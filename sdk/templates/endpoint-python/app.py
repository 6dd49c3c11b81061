"""{{name}}: responds with the caller and the requested path."""

import json

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports import log
from wit_world.imports.log import Level
from wit_world.imports.wasi_http_types import Fields, OutgoingBody, OutgoingResponse, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        log.write(Level.INFO, f"asked for {request.path_with_query()}")
        # The caller is in headers that clients cannot set.
        actor = request.headers().get("snaphook-actor")
        answer = {"hello": actor[0].decode() if actor else "nobody", "path": request.path_with_query()}

        response = OutgoingResponse(Fields.from_list([("content-type", b"application/json")]))
        response.set_status_code(200)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(json.dumps(answer).encode())
        OutgoingBody.finish(body, None)
