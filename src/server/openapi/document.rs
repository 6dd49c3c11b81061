//! One document: the general part and the models that fit into it.

use std::sync::Arc;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::general::{Described, General, tags};
use super::model::ModelPart;
use super::render::Security;
use crate::catalog::{Effort, Model, Unfit};
use crate::memory::{Lease, Share};

/// Maximum bytes of the models in one document. Browsers can show a few MiB, and building them takes a fraction of a
/// second.
const MODELS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Expected bytes of a model besides its schema.
const MODEL_BYTES: usize = 24 * 1024;

/// A document, and its memory.
pub(super) struct OpenApiDocument {
    /// The fingerprint of its content.
    pub(super) fingerprint: Fingerprint,
    pub(super) text: Vec<u8>,
    _memory: Lease<Arc<Share>>,
}

/// The content of a document: the general part, and models at their versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(general: &General, models: &[Arc<Model>]) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update(general.digest);
        for model in models {
            let record = &model.record;
            hash.update(record.id.len().to_le_bytes());
            hash.update(&record.id);
            hash.update(record.version.to_le_bytes());
            // A model that was deleted and created again has version 1 again.
            hash.update(record.position.to_le_bytes());
        }
        Fingerprint(hash.finalize().into())
    }

    /// With its quotes.
    pub(super) fn tag(&self) -> String {
        let digits: String = self.0[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\"{digits}\"")
    }
}

/// Expected memory for building a document.
pub(super) fn bytes_expected(models: &[Arc<Model>]) -> usize {
    let models = models.iter().map(|model| 2 * model.record.schema.len() + MODEL_BYTES);
    // The parts, and the text built from them.
    2 * models.sum::<usize>().min(MODELS_BYTES_MAX)
}

impl OpenApiDocument {
    /// The document of these models, sorted by id, or of the first ones that fit. The error: nobody waits for it.
    pub(super) fn build(
        general: &General,
        table: &[Described],
        security: Security,
        models: &[Arc<Model>],
        mut memory: Lease<Arc<Share>>,
        effort: &Effort,
    ) -> Result<OpenApiDocument, Unfit> {
        let mut parts: Vec<ModelPart> = Vec::new();
        let mut bytes = 0;
        for model in models {
            let part = ModelPart::of(model, table, security, effort)?;
            bytes += part.bytes();
            if bytes > MODELS_BYTES_MAX && !parts.is_empty() {
                break;
            }
            parts.push(part);
        }
        // The next document continues after the last shown model.
        let next = models.get(parts.len()).and(models.get(parts.len().wrapping_sub(1))).map(|model| &*model.record.id);
        let shown = json!({ "shown": parts.len(), "left_out": models.len() - parts.len(), "next": next });
        let mut text = Vec::with_capacity(bytes.min(MODELS_BYTES_MAX) + 128 * 1024);
        let mut put = |piece: &str| text.extend_from_slice(piece.as_bytes());
        put("{");
        put(&general.head);
        put(",\"x-snaphook-models\":");
        put(&shown.to_string());
        put(",\"tags\":[");
        let tags: Vec<String> = tags().iter().map(ToString::to_string).collect();
        put(&tags.join(","));
        for part in &parts {
            put(",");
            put(&part.tag);
        }
        put("],\"paths\":{");
        put(&general.paths);
        for part in &parts {
            put(",");
            put(&part.paths);
        }
        put("},\"components\":{\"schemas\":{");
        put(&general.schemas);
        for part in &parts {
            put(",");
            put(&part.schemas);
        }
        put("},");
        put(&general.rest);
        put("}}");
        text.shrink_to_fit();
        memory.resize_anyway(text.capacity());
        Ok(OpenApiDocument { fingerprint: Fingerprint::of(general, models), text, _memory: memory })
    }
}
