//! The demo on real films, through HTTP only: the hooks' results equal values that are computed here independently.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Client, Server, ServerOptions};

/// Enough for the post hooks of a few thousand films, in a debug build on a busy machine.
const HOOKS_PATIENCE: Duration = Duration::from_secs(300);

/// Few enough that a request finishes in time on a busy machine.
const LINES_PER_IMPORT: usize = 400;

/// A film's expected outcome, and its contribution to its director.
struct Film {
    id: String,
    /// The line of the import that creates it.
    line: String,
    refusal: Option<&'static str>,
    director: Option<String>,
    /// In hundredths.
    rating: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Director {
    name: String,
    films: i64,
    rated: i64,
    sum_hundredths: i64,
}

#[test]
fn films_and_their_directors() {
    let films = films(today());
    let server = start();
    let api = server.client();

    let (created, refused) = import(&api, &films);
    let expected = films.iter().filter(|film| film.refusal.is_none()).count() as u64;
    assert_eq!(created, expected, "{refused:?}");
    let expected: Vec<(u64, &str)> = (1..).zip(&films).filter_map(|(line, film)| Some((line, film.refusal?))).collect();
    assert_eq!(refused.iter().map(|(line, kind)| (*line, kind.as_str())).collect::<Vec<_>>(), expected);

    wait_for_post_hooks(&api, created);
    let errors = api.get("/errors").expect(200).json();
    assert_eq!(errors["items"], Value::Array(Vec::new()), "{errors}");
    let expected = directors(&films);
    let found = list(&api, "director", "");
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (id, director) in &expected {
        assert_same_director(&found[id], director);
    }

    // The same queries before and after: the responses depend only on the log.
    let questions = questions(&films, &expected);
    let before = ask(&api, &questions);
    let mut server = server;
    assert!(server.stop().success());
    remove_model_store(&server.directory().join("data"));
    let server = server.restart_ended();
    let api = server.client();
    assert_same_answers(&before, &ask(&api, &questions), &questions);

    rebuild(&api);
    assert_same_answers(&before, &ask(&api, &questions), &questions);

    // Importing again: created films exist already, the others are rejected as before.
    let (created, refused) = import(&api, &films);
    assert_eq!(created, 0);
    let expected = films.iter().map(|film| film.refusal.unwrap_or("exists"));
    assert_eq!(refused.iter().map(|(_, kind)| kind.as_str()).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_same_answers(&before, &ask(&api, &questions), &questions);
}

/// The sample and the configuration that the README names, on a copy of the checkout's demo.
#[test]
fn the_readme_keeps_its_word() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let sample = sample_films(today());
    let taken = sample.iter().filter(|film| film.refusal.is_none()).count();
    assert_eq!((taken, sample.len()), (194, 200), "the README says 194 of 200");
    assert!(readme.contains("194 films are created and six are rejected"));
    for path in ["movie/instances/goodfellas-1990", "director/instances/martin-scorsese"] {
        assert!(readme.contains(path), "{path}");
    }
    assert!(sample.iter().any(|film| film.id == "goodfellas-1990"));

    let check = std::process::Command::new(env!("CARGO_BIN_EXE_snaphook"))
        .args(["check", "--config"])
        .arg(root().join("config.toml"))
        .output()
        .expect("the binary runs");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));

    // The README's requests, verbatim.
    let server = start();
    let api = server.client();
    let requests: Vec<Vec<String>> =
        readme.replace("\\\n", " ").lines().filter(|line| line.starts_with("curl ")).map(words).collect();
    let mut statuses = Vec::new();
    for request in &requests {
        let (status, body) = curl(&api, request);
        if body.contains("\"created\"") {
            assert!(body.contains("\"created\":194,\"updated\":0,\"failed\":6"), "{body}");
            wait_for_post_hooks(&api, 194);
        }
        statuses.push(status);
    }
    // The import, a film, a director, a list, a rejection, events, a stream, a binding.
    assert_eq!(statuses, [200, 200, 200, 200, 422, 200, 200, 200], "{requests:?}");
}

/// A server with the demo.
fn start() -> Server {
    Server::start_with(ServerOptions {
        // The demo's timeout suits optimized code on an idle machine.
        hooks: format!("directory = '{}'\napply = true\ntimeout = '20 s'", root().join("hooks").display()),
        tables: checked_in_grants(),
        ..ServerOptions::default()
    })
}

/// The words of a shell line without expansions.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for char in line.chars() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

