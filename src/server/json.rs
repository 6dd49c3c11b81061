//! Instances and events as JSON text, written by hand: data is copied as text, without temporary values. The read path
//! returns tens of thousands of these per second.

use serde_json::value::RawValue;
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Actor, Event, Instance};

/// Approximate bytes of the envelope around the data.
pub(super) const ENVELOPE_BYTES: usize = 320;

/// `Instance` of the contract. Ids need no escapes, because the server accepts only plain ones.
pub(super) fn write_instance(out: &mut Vec<u8>, instance: &Instance) {
    write_instance_with(out, instance, &instance.data);
}

/// The same with other data, such as a part of it.
pub(super) fn write_instance_with(out: &mut Vec<u8>, instance: &Instance, data: &str) {
    out.reserve(ENVELOPE_BYTES + instance.id.len() + data.len());
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(instance.id.as_bytes());
    out.extend_from_slice(b"\",\"model\":\"");
    out.extend_from_slice(instance.model.as_bytes());
    out.extend_from_slice(b"\",\"model_version\":");
    write_u64(out, instance.model_version);
    out.extend_from_slice(b",\"revision\":");
    write_u64(out, instance.revision);
    out.extend_from_slice(b",\"position\":");
    write_u64(out, instance.position);
    out.extend_from_slice(b",\"created_at\":");
    write_time(out, instance.created_at);
    out.extend_from_slice(b",\"updated_at\":");
    write_time(out, instance.updated_at);
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(data.as_bytes());
    out.push(b'}');
}

/// `Event` of the contract, on one line. Invalid data is omitted, and `data_error` says so.
pub(super) fn write_event(out: &mut Vec<u8>, event: &Event) {
    out.reserve(ENVELOPE_BYTES + event.data.as_ref().map_or(0, |data| data.len()));
    out.extend_from_slice(b"{\"position\":");
    write_u64(out, event.position);
    out.extend_from_slice(b",\"id\":");
    write_string(out, &event.id);
    out.extend_from_slice(b",\"type\":\"");
    out.extend_from_slice(event.kind.as_str().as_bytes());
    out.extend_from_slice(b"\",\"model\":");
    write_string(out, &event.model);
    out.extend_from_slice(b",\"model_version\":");
    write_u64(out, event.model_version);
    out.extend_from_slice(b",\"instance\":");
    write_optional_string(out, event.instance.as_deref());
    out.extend_from_slice(b",\"revision\":");
    write_u64(out, event.revision);
    out.extend_from_slice(b",\"data\":");
    // Data that was edited in the log must not break the text around it.
    let fault = event.data.as_ref().and_then(|data| snaphook_driver::json::typed::<&RawValue>(data).err());
    match event.data.as_ref().filter(|_| fault.is_none()) {
        Some(data) => write_line(out, data),
        None => out.extend_from_slice(b"null"),
    }
    if let Some(fault) = fault {
        out.extend_from_slice(b",\"data_error\":");
        let position = event.position;
        write_string(
            out,
            &format!("the data is not valid JSON: {fault}; `snaphook events inspect {position}` shows it"),
        );
    }
    out.extend_from_slice(b",\"actor\":");
    match &event.actor {
        Some(actor) => write_actor(out, actor),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"cause\":");
    match &event.cause {
        Some(cause) => {
            out.extend_from_slice(b"{\"position\":");
            write_u64(out, cause.position);
            out.extend_from_slice(b",\"hook\":");
            write_string(out, &cause.hook);
            out.extend_from_slice(b",\"depth\":");
            write_u64(out, u64::from(cause.depth));
            out.push(b'}');
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"hooks\":");
    if event.hooks.is_empty() {
        out.extend_from_slice(b"[]");
    } else {
        write_value(out, &event.hooks);
    }
    out.extend_from_slice(b",\"request_id\":");
    write_optional_string(out, event.request_id.as_deref());
    out.extend_from_slice(b",\"time\":");
    write_time(out, event.time);
    out.push(b'}');
}

pub(super) fn write_u64(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    write_value(out, text);
}

/// JSON on one line, as an event of a stream must be. Line breaks can only be between tokens.
fn write_line(out: &mut Vec<u8>, json: &str) {
    match json.contains(['\n', '\r']) {
        true => out.extend(json.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte })),
        false => out.extend_from_slice(json.as_bytes()),
    }
}

fn write_actor(out: &mut Vec<u8>, actor: &Actor) {
    out.extend_from_slice(b"{\"id\":");
    write_string(out, &actor.id);
    out.extend_from_slice(b",\"kind\":\"");
    out.extend_from_slice(actor.kind.as_str().as_bytes());
    out.push(b'"');
    if let Some(claims) = &actor.claims {
        out.extend_from_slice(b",\"claims\":");
        write_line(out, claims);
    }
    out.push(b'}');
}

fn write_optional_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_time(out: &mut Vec<u8>, millis: Millis) {
    out.push(b'"');
    time::write(millis, out);
    out.push(b'"');
}

/// Writing plain data into memory cannot fail.
fn write_value(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use snaphook_driver::{ActorKind, Cause, EventKind, Json, Provenance};

    #[test]
    fn agrees_with_serde() {
        let instance = Instance {
            id: "a.B~1".into(),
            model: "m-1".into(),
            model_version: 3,
            revision: 10,
            position: u64::MAX,
            created_at: 0,
            updated_at: 1_700_000_000_007,
            data: Json::trusted(r#"{"n":12345678901234567890.123456789,"s":"\u00e9é"}"#),
        };
        let mut out = Vec::new();
        write_instance(&mut out, &instance);
        assert_eq!(String::from_utf8(out).expect("text"), serde_json::to_string(&instance).expect("JSON"));

        let claims = Json::trusted(r#"{"n":1.50,"é":["\u00e9"]}"#);
        let actor = Actor::new(ActorKind::Oidc, "a \"quoted\"\n one");
        let mut event = Event {
            position: 7,
            id: "x".into(),
            kind: EventKind::InstanceCreated,
            model: "m".into(),
            model_version: 1,
            instance: Some("i".into()),
            revision: 1,
            data: Some(instance.data),
            actor: Some(Arc::new(actor.with_claims(&claims))),
            cause: Some(Cause { position: 6, hook: "m.postCreate/h".into(), depth: 2 }),
            hooks: vec![Provenance { name: "h".into(), engine: "e".into(), artifact: "sha256:0".into(), ms: 0.25 }],
            request_id: None,
            trace: None,
            time: 1,
        };
        let check = |event: &Event| {
            let mut out = Vec::new();
            write_event(&mut out, event);
            assert_eq!(String::from_utf8(out).expect("text"), serde_json::to_string(event).expect("JSON"));
        };
        check(&event);
        event = Event { instance: None, data: None, actor: None, cause: None, hooks: Vec::new(), ..event };
        event.request_id = Some("r".into());
        check(&event);
    }

    #[test]
    fn an_event_is_one_line() {
        let mut event: Event = snaphook_driver::json::typed(
            r#"{"position":1,"id":"x","type":"instance.created","model":"m","model_version":1,"instance":"i","revision":1,
                "data":{},"actor":null,"cause":null,"request_id":null,"time":"1970-01-01T00:00:00.000Z"}"#,
        )
        .expect("an event");
        event.data = Some(Json::trusted("{\r\n\"a\":\n1}"));
        let mut out = Vec::new();
        write_event(&mut out, &event);
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains(r#""data":{  "a": 1},"#), "{text}");
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 1234567890, u64::MAX] {
            let mut out = Vec::new();
            write_u64(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
