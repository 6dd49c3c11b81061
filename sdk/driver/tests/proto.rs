//! Checks that the files generated from `proto/driver.proto` are up to date.

use std::path::Path;

use prost::Message as _;

#[test]
fn what_is_generated_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::Compiler::new([root.join("proto")])
        .unwrap()
        .include_source_info(true)
        .open_files(["driver.proto"])
        .unwrap()
        .file_descriptor_set();
    let folder = tempfile::tempdir().unwrap();
    prost_build::Config::new().out_dir(folder.path()).compile_fds(files.clone()).unwrap();
    let code = std::fs::read_to_string(folder.path().join("snaphook.driver.v1.rs")).unwrap();
    let code =
        format!("//! Generated from `proto/driver.proto` by `tests/proto.rs`: do not edit.\n\n{code}").into_bytes();
    let mut description = files;
    // Comments are most of the description.
    description.file.iter_mut().for_each(|file| file.source_code_info = None);
    for (path, made) in [("src/wire/proto.rs", code), ("proto/driver.binpb", description.encode_to_vec())] {
        let path = root.join(path);
        if std::env::var_os("SNAPHOOK_BLESS").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read(&path).unwrap_or_default();
        assert!(
            kept == made,
            "`{}` does not match the description; SNAPHOOK_BLESS=1 cargo test -p snaphook-driver --test proto writes it",
            path.display()
        );
    }
}
