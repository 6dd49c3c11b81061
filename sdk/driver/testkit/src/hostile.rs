//! Names that a client may choose and that have a special meaning somewhere: in SQL, in SQLite, in JSON, in file
//! systems, or in the stores themselves. Every driver is tested with them in every operation that takes names.

/// Ids that a model may have: `^[a-z0-9][a-z0-9_-]{0,62}$`.
pub const MODELS: &[&str] = &[
    // Tables and table functions of SQLite.
    "json_each",
    "json_tree",
    "jsonb_each",
    "pragma_table_info",
    "pragma_table_list",
    "pragma_journal_mode",
    "sqlite_master",
    "sqlite_schema",
    "sqlite_temp_master",
    "sqlite_temp_schema",
    "sqlite_sequence",
    "sqlite_stat1",
    "sqlite_autoindex_m_1",
    "sqlite_",
    "dbstat",
    "bytecode",
    "tables_used",
    "fts5vocab",
    "fts3tokenize",
    "rtree",
    "generate_series",
    "completion",
    // A model, and others that are named like possible index or search tables of it.
    "m",
    "m_content",
    "m_data",
    "m_idx",
    "m_docsize",
    "m_config",
    // Names that stores use internally.
    "m1",
    "m2",
    "c1",
    "i1",
    "events",
    "models",
    "claims",
    "blobs",
    "groups",
    "pending",
    "errors",
    "0_state",
    "post",
    // Words of SQL, of programs and of file systems.
    "select",
    "table",
    "index",
    "rowid",
    "oid",
    "null",
    "true",
    "con",
    "nul",
    "com1",
    "lost-found",
    "constructor",
    "prototype",
    "0",
    "00",
    "1e5",
    "a-b_c",
    "a--",
    "x23456789012345678901234567890123456789012345678901234567890123",
];

/// Ids that an instance may have: `^[A-Za-z0-9][A-Za-z0-9._~-]{0,127}$`.
pub const INSTANCES: &[&str] = &[
    "a",
    "A",
    "0",
    "00",
    "0.0",
    "1e5",
    "1E5",
    "a.",
    "a..",
    "a...b",
    "a~",
    "a~1",
    "a--",
    "con",
    "CON",
    "nul.txt",
    "null",
    "true",
    "rowid",
    "sqlite_master",
    "0190a6c4-5f8b-7cde-8f01-23456789abcd",
    "0190A6C4-5f8b-7cde-8f01-23456789abcd",
    "0190a6c45f8b7cde8f0123456789abcd",
    "x234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
];

/// Names that a secret may have: `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`.
pub fn secrets() -> Vec<String> {
    let mut names: Vec<String> = [
        "a", "A", "aa", "aA", "Aa", "AA", "0", "0a", "0A", "f", "F", "0.", "a.", "a..", "a..b", "a.b", "A.B", "a-",
        "a_", "con", "CON", "Con", "con.txt", "prn", "aux", "nul", "NUL", "com1", "lpt9", "conin", "clock", "a.sealed",
        "A.sealed", "a.new", "a.tmp", "a.lock", "README",
    ]
    .map(str::to_owned)
    .to_vec();
    let alternating = |first: char, second: char| (0..128).map(|at| if at % 2 == 0 { first } else { second }).collect();
    names.extend([
        "A".repeat(128),
        "a".repeat(128),
        alternating('A', 'a'),
        alternating('a', 'A'),
        alternating('a', '.'),
    ]);
    names
}

/// Names that a property may have: any text.
pub fn properties() -> Vec<String> {
    let mut names: Vec<String> = [
        // Differences that case folding or normalisation removes.
        "title",
        "Title",
        "TITLE",
        "title~2",
        "é",
        "e\u{301}",
        "É",
        "ß",
        "SS",
        "ﬁ",
        "fi",
        "İ",
        "ı",
        " ",
        "  ",
        "title ",
        " title",
        "",
        // Columns of stores.
        "_id",
        "_ID",
        "_model_version",
        "_revision",
        "_position",
        "_created_at",
        "_updated_at",
        "_data",
        "_text",
        "id",
        "data",
        "rowid",
        "ROWID",
        "oid",
        "_rowid_",
        "ctid",
        "xmin",
        "c1",
        "C2",
        "m1",
        // SQL, JSON paths, patterns, parameters.
        "select",
        "a\"b",
        "a'b",
        "a`b",
        "[a]",
        "a\\b",
        "a\\",
        "\\u0041",
        "A",
        "a\nb",
        "a\u{1}b",
        "a\u{2}b",
        "$",
        "$.x",
        "$.title",
        "[0]",
        "[#-1]",
        "#",
        "*",
        "**",
        "@",
        "a.b",
        ".",
        "/",
        "~0",
        "-1",
        "0",
        "00",
        "%",
        "--",
        "/*",
        ";",
        "?1",
        ":a",
        "@a",
        "$a",
        "'; DROP TABLE _models; --",
        // U+0000, which ends texts in C.
        "\0",
        "\0\0",
        "a",
        "a\0",
        "a\0b",
        "a\0c",
        "a\u{1}",
        "a\u{1}\u{1}",
        "a\u{1}\u{2}",
        "a\u{1}\u{1}b",
        // Programs.
        "__proto__",
        "constructor",
        "toString",
        "null",
        "true",
        "NaN",
        "日本",
        "🎈",
        "\u{feff}",
        "\u{202e}x",
        "\u{ffff}",
        "\u{10ffff}",
    ]
    .map(str::to_owned)
    .to_vec();
    // Names that only differ beyond a length at which they might be truncated. Even if each character is written as an
    // escape, the longest name is within the limit.
    for length in [63, 64, 255, 1024, 10_921] {
        names.push("n".repeat(length));
        names.push(format!("{}m", "n".repeat(length)));
    }
    names
}

/// Names that a consumer group may have: any text up to 128 bytes.
pub fn groups() -> Vec<String> {
    let mut names: Vec<String> = MODELS.iter().map(|model| format!("post:{model}")).collect();
    names.extend(
        ["g", "G", "", " ", "g ", "ü", "u\u{308}", "%", "_", "'; DROP TABLE groups; --", "a\0", "a\0b", "a"]
            .map(str::to_owned),
    );
    names.push("g".repeat(128));
    names
}

/// A text as JSON, with an escape for every character.
pub fn escaped(text: &str) -> String {
    let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{units}\"")
}