/// Sends the request that curl would send: status and body. For a stream it reads only the head.
fn curl(api: &Client, words: &[String]) -> (u16, String) {
    let (mut method, mut path, mut data, mut media_type, mut streams) = (None, "", None, "", false);
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-s" | "-sg" => {}
            "-sN" => streams = true,
            "-X" => method = words.next(),
            "-H" => media_type = words.next().and_then(|header| header.strip_prefix("content-type: ")).expect("a type"),
            "-d" | "--data" | "--data-binary" => data = words.next(),
            url => path = url.strip_prefix("http://127.0.0.1:1337").expect("the demo's address"),
        }
    }
    if streams {
        return (api.stream(path, &[]).status(), String::new());
    }
    let request = api.request(method.map_or(if data.is_some() { "POST" } else { "GET" }, String::as_str), path);
    let response = match data.map(|data| (data, data.strip_prefix('@'))) {
        None => request.send(),
        Some((_, Some(file))) => {
            request.body(media_type, std::fs::read_to_string(root().join(file)).expect("a file")).send()
        }
        Some((data, None)) => request.body(media_type, data.as_str()).send(),
    };
    (response.status, response.text())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The grants of the `config.toml` in the repository.
fn checked_in_grants() -> String {
    let config = std::fs::read_to_string(root().join("config.toml")).expect("a config.toml");
    let mut config: toml::Table = config.parse().expect("TOML");
    let grants = config.remove("grants").expect("grants for the demo");
    toml::to_string(&toml::Table::from_iter([("grants".to_owned(), grants)])).expect("TOML")
}

/// Such as `2026-11-02`. If the import runs over midnight, a film dated today would be judged differently here; none of
/// the data has a date in the near future.
fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// All films if the shared data exists, otherwise the sample.
fn films(today: String) -> Vec<Film> {
    let path = root().join("../shared/data/movies.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("no {}: the demo runs with the sample of 200 films", path.display());
        return sample_films(today);
    };
    let rows: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(rows.len(), 3201);
    rows.iter().enumerate().map(|(index, row)| film(format!("film-{index:04}"), row, &today)).collect()
}

fn sample_films(today: String) -> Vec<Film> {
    let text = std::fs::read_to_string(root().join("docs/demo/movies-200.ndjson")).expect("the sample");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|line| film(line["id"].as_str().expect("an id").to_owned(), &line["data"], &today)).collect()
}

fn film(id: String, data: &Value, today: &str) -> Film {
    let date = data["Release Date"].as_str().expect("every film of the data has a date");
    let date = jiff::civil::Date::strptime("%b %d %Y", date).expect("every date of the data is one").to_string();
    let refusal = match data["Title"].as_str() {
        None | Some("") => Some("invalid"),
        Some(_) if date.as_str() > today => Some("rejected"),
        Some(_) => None,
    };
    Film {
        line: serde_json::json!({"id": id, "data": data}).to_string(),
        id,
        refusal,
        director: data["Director"].as_str().map(str::to_owned),
        rating: data["IMDB Rating"].as_f64().map(|rating| (rating * 100.0).round() as i64),
    }
}

/// By id: every director of an accepted film.
fn directors(films: &[Film]) -> BTreeMap<String, Director> {
    let mut directors: BTreeMap<String, Director> = BTreeMap::new();
    for film in films.iter().filter(|film| film.refusal.is_none()) {
        let Some(name) = &film.director else { continue };
        let director = directors.entry(slug(name)).or_default();
        director.name.clone_from(name);
        director.films += 1;
        director.rated += i64::from(film.rating.is_some());
        director.sum_hundredths += film.rating.unwrap_or(0);
    }
    directors
}

