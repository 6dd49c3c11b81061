use super::*;
use crate::hooks::engines::testing::{Called, Case, cache};

fn case(phase: Phase) -> Case {
    Case::new(Arc::new(QuickJs::new(CodeCache::new(&cache()))), phase)
}

async fn pre(source: &str, after: &'static str) -> Called {
    let mut case = case(Phase::PreCreate);
    case.after = Some(after);
    case.run(source.as_bytes()).await
}

/// The value of an expression inside the handler, as JSON text.
async fn value(expression: &str) -> String {
    let called =
        pre(&format!("export async function preCreate(context) {{ return {{ v: {expression} }}; }}"), "{}").await;
    called.amended().strip_prefix("{\"v\":").and_then(|rest| rest.strip_suffix('}')).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_amends_and_rejects() {
    let source = "export function preCreate({ after, model, id, phase, attempt }) {
        if (after.accept) return;
        if (after.same) return { ...after };
        if (after.reject) throw new Reject('no', { '/a': 'bad', b: 'worse' });
        return { ...after, seen: [model.id, model.version, id, phase, attempt] };
    }";
    assert_eq!(pre(source, r#"{"accept":true}"#).await.report.outcome, Outcome::Accept);
    assert_eq!(pre(source, r#"{"same":1.0}"#).await.report.outcome, Outcome::Accept);
    assert_eq!(
        pre(source, r#"{"z":1,"a":2}"#).await.amended(),
        r#"{"z":1,"a":2,"seen":["item",1,"i-1","preCreate",1]}"#
    );
    match pre(source, r#"{"reject":1}"#).await.report.outcome {
        Outcome::Reject(rejection) => {
            assert_eq!(rejection.message, "no");
            let fields: Vec<_> = rejection.fields.iter().map(|f| (f.pointer.as_str(), f.message.as_str())).collect();
            assert_eq!(fields, [("/a", "bad"), ("/b", "worse")]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn async_handlers_timers_and_thenables() {
    assert_eq!(value("await new Promise(r => setTimeout(() => r(1), 20))").await, "1");
    assert_eq!(value("await Promise.all([1, Promise.resolve(2), { then(f) { f(3) } }])").await, "[1,2,3]");
    let order = "await (async () => { const seen = []; const at = (ms, x) => new Promise(r => setTimeout(() => { seen.push(x); r() }, ms));
        const stop = setInterval(() => seen.push('i'), 4); clearInterval(stop);
        await Promise.all([at(30, 'c'), at(1, 'a'), at(15, 'b')]); return seen; })()";
    assert_eq!(value(order).await, r#"["a","b","c"]"#);
    let called = pre("export default () => ({ then(resolve) { resolve({ ok: 1 }) } })", "{}").await;
    assert_eq!(called.amended(), r#"{"ok":1}"#);
}
