//! The tables of the log.
//!
//! `log` has one row. Every change of the log locks it first, so positions are assigned in the order of commits.
//! `instance` is empty in the events of a model's definition. Each index of `events` except the first ends with a
//! different expression whose value is the position. PostgreSQL has no hints, and its statistics of the log may be
//! outdated, so a query selects its index by this expression; then the planner cannot use the index over the position
//! instead.
//!
//! A claim is found by the SHA-256 of its key, because keys may be too long for an index. The index orders keys by
//! their first characters; keys with the same first characters are sorted when they are read.
//!
//! `pending` contains the oldest event of each stream that a group has not acknowledged at or before its cursor. `due`
//! is the time from which it may be delivered (again), `token` is 0 while nobody has a lease, and `owner` is the opened
//! store that has it.

use crate::migrate::Tables;

pub(super) const TABLES: Tables = Tables {
    store: "event",
    steps: &[
        "CREATE TABLE @.log(
        one bool PRIMARY KEY CHECK (one),
        identity text COLLATE \"C\" NOT NULL,
        head int8 NOT NULL,
        time int8 NOT NULL,
        next_removal int8 NOT NULL,
        importing bool NOT NULL) WITH (fillfactor = 10);
    CREATE TABLE @.events(
        position int8 PRIMARY KEY,
        time int8 NOT NULL,
        model_version int8 NOT NULL,
        revision int8 NOT NULL,
        kind int2 NOT NULL,
        model text COLLATE \"C\" NOT NULL,
        instance text COLLATE \"C\" NOT NULL,
        id text COLLATE \"C\" NOT NULL,
        request_id text COLLATE \"C\",
        actor text COLLATE \"C\",
        cause text COLLATE \"C\",
        hooks text COLLATE \"C\",
        data text COLLATE \"C\");
    CREATE INDEX events_model ON @.events(model, (position + 0));
    CREATE INDEX events_stream ON @.events(model, instance, (position * 1));
    CREATE INDEX events_definitions ON @.events((position - 0)) WHERE instance = '';
    CREATE TABLE @.streams(
        model text COLLATE \"C\" NOT NULL,
        instance text COLLATE \"C\" NOT NULL,
        position int8 NOT NULL,
        ended bool NOT NULL,
        PRIMARY KEY (model, instance)) WITH (fillfactor = 80);
    CREATE TABLE @.claims(
        digest bytea PRIMARY KEY,
        position int8 NOT NULL,
        expires int8,
        model text COLLATE \"C\" NOT NULL,
        instance text COLLATE \"C\" NOT NULL,
        value text COLLATE \"C\",
        key text COLLATE \"C\" NOT NULL);
    CREATE INDEX claims_order ON @.claims((left(key, 500)));
    CREATE INDEX claims_expires ON @.claims(expires) WHERE expires IS NOT NULL;
    CREATE TABLE @.blobs(sha256 text COLLATE \"C\" PRIMARY KEY, bytes bytea NOT NULL);
    ALTER TABLE @.blobs ALTER COLUMN bytes SET STORAGE EXTERNAL;
    CREATE UNLOGGED TABLE @.nodes(
        id text COLLATE \"C\" PRIMARY KEY,
        address text COLLATE \"C\" NOT NULL,
        version text COLLATE \"C\" NOT NULL,
        position int8 NOT NULL,
        head int8 NOT NULL,
        kept timestamptz NOT NULL);
    CREATE SEQUENCE @.tokens;
    CREATE TABLE @.groups(
        number int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        cursor int8 NOT NULL,
        kinds int2[] NOT NULL,
        name text COLLATE \"C\" NOT NULL UNIQUE,
        filter text COLLATE \"C\" NOT NULL) WITH (fillfactor = 50);
    CREATE TABLE @.pending(
        group_number int8 NOT NULL REFERENCES @.groups(number) ON DELETE CASCADE,
        position int8 NOT NULL,
        due timestamptz NOT NULL,
        token int8 NOT NULL,
        owner int8 NOT NULL,
        attempt int8 NOT NULL,
        model text COLLATE \"C\" NOT NULL,
        instance text COLLATE \"C\" NOT NULL,
        note text COLLATE \"C\",
        PRIMARY KEY (group_number, position),
        UNIQUE (group_number, model, instance)) WITH (fillfactor = 70);
    CREATE INDEX pending_due ON @.pending(group_number, due, position);",
        "ALTER TABLE @.events ADD COLUMN trace text COLLATE \"C\"",
    ],
};
