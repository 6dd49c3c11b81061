"""A pre hook: refuses an order of more than a million, and writes the currency in capitals."""

import json

from componentize_py_types import Err
from wit_world import WitWorld as World
from wit_world.imports.types import FieldError, Rejection, Verdict_Accept, Verdict_Amend

TOTAL_MAX = 1_000_000


class Number(str):
    """A number as it was written: floats would round it."""


class WitWorld(World):
    def check(self, ctx):
        if ctx.after is None:
            return Verdict_Accept()
        order = json.loads(ctx.after, parse_float=Number)
        if float(order["total"]) > TOTAL_MAX:
            raise Err(Rejection("at most a million", [FieldError("/total", "at most a million")]))
        currency = order.get("currency")
        if currency is None or currency == currency.upper():
            return Verdict_Accept()
        order["currency"] = currency.upper()
        return Verdict_Amend(text(order))


def text(value):
    """The value as JSON; numbers keep their digits."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{text(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    return json.dumps(value)
