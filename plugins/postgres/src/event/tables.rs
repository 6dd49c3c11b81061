//! The tables of the log.
//!
//! `log` has one row: whoever changes the log locks it first, so that positions are given out in the order of commits.
//! `instance` is empty in the events of a model's definition. Each index of `events` but the first ends with an expression of
//! its own, which means no more than the position: PostgreSQL takes no hints and guesses from what the log was like some time
//! ago, so a query names the index that serves it by that expression, and the one by position cannot be taken instead.
//!
//! A claim is found by the SHA-256 of its key, since keys may be longer than an index takes; the order of keys is that of
//! their first characters, and what is equal there is sorted when it is read.
//!
//! `pending` has the oldest event of each stream that a group has not acknowledged at or before its cursor: `due` is when it
//! may be handed out (again), `token` is 0 while nobody has it, `owner` says which opened store has it.

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
