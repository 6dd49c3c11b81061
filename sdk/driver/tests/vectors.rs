//! The test vectors for drivers in other languages: messages in both forms, and the meaning of conversions of data.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Value, json};
use snaphook_driver::wire::{Malformed, from_json, proto, to_json};
use snaphook_driver::{
    Actor, ActorKind, Append, Appended, CarryOver, Cause, Claim, Condition, Conflict, Delivery, DriverError, ErrorKind,
    ErrorRecord, Event, EventFilter, EventKind, EventPage, Expected, Filter, Group, Holder, Instance, Json, LogRecord,
    Meta, ModelShape, Operator, Path as Place, PendingEvent, Provenance, Quiet, Require, SortKey, Stream, json as text,
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto").join(name)
}

/// One message in both forms.
fn vector(name: &str, message: &impl Message) -> Value {
    let bytes = message.encode_to_vec();
    let json = text::parse_bytes(&to_json(name, &bytes).unwrap()).unwrap();
    json!({"message": name, "json": json, "protobuf": STANDARD.encode(bytes)})
}

/// Checks that a value of the traits survives the conversion to a message and back.
fn vector_of<T, M>(name: &str, value: &T) -> Value
where
    T: PartialEq + Debug + TryFrom<M, Error = Malformed>,
    M: Message + Default + for<'a> From<&'a T>,
{
    let message = M::from(value);
    let read = M::decode(&*message.encode_to_vec()).unwrap();
    assert_eq!(T::try_from(read).unwrap(), *value, "{name}");
    vector(name, &message)
}

