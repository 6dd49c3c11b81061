//! The id of this node: created at its first start, stored in `data/node.id`.

use std::io::{self, Write as _};
use std::path::Path;

use snaphook_driver::files::make_folder;

const FILE: &str = "data/node.id";
/// The default folder of all data.
const FOLDER: &str = "data";

/// The node's id, a UUID; creates it if it does not exist. An error names the file.
pub fn node_id(directory: &Path) -> Result<String, String> {
    let path = directory.join(FILE);
    let fault = |error: io::Error| format!("`{}`, the id of this node, cannot be used: {error}", path.display());
    warn_if_others_can_read(&directory.join(FOLDER));
    match std::fs::read_to_string(&path) {
        Ok(text) => match uuid::Uuid::parse_str(text.trim()) {
            Ok(id) => Ok(id.to_string()),
            Err(_) => {
                Err(format!("`{}` does not contain a UUID; remove it, and the node gets a new id", path.display()))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path).map_err(fault),
        Err(error) => Err(fault(error)),
    }
}

/// Creates the file atomically; of two concurrent attempts, the first one wins.
fn make(path: &Path) -> io::Result<String> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    make_folder(folder)?;
    let id = uuid::Uuid::now_v7().to_string();
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{id}")?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(id),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::read_to_string(path).map(|text| text.trim().to_owned())
        }
        Err(error) => Err(error.error),
    }
}

/// Existing folders keep their mode, including those of earlier versions.
#[cfg(unix)]
fn warn_if_others_can_read(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(folder).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o007 != 0 {
        tracing::warn!(
            "`{}` has mode {:03o}: other users of this machine may read the data, expected 700",
            folder.display(),
            mode & 0o777
        );
    }
}

#[cfg(not(unix))]
fn warn_if_others_can_read(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let id = node_id(folder.path()).unwrap();
        assert_eq!(node_id(folder.path()).unwrap(), id);
        std::fs::write(folder.path().join(FILE), "no id").unwrap();
        let error = node_id(folder.path()).unwrap_err();
        assert!(error.contains("node.id` does not contain a UUID"), "{error}");
    }
}
