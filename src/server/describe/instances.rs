//! What the operations of `/models/{model}/instances`, of imports and of batches say of themselves.

use crate::server::openapi::{Operation, Tag};
use crate::server::problem::ProblemType;

pub(in crate::server) fn list() -> Operation {
    Operation::new("listInstances", Tag::Instances, "List instances")
        .details(
            "Filters are parameters `filter[path][operator]=value`; all of them must match, and \
             `filter[or][0][path][operator]=value` makes parts of which one must. Operators: `eq` `ne` `lt` `lte` `gt` `gte` \
             `in` `nin` `like` `ilike` `has` `exists`. A path is dotted; `$id`, `$created_at`, `$updated_at`, `$revision` \
             and `$position` are of the instance itself.",
        )
        .of_each_model()
        .parameters(&["model", "limit", "cursor", "sort", "fields", "count", "expand"])
        .reads()
        .returns(200, "A page of instances.", &["InstancePage"])
        .problems(&[ProblemType::NotFound, ProblemType::TooComplex])
}

pub(in crate::server) fn create() -> Operation {
    Operation::new("createInstance", Tag::Instances, "Create an instance")
        .of_each_model()
        .parameters(&["model"])
        .writes()
        .if_absent()
        .writes_instances()
        .idempotent()
        .takes(&["NewInstance"])
        .shows_data(false)
        .returns(201, "The instance.", &["Instance"])
        .headers(&["Location", "ETag", "Preference-Applied"])
        .returns(200, "With `dry-run=true`: what would happen.", &["DryRun"])
        .problems(&[ProblemType::Exists, ProblemType::NotUnique])
}

pub(in crate::server) fn get() -> Operation {
    Operation::new("getInstance", Tag::Instances, "Read an instance")
        .of_each_model()
        .parameters(&["model", "instance", "at", "expand"])
        .reads_one("The instance.", &["Instance"])
}

pub(in crate::server) fn replace() -> Operation {
    Operation::new("replaceInstance", Tag::Instances, "Replace the data of an instance")
        .details("With `If-None-Match: *` it creates the instance.")
        .of_each_model()
        .parameters(&["model", "instance"])
        .writes()
        .if_match()
        .if_absent()
        .writes_instances()
        .takes(&["Replacement"])
        .shows_data(false)
        .returns(200, "The instance; with `dry-run=true` what would happen.", &["Instance", "DryRun"])
        .headers(&["ETag", "Preference-Applied"])
        .returns(201, "It is created.", &["Instance"])
        .headers(&["Location", "ETag", "Preference-Applied"])
        .returns_nothing(204, "With `Prefer: return=minimal`: done.")
        .headers(&["ETag", "Preference-Applied"])
        .problems(&[ProblemType::NotUnique])
}

pub(in crate::server) fn patch() -> Operation {
    Operation::new("patchInstance", Tag::Instances, "Change some of the data of an instance")
        .details("A merge patch (RFC 7396) of the data: members replace, `null` removes.")
        .of_each_model()
        .parameters(&["model", "instance"])
        .writes()
        .if_match()
        .writes_instances()
        .takes_type("application/merge-patch+json", &["Patch"])
        .shows_data(true)
        .returns(200, "The instance; with `dry-run=true` what would happen.", &["Instance", "DryRun"])
        .headers(&["ETag", "Preference-Applied"])
        .returns_nothing(204, "With `Prefer: return=minimal`: done.")
        .headers(&["ETag", "Preference-Applied"])
        .problems(&[ProblemType::NotUnique])
}

pub(in crate::server) fn delete() -> Operation {
    Operation::new("deleteInstance", Tag::Instances, "Delete an instance")
        .of_each_model()
        .parameters(&["model", "instance"])
        .writes()
        .if_match()
        .writes_instances()
        .returns_nothing(204, "The instance is gone; its history stays.")
        .headers(&["Preference-Applied"])
        .returns(200, "With `dry-run=true`: what would happen.", &["DryRun"])
        .problems(&[ProblemType::Referenced])
}

pub(in crate::server) fn history() -> Operation {
    Operation::new("getInstanceEvents", Tag::Instances, "Read the history of an instance")
        .details("Also of one that was deleted.")
        .of_each_model()
        .parameters(&["model", "instance", "after", "limit"])
        .reads()
        .returns(200, "A page of events.", &["EventPage"])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn referring() -> Operation {
    Operation::new(
        "listReferringInstances",
        Tag::Instances,
        "List the instances of another model that refer to this one",
    )
    .details("Filters, `sort`, `fields` and `expand` name properties of the other model.")
    .parameters(&["model", "instance", "other", "via", "limit", "cursor", "sort", "fields", "count", "expand"])
    .reads()
    .returns(200, "A page of instances.", &["InstancePage"])
    .problems(&[ProblemType::NotFound, ProblemType::TooComplex])
}

pub(in crate::server) fn import() -> Operation {
    Operation::new("importInstances", Tag::Instances, "Import instances")
        .details(
            "A line of JSON for each instance, as `POST …/instances` takes them. A line that fails does not stop the rest; the \
             response lists the first failures.",
        )
        .of_each_model()
        .parameters(&["model", "upsert", "dryRun", "prefer", "minPosition"])
        .idempotent()
        .takes_type("application/x-ndjson", &[])
        .returns(200, "The outcome of the lines.", &["Imported"])
        .problems(&[ProblemType::NotFound, ProblemType::PositionUnknown])
}

pub(in crate::server) fn batch() -> Operation {
    Operation::new("batch", Tag::Instances, "Change several instances, all or none")
        .details(
            "1 to 100 operations on any models. A failure has the problem of the first operation that failed, and its \
             pointers begin with `/operations/N`.",
        )
        .parameters(&["minPosition", "dryRun"])
        .writes_instances()
        .idempotent()
        .takes(&["Batch"])
        .returns(
            200,
            "The instances, `null` for a deletion; with `dry-run=true` what would happen.",
            &["BatchResult", "BatchDryRun"],
        )
        .headers(&["Preference-Applied"])
        .returns_nothing(204, "With `Prefer: return=minimal`: done.")
        .headers(&["Preference-Applied"])
        .problems(&[
            ProblemType::PositionUnknown,
            ProblemType::PreconditionFailed,
            ProblemType::Exists,
            ProblemType::NotUnique,
            ProblemType::Conflict,
            ProblemType::NotSupported,
        ])
}
