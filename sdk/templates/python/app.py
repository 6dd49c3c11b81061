"""{{name}}, for {{phase}}: rejects data without a name."""

import json

from componentize_py_types import Err
from failures import with_messages
from wit_world import WitWorld as World
from wit_world.imports.types import FieldError, Rejection, Verdict_Accept


class WitWorld(World):
    @with_messages
    def check(self, ctx):
        """Runs before a change is stored: return a verdict, or raise `Err(Rejection(…))` to reject it."""
        data = json.loads(ctx.after or "{}")
        if ctx.after and "name" not in data:
            raise Err(Rejection("a name is missing", [FieldError("/name", "is missing")]))
        return Verdict_Accept()
