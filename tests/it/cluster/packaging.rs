//! The packaging files of a cluster, checked by the programs that read them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use snaphook_driver_testkit::servers::nats;

use crate::openapi::tools;
use crate::support::skip;

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path)
}

#[test]
fn units_are_as_systemd_wants_them() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["snaphook.service", "nats-server.service"] {
        let text = std::fs::read_to_string(file(&format!("systemd/{name}"))).expect("a unit");
        // The programs are not installed here.
        let here = text.replace("/usr/local/bin/", &format!("{}/", folder.path().display()));
        assert_ne!(here, text);
        std::fs::write(folder.path().join(name), here).expect("written");
        let program = folder.path().join(name.trim_end_matches(".service"));
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_snaphook"), program).expect("a link");
        let verify = || Command::new("systemd-analyze").arg("verify").arg(folder.path().join(name)).output();
        let Ok(output) = verify() else {
            return skip("units of systemd", "no `systemd-analyze` on the PATH; `cargo xtask test` installs it");
        };
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
        // The checker reports unknown settings.
        let path = folder.path().join(name);
        let wrong = std::fs::read_to_string(&path).expect("a unit").replace("Restart=", "Restarts=");
        std::fs::write(&path, wrong).expect("written");
        let output = verify().expect("it ran before");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Restarts"), "{name}");
    }
}

#[test]
fn the_configuration_of_nats_servers_passes_their_check() {
    let program = std::env::var_os(nats::FOLDER).map_or_else(PathBuf::new, PathBuf::from).join("nats-server");
    let output = Command::new(program)
        .args(["-t", "-c"])
        .arg(file("systemd/nats.conf"))
        .env("NATS_PASSWORD", "x")
        .output()
        .expect("`cargo xtask test` installs nats-server");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("is valid"), "{said}");
}

#[test]
fn compose_files_name_what_is_there() {
    let Some(mut python) = tools::python("python") else { return };
    let script = "import json, sys, yaml; print(json.dumps([yaml.safe_load(open(path)) for path in sys.argv[1:]]))";
    let names = ["compose-postgres.yaml", "compose-nats.yaml"];
    let paths = names.map(|name| file(&format!("container/{name}")));
    let printed = tools::run(python.arg("-c").arg(script).args(&paths));
    let files: Vec<Value> = serde_json::from_str(&printed).expect("JSON");
    for (compose, name) in files.iter().zip(names) {
        let services = compose["services"].as_object().expect("services");
        assert!(services.contains_key("node"), "{name}");
        for (service, told) in services {
            let list = |key: &str| -> Vec<&str> {
                told[key].as_array().into_iter().flatten().map(|item| item.as_str().expect("a text")).collect()
            };
            assert!(told["image"].is_string(), "{name}: {service}");
            list("depends_on").iter().for_each(|other| assert!(services.contains_key(*other), "{name}: {other}"));
            for volume in list("volumes") {
                let from = volume.split(':').next().expect("a place");
                match from.strip_prefix("./").or(from.strip_prefix("../")) {
                    // The only file that an admin provides.
                    Some("config.toml") => {}
                    Some(_) => assert!(file("container").join(from).is_file(), "{name}: {volume}"),
                    None => assert!(compose["volumes"][from].is_object(), "{name}: {volume}"),
                }
            }
        }
    }
}
