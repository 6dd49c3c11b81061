"""{{name}}, for {{phase}}: logs the id of the instance."""

from failures import with_messages
from wit_world import WitWorld as World
from wit_world.imports import log
from wit_world.imports.log import Level


class WitWorld(World):
    @with_messages
    def react(self, ctx):
        """Runs after a change is stored; raise `Err("a sentence")` to fail and be retried."""
        log.write(Level.INFO, f"{ctx.model.id}/{ctx.id}")
