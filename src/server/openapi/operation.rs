//! What an operation of the API says of itself: for the OpenAPI document, written once beside the table of routes.
//!
//! Parameters, headers and schemas are names in `components.json`; a test looks each of them up.

use crate::server::problem::ProblemType;

/// The description of one operation.
#[derive(Clone, Debug)]
pub(in crate::server) struct Operation {
    /// Unique; clients that are generated name their functions so.
    pub(super) id: &'static str,
    pub(super) tag: Tag,
    /// One line.
    pub(in crate::server) summary: &'static str,
    /// More than a line, if there is more to say. Markdown.
    pub(super) details: &'static str,
    pub(super) parameters: Vec<&'static str>,
    pub(super) body: Option<Body>,
    pub(super) responses: Vec<Success>,
    /// Besides those that every operation has.
    pub(super) problems: Vec<ProblemType>,
    pub(super) of_each_model: bool,
}

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Tag {
    Models,
    Hooks,
    Instances,
    Events,
    Errors,
    Access,
    Server,
}

impl Tag {
    /// Its name, and one line about it.
    pub(super) const ALL: [(Tag, &'static str, &'static str); 7] = [
        (Tag::Models, "models", "Kinds of entities: their JSON Schemas, indexes and unique keys."),
        (Tag::Hooks, "hooks", "Code that runs before and after changes."),
        (Tag::Instances, "instances", "The entities of any model."),
        (Tag::Events, "events", "What happened: the log of all changes, in pages and live."),
        (Tag::Errors, "errors", "Post hooks that failed for good, and jobs that run them again."),
        (Tag::Access, "access", "Tokens, and secrets for hooks."),
        (Tag::Server, "server", "The server itself: its health, its nodes, its backups."),
    ];

    pub(super) fn name(self) -> &'static str {
        Tag::ALL.iter().find(|(tag, ..)| *tag == self).map_or("", |(_, name, _)| name)
    }
}

/// What an operation takes.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) content: Vec<(&'static str, Content)>,
    /// Whether an example of the model's data is shown in it, and how it is wrapped.
    pub(super) sample: Option<Sample>,
}

/// How the data of an instance stands in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    /// `{"data": …}`
    Member,
    /// Alone.
    Whole,
}

/// What stands in a body.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// One of these schemas.
    Schemas(&'static [&'static str]),
    /// Bytes, or text that has no schema.
    Opaque,
}

/// A response that is no problem.
#[derive(Clone, Debug)]
pub(super) struct Success {
    pub(super) status: u16,
    pub(super) description: &'static str,
    pub(super) content: Vec<(&'static str, Content)>,
    pub(super) headers: Vec<&'static str>,
}

const JSON: &str = "application/json";

impl Operation {
    pub(in crate::server) fn new(id: &'static str, tag: Tag, summary: &'static str) -> Operation {
        Operation {
            id,
            tag,
            summary,
            details: "",
            parameters: Vec::new(),
            body: None,
            responses: Vec::new(),
            problems: Vec::new(),
            of_each_model: false,
        }
    }

    pub(in crate::server) fn details(mut self, details: &'static str) -> Operation {
        self.details = details;
        self
    }

    /// It is there for each model: the document also has it with the model's own schema.
    pub(in crate::server) fn of_each_model(mut self) -> Operation {
        self.of_each_model = true;
        self
    }

    /// Names in `components.parameters`.
    pub(in crate::server) fn parameters(mut self, names: &[&'static str]) -> Operation {
        self.parameters.extend(names);
        self
    }

    /// A body of JSON.
    pub(in crate::server) fn takes(self, schema: &'static [&'static str]) -> Operation {
        self.takes_type(JSON, schema)
    }

