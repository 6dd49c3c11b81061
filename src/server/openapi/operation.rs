//! The description of an operation for the OpenAPI document, defined once beside the table of routes.
//!
//! Parameters, headers and schemas are names in `components.json`; a test checks that each exists.

use crate::server::problem::ProblemType;

/// The description of one operation.
#[derive(Clone, Debug)]
pub(in crate::server) struct Operation {
    /// A unique id, from which generated clients derive function names.
    pub(super) id: &'static str,
    pub(super) tag: Tag,
    /// One line.
    pub(in crate::server) summary: &'static str,
    /// Further details in Markdown, if any.
    pub(super) details: &'static str,
    pub(super) parameters: Vec<&'static str>,
    pub(super) body: Option<OperationBody>,
    pub(super) responses: Vec<Success>,
    /// In addition to those that every operation has.
    pub(super) problems: Vec<ProblemType>,
    pub(super) of_each_model: bool,
}

/// The topic of an operation.
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

/// The request body of an operation.
#[derive(Clone, Debug)]
pub(super) struct OperationBody {
    pub(super) content: Vec<(&'static str, Content)>,
    /// Whether it shows an example of the model's data, and how the data is wrapped.
    pub(super) sample: Option<Sample>,
}

/// How a body contains the data of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    /// `{"data": …}`
    Member,
    /// Only the data.
    Whole,
}

/// The contents of a body.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// One of these schemas.
    Schemas(&'static [&'static str]),
    /// Bytes, or text without a schema.
    Opaque,
}

/// A response other than a problem.
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

    /// The operation exists for each model: the document also contains it with each model's own schema.
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
        operation
            .body
            .get_or_insert(OperationBody { content: Vec::new(), sample: None })
            .content
            .push((media_type, content));
        operation
    }

    /// The body has an example: `{"data": …}`, or only the data.
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

    /// Headers of the last response, in addition to common ones; names in `components.headers`.
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

    /// It reads derived state, and on request waits until this node has caught up to a position.
    pub(in crate::server) fn reads(self) -> Operation {
        self.parameters(&["minPosition", "minPositionQuery"]).problems(&[ProblemType::PositionUnknown])
    }

    /// A read of one thing with an entity tag.
    pub(in crate::server) fn reads_one(self, description: &'static str, schema: &'static [&'static str]) -> Operation {
        self.reads()
            .parameters(&["ifMatch", "ifNoneMatch"])
            .returns(200, description, schema)
            .headers(&["ETag"])
            .returns_nothing(304, "Unchanged: it matches `If-None-Match`.")
            .headers(&["ETag"])
            .problems(&[ProblemType::NotFound, ProblemType::PreconditionFailed])
    }

    /// A change that becomes an event; supports dry runs and preconditions.
    pub(in crate::server) fn writes(self) -> Operation {
        self.parameters(&["minPosition", "dryRun"]).problems(&[
            ProblemType::PositionUnknown,
            ProblemType::PreconditionFailed,
            ProblemType::Conflict,
        ])
    }

    /// It supports `If-Match`.
    pub(in crate::server) fn if_match(self) -> Operation {
        self.parameters(&["ifMatch"])
    }

    /// It supports `If-None-Match: *` for creations.
    pub(in crate::server) fn if_absent(self) -> Operation {
        self.parameters(&["ifNoneMatchAny"])
    }

    /// A change of an instance, on which hooks run.
    pub(in crate::server) fn writes_instances(self) -> Operation {
        self.parameters(&["prefer"]).problems(&[
            ProblemType::NotFound,
            ProblemType::Invalid,
            ProblemType::Rejected,
            ProblemType::TooComplex,
            ProblemType::HookFailed,
        ])
    }

    /// It supports idempotency keys: a repeated request gets the same response.
    pub(in crate::server) fn idempotent(self) -> Operation {
        self.parameters(&["idempotencyKey"]).problems(&[ProblemType::KeyReused])
    }
}
