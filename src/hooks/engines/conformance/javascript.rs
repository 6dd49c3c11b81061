//! A JavaScript source for each task: the engines that run JavaScript get the same, unchanged.

use super::Task;

/// One module with a default export, which serves every phase.
pub(in crate::hooks::engines) fn source(task: Task) -> Result<Vec<u8>, String> {
    let body = match task {
        Task::Accept => "",
        Task::Amend => "return { n: 1 };",
        Task::Reject => "throw new Reject('no', { '/a': 'bad' });",
        Task::Fail => "throw new Error('oops');",
        Task::Crash => "null.member;",
        Task::Same => "return after;",
        Task::Add => "return { ...after, x: 1 };",
        Task::Tell => {
            "const shown = (value) => value === undefined || value === null ? 'none' : JSON.stringify(value);
             log.info(`${phase} ${model.id}@${model.version} ${id}`);
             log.info(`${requestId} ${time} ${attempt}`);
             log.info(`before ${shown(before)}`);
             log.info(`after ${shown(after)}`);
             log.info(`event ${event ? `${event.position} ${event.id}` : 'none'}`);"
        }
        Task::Log => "log.debug('d'); log.info('i'); log.warn('w'); log.error('e');",
        Task::ReadGet => {
            "const found = await read.get('item', id);
             log.info(found ? JSON.stringify(found.data) : 'absent');"
        }
        Task::ReadQuery => {
            "const page = await read.query('item', { limit: 1 });
             log.info(`${page.items.map((item) => item.id)} ${page.next}`);"
        }
        Task::ReadEvent => "log.info(await read.event(Number(id)) ? 'present' : 'absent');",
        Task::WriteCreate => "log.info(JSON.stringify((await write.create('note', { a: 1 }, { id })).data));",
        Task::WriteUpdate => "log.info(JSON.stringify((await write.update('note', id, { a: 2 })).data));",
        Task::WriteDelete => "log.info(JSON.stringify((await write.delete('note', id)).data));",
        Task::HttpSend => {
            "const response = await fetch(id, { method: 'POST', headers: { 'x-a': '1' }, body: 'hi' });
             log.info(`${response.status} ${await response.text()}`);"
        }
        Task::ProcessRun => {
            "const { code, stdout } = await run(id, ['-'], { stdin: 'in' });
             log.info(`${code} ${stdout}`);"
        }
        Task::SecretGet => "log.info(await secret(id));",
        Task::Loop => "for (;;);",
        Task::Grow => "const all = []; for (;;) all.push(new Array(1000).fill(1));",
        Task::Recurse => "const deep = () => deep() + 1; deep();",
        Task::Flood => "return { text: 'x'.repeat(20_000_000) };",
        Task::Talk => "for (;;) log.info('x');",
        Task::Shout => "const line = 'x'.repeat(8000); for (;;) log.info(line);",
        Task::Ask => "for (;;) try { read.get('a', 'b'); } catch {}",
        Task::Count => "calls += 1; if (calls === 3) for (;;); return { n: calls };",
    };
    let members =
        "phase, model, id, requestId, time, attempt, event, before, after, read, write, fetch, run, secret, log";
    Ok(match task {
        // What a capability refuses it throws.
        Task::ReadGet
        | Task::ReadQuery
        | Task::ReadEvent
        | Task::WriteCreate
        | Task::WriteUpdate
        | Task::WriteDelete
        | Task::HttpSend
        | Task::ProcessRun
        | Task::SecretGet => format!(
            "export default async function ({{ {members} }}) {{
               try {{ {body} }} catch (error) {{ log.info(error.code); log.info(error.message); }}
             }}"
        ),
        _ => format!("let calls = 0; export default function ({{ {members} }}) {{ {body} }}"),
    }
    .into_bytes())
}
