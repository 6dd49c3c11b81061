//! Descriptions of the operations of `/models`.

use crate::server::openapi::{Operation, Tag};
use crate::server::problem::ProblemType;

pub(in crate::server) fn list() -> Operation {
    Operation::new("listModels", Tag::Models, "List the models")
        .details("All models that the caller may read, on one page.")
        .reads()
        .returns(200, "The models.", &["ModelPage"])
}

pub(in crate::server) fn create() -> Operation {
    Operation::new("createModel", Tag::Models, "Create a model")
        .writes()
        .if_absent()
        .parameters(&["prefer"])
        .idempotent()
        .takes(&["NewModel"])
        .returns(201, "The model, in use.", &["Model"])
        .headers(&["Location", "ETag", "Preference-Applied"])
        .returns(200, "With `dry-run=true`: the event that would be written.", &["DryRun"])
        .problems(&[ProblemType::Exists, ProblemType::Invalid, ProblemType::TooComplex])
}

pub(in crate::server) fn get() -> Operation {
    Operation::new("getModel", Tag::Models, "Read a model")
        .parameters(&["model", "version"])
        .reads_one("The model.", &["Model"])
}

pub(in crate::server) fn update() -> Operation {
    Operation::new("updateModel", Tag::Models, "Change a model")
        .details(
            "The new version must fit every instance that the model has; 422 `incompatible` lists the first that do not. \
             The same definition again changes nothing.",
        )
        .parameters(&["model"])
        .writes()
        .if_match()
        .parameters(&["prefer"])
        .takes(&["ModelUpdate"])
        .returns(200, "The model, its new version in use; with `dry-run=true` the event that would be written.", &[
            "Model", "DryRun",
        ])
        .headers(&["ETag", "Preference-Applied"])
        .returns_nothing(204, "With `Prefer: return=minimal`: done.")
        .headers(&["ETag", "Preference-Applied"])
        .problems(&[
            ProblemType::NotFound,
            ProblemType::NotUnique,
            ProblemType::Invalid,
            ProblemType::Incompatible,
            ProblemType::TooComplex,
        ])
}

pub(in crate::server) fn delete() -> Operation {
    Operation::new("deleteModel", Tag::Models, "Delete a model")
        .parameters(&["model", "cascade"])
        .writes()
        .if_match()
        .returns_nothing(204, "The model is gone.")
        .returns(200, "With `dry-run=true`: the event that would be written.", &["DryRun"])
        .problems(&[ProblemType::NotFound, ProblemType::ModelInUse, ProblemType::Invalid])
}