    /// A body of a media type, or of one more.
    pub(in crate::server) fn takes_type(self, media_type: &'static str, schema: &'static [&'static str]) -> Operation {
        let content = if schema.is_empty() { Content::Opaque } else { Content::Schemas(schema) };
        let mut operation = self.problems(&[ProblemType::TooLarge, ProblemType::UnsupportedMediaType]);
        operation.body.get_or_insert(Body { content: Vec::new(), sample: None }).content.push((media_type, content));
        operation
    }

    /// The body has an example: `{"data": …}`, or the data alone.
    pub(in crate::server) fn shows_data(mut self, whole: bool) -> Operation {
        if let Some(body) = &mut self.body {
            body.sample = Some(if whole { Sample::Whole } else { Sample::Member });
        }
        self
    }

    /// A response without a body.
    pub(in crate::server) fn returns_nothing(mut self, status: u16, description: &'static str) -> Operation {
        self.responses.push(Success { status, description, content: Vec::new(), headers: Vec::new() });
        self
    }

    /// A response of JSON, of one of some schemas.
    pub(in crate::server) fn returns(
        self,
        status: u16,
        description: &'static str,
        schemas: &'static [&'static str],
    ) -> Operation {
        self.returns_nothing(status, description).or_type(JSON, schemas)
    }

    /// The last response may have this media type. Without a schema it is text or bytes.
    pub(in crate::server) fn or_type(
        mut self,
        media_type: &'static str,
        schemas: &'static [&'static str],
    ) -> Operation {
        let content = if schemas.is_empty() { Content::Opaque } else { Content::Schemas(schemas) };
        if let Some(response) = self.responses.last_mut() {
            response.content.push((media_type, content));
        }
        self
    }

    /// Headers of the last response, besides those that all have; names in `components.headers`.
    pub(in crate::server) fn headers(mut self, names: &[&'static str]) -> Operation {
        if let Some(response) = self.responses.last_mut() {
            response.headers.extend(names);
        }
        self
    }

    pub(in crate::server) fn problems(mut self, problems: &[ProblemType]) -> Operation {
        self.problems.extend(problems);
        self
    }

    /// It reads what the log has made, and waits until this node has come that far if asked.
    pub(in crate::server) fn reads(self) -> Operation {
        self.parameters(&["minPosition", "minPositionQuery"]).problems(&[ProblemType::PositionUnknown])
    }

    /// A read of one thing with an entity tag.
    pub(in crate::server) fn reads_one(self, description: &'static str, schema: &'static [&'static str]) -> Operation {
        self.reads()
            .parameters(&["ifMatch", "ifNoneMatch"])
            .returns(200, description, schema)
            .headers(&["ETag"])
            .returns_nothing(304, "It is still what `If-None-Match` says.")
            .headers(&["ETag"])
            .problems(&[ProblemType::NotFound, ProblemType::PreconditionFailed])
    }

    /// A change that becomes an event, which can be tried and has preconditions.
    pub(in crate::server) fn writes(self) -> Operation {
        self.parameters(&["minPosition", "dryRun"]).problems(&[
            ProblemType::PositionUnknown,
            ProblemType::PreconditionFailed,
            ProblemType::Conflict,
        ])
    }

    /// What it changes must be as `If-Match` says.
    pub(in crate::server) fn if_match(self) -> Operation {
        self.parameters(&["ifMatch"])
    }

    /// What it makes must not be there yet.
    pub(in crate::server) fn if_absent(self) -> Operation {
        self.parameters(&["ifNoneMatchAny"])
    }

    /// A change of an instance: hooks look at it.
    pub(in crate::server) fn writes_instances(self) -> Operation {
        self.parameters(&["prefer"]).problems(&[
            ProblemType::NotFound,
            ProblemType::Invalid,
            ProblemType::Rejected,
            ProblemType::TooComplex,
            ProblemType::HookFailed,
        ])
    }

    /// The same request again gives the same response.
    pub(in crate::server) fn idempotent(self) -> Operation {
        self.parameters(&["idempotencyKey"]).problems(&[ProblemType::KeyReused])
    }
}
