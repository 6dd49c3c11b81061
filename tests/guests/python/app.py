"""The suite's hook in Python: one component for all tasks and phases. The id of the context's `actor` chooses the task; the
context's `id` is the task's parameter."""

import json

from componentize_py_types import Err
from wit_world import WitWorld as World
from wit_world.imports import http, log, process, read, secret, write
from wit_world.imports.log import Level
from wit_world.imports.types import FieldError, Phase, Rejection, Verdict_Accept, Verdict_Amend

# Number of calls in this sandbox.
calls = 0

PHASES = {
    Phase.PRE_CREATE: "preCreate",
    Phase.POST_CREATE: "postCreate",
    Phase.PRE_UPDATE: "preUpdate",
    Phase.POST_UPDATE: "postUpdate",
    Phase.PRE_DELETE: "preDelete",
    Phase.POST_DELETE: "postDelete",
}


class WitWorld(World):
    def check(self, ctx):
        match task(ctx):
            case "amend":
                return Verdict_Amend('{"n":1}')
            case "reject":
                raise Err(Rejection("no", [FieldError("/a", "bad")]))
            case "same":
                return Verdict_Amend(ctx.after)
            case "add":
                # The data is not empty. As text, numbers keep their digits.
                return Verdict_Amend(ctx.after.replace("{", '{"x":1,', 1))
            case "flood":
                return Verdict_Amend('{"text":"' + "x" * 20_000_000 + '"}')
            case "count":
                global calls
                calls += 1
                while calls == 3:
                    pass
                return Verdict_Amend('{"n":%d}' % calls)
        run(ctx)
        return Verdict_Accept()

    def react(self, ctx):
        if task(ctx) == "fail":
            raise Err("oops")
        run(ctx)


def task(ctx):
    """The id of the actor; an older server sends only the id."""
    return json.loads(ctx.actor)["id"] if ctx.actor.startswith("{") else ctx.actor


def run(ctx):
    """Runs the tasks that have the same result in every phase, if any."""
    match task(ctx):
        case "accept":
            pass
        case "crash":
            raise ValueError("crashed")
        case "tell":
            tell(ctx)
        case "log":
            log.write(Level.DEBUG, "d")
            log.write(Level.INFO, "i")
            log.write(Level.WARN, "w")
            log.write(Level.ERROR, "e")
        case "loop":
            while True:
                pass
        case "grow":
            everything = []
            while True:
                everything.append(bytes(1 << 20))
        case "recurse":
            deep(0)
        case "talk":
            while True:
                info("x")
        case "shout":
            while True:
                info("x" * 8000)
        case "ask":
            while True:
                try:
                    read.get("a", "b")
                except Err:
                    pass
        case other:
            try:
                info(ask(other, ctx.id))
            except Err as error:
                info(error.value.code)
                info(error.value.message)


def ask(task, id):
    """Runs the tasks that use a capability."""
    match task:
        case "read-get":
            found = read.get("item", id)
            return found.data if found else "absent"
        case "read-query":
            page = read.query("item", '{"limit":1}')
            return f"{','.join(item.id for item in page.items)} {page.next}"
        case "read-event":
            return "present" if read.event(int(id)) else "absent"
        case "write-create":
            return write.create("note", id, '{"a":1}', None).data
        case "write-update":
            return write.update("note", id, '{"a":2}', None).data
        case "write-delete":
            return write.delete("note", id, None).data
        case "http-send":
            request = http.Request("POST", id, [("x-a", "1")], b"hi", None, http.Redirect.FOLLOW)
            response = http.send(request)
            return f"{response.status} {response.body.decode()}"
        case "process-run":
            output = process.run(process.Command(id, ["-"], b"in", [], None))
            return f"{output.code} {output.stdout.decode()}"
        case "secret-get":
            return secret.get(id)
    return f"no task `{task}`"


def tell(ctx):
    info(f"{PHASES[ctx.phase]} {ctx.model.id}@{ctx.model.version} {ctx.id}")
    info(f"{ctx.request_id} {ctx.time} {ctx.attempt}")
    info(f"before {ctx.before or 'none'}")
    info(f"after {ctx.after or 'none'}")
    info(f"event {f'{ctx.event.position} {ctx.event.id}' if ctx.event else 'none'}")


def info(line):
    log.write(Level.INFO, line)


def deep(level):
    return deep(level + 1) + 1