/// The names in the data are simple: letters, spaces, periods, apostrophes, hyphens.
fn slug(name: &str) -> String {
    let words = name.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[track_caller]
fn assert_same_director(instance: &Value, expected: &Director) {
    let data = &instance["data"];
    // Rounded half up to hundredths, in integers.
    let mean = match expected.rated {
        0 => None,
        rated => Some((2 * expected.sum_hundredths + rated) / (2 * rated)),
    };
    assert_eq!(data["name"], expected.name.as_str(), "{instance}");
    assert_eq!(data["films"].as_i64(), Some(expected.films), "{instance}");
    assert_eq!(data["rated"].as_i64(), Some(expected.rated), "{instance}");
    assert_eq!(data["mean_rating"].as_f64(), mean.map(|mean| mean as f64 / 100.0), "{instance}");
    assert_eq!(data["mean_rating"].is_null(), mean.is_none(), "{instance}");
}

/// The number of created films, and the line and problem type of each failure.
#[track_caller]
fn import(api: &Client, films: &[Film]) -> (u64, Vec<(u64, String)>) {
    let (mut created, mut errors) = (0, Vec::new());
    for (part, films) in films.chunks(LINES_PER_IMPORT).enumerate() {
        let lines: String = films.iter().map(|film| format!("{}\n", film.line)).collect();
        let answer = api.request("POST", "/models/movie/import").body("application/x-ndjson", lines).send();
        let answer = answer.expect(200).json();
        let made = answer["created"].as_u64().expect("a count");
        assert_eq!(made + answer["failed"].as_u64().expect("a count"), films.len() as u64, "{answer}");
        created += made;
        errors.extend(answer["errors"].as_array().expect("rows").iter().map(|row| {
            let line = row["line"].as_u64().expect("a line") + (part * LINES_PER_IMPORT) as u64;
            (line, row["type"].as_str().expect("a type").to_owned())
        }));
    }
    (created, errors)
}

/// Waits until each film has had its run; a run may be repeated.
#[track_caller]
fn wait_for_post_hooks(api: &Client, films: u64) {
    let deadline = Instant::now() + HOOKS_PATIENCE;
    loop {
        let stats = api.get("/models/movie/hooks/postCreate/stats").expect(200).json();
        let hook = &stats["items"][0];
        let failed: u64 = hook["failures"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
        // A run is counted after it ended, so all its writes are present.
        if hook["runs"].as_u64().expect("a count") >= films + failed {
            return;
        }
        assert!(Instant::now() < deadline, "post hooks still run: {stats}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All instances of a model by id.
#[track_caller]
fn list(api: &Client, model: &str, query: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/models/{model}/instances?limit=1000{query}{cursor}")).expect(200).json();
        for item in page["items"].as_array().expect("items") {
            let earlier = found.insert(item["id"].as_str().expect("an id").to_owned(), item.clone());
            assert!(earlier.is_none(), "{item} stands on two pages");
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Paths whose responses depend on the model store.
fn questions(films: &[Film], directors: &BTreeMap<String, Director>) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/models",
        "/models/movie",
        "/models/movie/instances?limit=1000&count=true",
        "/models/movie/instances?limit=1000&sort=-IMDB%20Rating,Title&count=true",
        "/models/movie/instances?limit=1000&sort=Release%20Date&filter[Release%20Date][gte]=1990-01-01",
        "/models/movie/instances?limit=200&filter[director_id][in]=martin-scorsese,woody-allen&sort=Title",
        "/models/movie/instances?limit=500&filter[IMDB%20Rating][exists]=false&sort=-US%20Gross,Title",
        "/models/movie/instances?limit=500&filter[Title][like]=The%25&filter[IMDB%20Rating][gt]=7.5",
        "/models/movie/instances?limit=100&fields=Title,slug&sort=slug",
        "/models/director/instances?limit=1000&sort=-films,name&count=true",
        "/models/director/instances?limit=1000&filter[mean_rating][gte]=7.25&sort=-mean_rating,name",
        "/models/director/instances/martin-scorsese/events",
    ]
    .map(str::to_owned)
    .to_vec();
    paths.extend(films.iter().step_by(7).map(|film| format!("/models/movie/instances/{}", film.id)));
    paths.extend(directors.keys().map(|id| format!("/models/director/instances/{id}")));
    paths
}

#[track_caller]
fn ask(api: &Client, paths: &[String]) -> Vec<(u16, String)> {
    let answers = paths.iter().map(|path| api.get(path));
    // An error response contains the id of its request.
    answers.map(|answer| (answer.status, if answer.status == 200 { answer.text() } else { String::new() })).collect()
}

#[track_caller]
fn assert_same_answers(before: &[(u16, String)], after: &[(u16, String)], paths: &[String]) {
    assert!(before.iter().filter(|(status, _)| *status == 200).count() > paths.len() / 2);
    for ((before, after), path) in before.iter().zip(after).zip(paths) {
        assert_eq!(before, after, "{path}");
    }
}

#[track_caller]
fn remove_model_store(data: &Path) {
    let entries = std::fs::read_dir(data).expect("a data folder").map(|entry| entry.expect("an entry").path());
    let (gone, kept): (Vec<PathBuf>, Vec<PathBuf>) =
        entries.partition(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models.db")));
    assert!(!gone.is_empty(), "no model store among {:?}", kept.iter().collect::<BTreeSet<_>>());
    gone.iter().for_each(|path| std::fs::remove_file(path).expect("a file to remove"));
}

#[track_caller]
fn rebuild(api: &Client) {
    let started = api.request("POST", "/rebuild").send();
    assert!((200..300).contains(&started.status), "{}", started.text());
    crate::support::eventually("the rebuild is done", || {
        let progress = api.get("/rebuild").expect(200).json();
        assert_ne!(progress["state"], "failed", "{progress}");
        (progress["state"] == "done").then_some(())
    });
}