fn event() -> Event {
    Event {
        position: 1 << 60,
        id: "018f".into(),
        kind: EventKind::InstanceUpdated,
        model: "order".into(),
        model_version: 3,
        instance: Some("ä/😀".into()),
        revision: 2,
        data: Some(Json::trusted(r#"{"n": 12345678901234567890.10}"#)),
        actor: Some(Arc::new(Actor::new(ActorKind::Oidc, "ann").with_claims(&Json::trusted(r#"{"team":"a"}"#)))),
        cause: Some(Cause { position: 7, hook: "order.postCreate/mail".into(), depth: 1 }),
        hooks: vec![Provenance {
            name: "check".into(),
            engine: "quickjs".into(),
            artifact: "sha256:0".into(),
            ms: 0.25,
        }],
        request_id: Some("r-1".into()),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 a=1".into()),
        time: -1,
    }
}

fn least_event() -> Event {
    Event {
        position: 0,
        kind: EventKind::ModelDeleted,
        instance: None,
        data: None,
        actor: None,
        cause: None,
        hooks: Vec::new(),
        request_id: None,
        trace: None,
        time: 0,
        ..event()
    }
}

fn appends() -> Vec<Append> {
    let full = Append {
        event: event(),
        expected: Expected::At(41),
        requires: vec![Require { stream: Stream::of_model("order"), position: 3 }],
        quiet: Some(Quiet { model: "order".into(), since: 40 }),
        claims: vec![
            Claim::new("u\0order\0email"),
            Claim {
                key: "k".into(),
                holder: Some(Stream::of_instance("order", "2")),
                replaces: Some(0),
                expires: Some(9),
                value: Some(String::new()),
            },
        ],
        releases: vec!["old".into()],
    };
    vec![full, Append::new(least_event(), Expected::New), Append::new(least_event(), Expected::Any)]
}

fn outcomes() -> Vec<Result<Appended, Conflict>> {
    let holder = Holder::new(Stream::of_instance("order", "1"), 4);
    vec![
        Ok(Appended { position: 42, time: 1_700_000_000_000, after: 41 }),
        Err(Conflict::Stream { last: 0, ended: false }),
        Err(Conflict::Stream { last: 9, ended: true }),
        Err(Conflict::Required { stream: Stream::of_model("order"), last: 5 }),
        Err(Conflict::NotQuiet { last: 0 }),
        Err(Conflict::Claimed { key: "k".into(), holder }),
        Err(Conflict::Batch),
    ]
}

fn conditions() -> Vec<Filter> {
    let value = || json!("x");
    let is = |path: Place, operator| Filter::from(Condition { path, operator });
    let compared: Vec<Filter> = [
        Operator::Eq(text::parse("1.10").unwrap()),
        Operator::Ne(value()),
        Operator::Lt(value()),
        Operator::Lte(value()),
        Operator::Gt(value()),
        Operator::Gte(json!(null)),
        Operator::In(vec![json!(1), json!(true)]),
        Operator::Nin(Vec::new()),
        Operator::Like("%a_".into()),
        Operator::Exists(false),
        Operator::Ilike("%a_".into()),
        Operator::Has(json!(5)),
    ]
    .into_iter()
    .map(|operator| is(vec!["customer".into(), "name".into()].into(), operator))
    .collect();
    let metas = Meta::ALL.map(|meta| is(meta.into(), Operator::Gt(json!(1_700_000_000_000_i64))));
    let not = Filter::Not(Box::new(compared[0].clone()));
    let joined = [
        Filter::Or(vec![compared[1].clone(), Filter::And(vec![not.clone(), metas[0].clone()])]),
        Filter::And(Vec::new()),
        Filter::Or(Vec::new()),
        not,
    ];
    compared.into_iter().chain(metas).chain(joined).collect()
}

fn records() -> Vec<LogRecord> {
    let group = Group {
        name: "hooks:order".into(),
        filter: EventFilter {
            model: Some("order".into()),
            kinds: vec![EventKind::InstanceCreated],
            ..EventFilter::default()
        },
    };
    vec![
        LogRecord::Event(event()),
        LogRecord::Claim { key: "k".into(), holder: Holder::new(Stream::of_model("order"), 1) },
        LogRecord::Blob { sha256: "00".into(), bytes: vec![0, 255] },
        LogRecord::Group { group, cursor: 7 },
        LogRecord::Pending {
            group: "hooks:order".into(),
            events: vec![PendingEvent { position: 5, attempt: 2, due: 0, note: Some("n".into()) }],
        },
    ]
}

fn vectors() -> Vec<Value> {
    let shape = ModelShape {
        model: "order".into(),
        version: 2,
        columns: Vec::new(),
        indexes: vec![vec![SortKey { path: vec!["n".into()].into(), descending: true }]],
        unique: vec![vec!["email".into()]],
        record: Json::trusted("{}"),
    };
    let instance = Instance {
        id: "1".into(),
        model: "order".into(),
        model_version: 2,
        revision: 1,
        position: 42,
        created_at: 1,
        updated_at: 2,
        data: Json::trusted("{\"a\":1}"),
    };
    let record = ErrorRecord {
        id: "018f".into(),
        time: 5,
        model: "order".into(),
        phase: "postCreate".into(),
        hook: "mail".into(),
        engine: "v8".into(),
        artifact: "sha256:0".into(),
        event: event(),
        attempts: 8,
        cause: "timeout".into(),
        message: "it took too long".into(),
        limit: Some("timeout 500 ms".into()),
        log: vec!["a".into()],
    };
    let delivery = Delivery { event: event(), attempt: 1, token: u64::MAX, note: None };
    let carry = CarryOver { renames: vec![("a".into(), "b".into())], defaults: vec![("c".into(), json!([1]))] };
    let error = DriverError::new(ErrorKind::Full, "append", "the disk is full").with("path", "a").because("no room");
    let page = EventPage { events: vec![event(), least_event()], head: 9, reached: 8 };
    let mut vectors = vec![
        vector("Error", &proto::Error::from(&error)),
        vector_of::<Event, proto::Event>("Event", &event()),
        vector_of::<EventPage, proto::EventReadResponse>("EventReadResponse", &page),
        vector_of::<Delivery, proto::Delivery>("Delivery", &delivery),
        vector_of::<ModelShape, proto::ModelShape>("ModelShape", &shape),
        vector_of::<CarryOver, proto::CarryOver>("CarryOver", &carry),
        vector_of::<Instance, proto::Instance>("Instance", &instance),
        vector_of::<ErrorRecord, proto::ErrorRecord>("ErrorRecord", &record),
    ];
    vectors.extend(appends().iter().map(|append| vector_of::<Append, proto::Append>("Append", append)));
    vectors.extend(outcomes().iter().map(|outcome| vector("AppendOutcome", &proto::AppendOutcome::from(outcome))));
    vectors.extend(conditions().iter().map(|filter| vector_of::<Filter, proto::Condition>("Condition", filter)));
    vectors.extend(records().iter().map(|record| vector_of::<LogRecord, proto::LogRecord>("LogRecord", record)));
    vectors
}

#[test]
fn messages_are_the_same_in_both_forms() {
    let path = file("messages.json");
    let made = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    if std::env::var_os("SNAPHOOK_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(
        kept == made,
        "`messages.json` does not match the types; SNAPHOOK_BLESS=1 cargo test -p snaphook-driver writes it"
    );
    for vector in text::parse(&kept).unwrap().as_array().unwrap() {
        let name = vector["message"].as_str().unwrap();
        let bytes = STANDARD.decode(vector["protobuf"].as_str().unwrap()).unwrap();
        assert_eq!(from_json(name, vector["json"].to_string().as_bytes()).unwrap(), bytes, "{vector}");
    }
}

#[test]
fn json_is_read_as_others_write_it() {
    // 64-bit numbers as JSON numbers, names in snake_case, unknown members, URL-safe base64.
    let json = br#"{"name": "a", "bytes": "-_8=", "expected": 7, "later": {"x": [1.5e3]}}"#;
    let put = proto::SecurePutRequest::decode(&*from_json("SecurePutRequest", json).unwrap()).unwrap();
    assert_eq!((put.bytes, put.expected), (vec![0xfb, 0xff], Some(7)));
    let release = br#"{"group": "g", "position": "18446744073709551615", "delay_ms": 5}"#;
    let release = proto::EventReleaseRequest::decode(&*from_json("EventReleaseRequest", release).unwrap()).unwrap();
    assert_eq!((release.position, release.delay_ms), (u64::MAX, 5));
    for json in ["{", "[]", r#"{"position": "x"}"#, r#"{"position": 1e400}"#, r#"{"position": -1}"#] {
        assert!(from_json("EventReleaseRequest", json.as_bytes()).is_err(), "{json}");
    }
    // A duplicate member is ambiguous.
    assert!(from_json("EventReleaseRequest", br#"{"position": 1, "position": 2}"#).is_err());
}

#[test]
fn data_is_carried_over_as_the_vectors_say() {
    let vectors = text::parse(&std::fs::read_to_string(file("carry_over.json")).unwrap()).unwrap();
    for vector in vectors.as_array().unwrap() {
        let bytes = from_json("CarryOver", vector["carry"].to_string().as_bytes()).unwrap();
        let carry = CarryOver::try_from(proto::CarryOver::decode(&*bytes).unwrap()).unwrap();
        let mut data = vector["before"].as_object().unwrap().clone();
        carry.apply(&mut data);
        // Compared as text, because the order matters.
        assert_eq!(Value::Object(data).to_string(), vector["after"].to_string(), "{}", vector["name"]);
    }
}
