//! A post hook: notes each change of a model in the model `audit`.

use serde_json::json;

wit_bindgen::generate!({ path: "../../../wit/since_v0_1_0", world: "post-hook" });

use snaphook::hook::types::Phase;
use snaphook::hook::{log, write};

struct Audit;

export!(Audit);

impl Guest for Audit {
    fn react(ctx: Context) -> Result<(), String> {
        let event = ctx.event.ok_or("a post hook without an event")?;
        let verb = match ctx.phase {
            Phase::PostCreate => "created",
            Phase::PostUpdate => "updated",
            _ => "deleted",
        };
        let note = json!({"what": format!("{}/{} was {verb}", ctx.model.id, ctx.id), "time": ctx.time, "actor": ctx.actor});
        // One note per event, named for it: a second run of the same event finds it there.
        match write::create("audit", Some(&format!("at-{}", event.position)), &note.to_string(), None) {
            Ok(_) => Ok(()),
            Err(error) if error.code == "exists" => {
                log::write(log::Level::Info, &format!("noted before, attempt {}", ctx.attempt));
                Ok(())
            }
            Err(error) => Err(error.message),
        }
    }
}
