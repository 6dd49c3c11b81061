"""{{name}}: requires a user name and a password for every request (HTTP Basic authentication).

Settings: config = { user = 'me', password = 'secret:door' }
"""

import hmac
import json
from base64 import b64encode

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config
from wit_world.imports.snaphook_module_types import (
    Decision,
    Header,
    HeaderChange_Remove,
    HeaderChange_Set,
    RequestChange,
    ResponseChange,
)


class BeforeRequest(exports.BeforeRequest):
    def handle(self, request):
        sent = next((header.value for header in request.headers if header.name == "authorization"), b"")
        if not hmac.compare_digest(sent, expected()):
            raise Err(401)
        # Removed, because the API would take it for a token.
        return Decision.DECLINED, RequestChange(None, None, [HeaderChange_Remove("authorization")], None)


class RequestError(exports.RequestError):
    def handle(self, request, response):
        if response.status != 401:
            return None
        asks = Header("www-authenticate", b'Basic realm="snaphook", charset="UTF-8"')
        return ResponseChange(None, [HeaderChange_Set(asks)], None)


def expected():
    settings = json.loads(config.settings())
    user, password = settings.get("user"), settings.get("password")
    # Without these settings, every request is rejected.
    if not user or not password:
        raise Err(500)
    return b"Basic " + b64encode(f"{user}:{password}".encode())
