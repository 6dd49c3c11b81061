//! A Markdown page as the test sees it: its needs, and its blocks in order.

pub(super) struct DocPage {
    pub(super) needs: Vec<String>,
    pub(super) blocks: Vec<Block>,
}

/// A fenced block.
pub(super) struct Block {
    /// The line of its opening fence, counted from 1.
    pub(super) line: usize,
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// What the test does with a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File(String),
    Excerpt(String),
    Source(String),
    Run { fails: bool },
    Config,
    Shown,
    Eventually,
    Output,
}

impl DocPage {
    /// The number of commands that a reader types: lines of blocks that run, without comments and continuation lines.
    pub(super) fn commands(&self) -> usize {
        let blocks = self.blocks.iter().filter(|block| matches!(block.kind, Kind::Run { .. } | Kind::Eventually));
        blocks.map(|block| commands(&block.text)).sum()
    }

    pub(super) fn parse(text: &str) -> Result<DocPage, String> {
        let needs = text.lines().next().and_then(|line| line.strip_prefix("<!-- needs:")?.strip_suffix("-->"));
        let needs = needs.into_iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned()).collect();
        let mut blocks: Vec<Block> = Vec::new();
        let mut lines = (1..).zip(text.lines());
        // Whether only blank lines followed the previous block: output must come directly after its commands.
        let mut nothing_since = false;
        let mut after_blank = true;
        while let Some((line, text)) = lines.next() {
            let opening = text.trim_start();
            let indent = text.len() - opening.len();
            let fence = opening.bytes().take_while(|byte| *byte == b'`').count();
            if fence < 3 {
                if after_blank && indent >= 4 && !opening.is_empty() {
                    return Err(format!(":{line}: nothing runs a block that is only indented; put it between fences"));
                }
                after_blank = opening.is_empty();
                nothing_since &= opening.is_empty();
                continue;
            }
            let kind = kind(opening[fence..].trim()).map_err(|what| format!(":{line}: {what}"))?;
            let follows_command =
                nothing_since && matches!(blocks.last(), Some(Block { kind: Kind::Run { .. } | Kind::Eventually, .. }));
            if kind == Kind::Output && !follows_command {
                return Err(format!(":{line}: `text` must stand right after the `sh` that prints it"));
            }
            let mut inside = String::new();
            loop {
                let (_, text) = lines.next().ok_or_else(|| format!(":{line}: the block has no end"))?;
                if text.trim_start().starts_with(&"`".repeat(fence)) {
                    break;
                }
                inside.push_str(text.get(indent..).unwrap_or_default());
                inside.push('\n');
            }
            blocks.push(Block { line, kind, text: inside });
            nothing_since = true;
            after_blank = false;
        }
        Ok(DocPage { needs, blocks })
    }
}

fn kind(info: &str) -> Result<Kind, String> {
    let mut words = info.split_whitespace();
    let language = words.next().unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    match (language, rest.as_slice()) {
        (_, [word]) if word.starts_with("file=") => Ok(Kind::File(word["file=".len()..].to_owned())),
        (_, [word]) if word.starts_with("excerpt=") => Ok(Kind::Excerpt(word["excerpt=".len()..].to_owned())),
        (_, [word]) if word.starts_with("source=") => Ok(Kind::Source(word["source=".len()..].to_owned())),
        ("sh", []) => Ok(Kind::Run { fails: false }),
        ("sh", ["fails"]) => Ok(Kind::Run { fails: true }),
        ("sh", ["eventually"]) => Ok(Kind::Eventually),
        ("text", []) => Ok(Kind::Output),
        ("toml", ["config"]) => Ok(Kind::Config),
        (_, ["shown"]) => Ok(Kind::Shown),
        _ => Err(format!(
            "nothing runs this block: `{info}`; expected `sh`, `text`, `toml config`, or a language with `file=PATH`, \
             `excerpt=PATH`, `source=PATH` or `shown`"
        )),
    }
}

fn commands(block: &str) -> usize {
    let (mut count, mut in_quotes, mut continues) = (0, false, false);
    for line in block.lines() {
        let is_new = !in_quotes && !continues && !line.trim().is_empty() && !line.trim_start().starts_with('#');
        count += usize::from(is_new);
        in_quotes ^= line.matches('\'').count() % 2 == 1;
        continues = !in_quotes && line.ends_with('\\');
    }
    count
}

/// Whether the output matches a page's expectation: line by line, `…` for anything.
pub(super) fn matches(expected: &str, output: &str) -> bool {
    let expected: Vec<&str> = expected.trim_end().lines().map(str::trim_end).collect();
    let output: Vec<&str> = output.trim_end().lines().map(str::trim_end).collect();
    sequence(&expected, &output, &|pattern, line| match pattern.trim() {
        "…" => None,
        _ => Some(line_matches(pattern, line)),
    })
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let parts: Vec<&str> = pattern.split('…').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return pattern == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Matches patterns against items in order; a pattern for which `fits` returns `None` matches any number of items.
fn sequence(patterns: &[&str], items: &[&str], fits: &impl Fn(&str, &str) -> Option<bool>) -> bool {
    let Some((pattern, patterns)) = patterns.split_first() else { return items.is_empty() };
    match fits(pattern, items.first().unwrap_or(&"")) {
        None => (0..=items.len()).any(|skipped| sequence(patterns, &items[skipped..], fits)),
        Some(fit) => fit && !items.is_empty() && sequence(patterns, &items[1..], fits),
    }
}

#[test]
fn output_is_compared_with_room_for_anything() {
    assert!(matches("a\n", "a"));
    assert!(matches("a …c\n…\nz\n", "a bbc\nx\ny\nz\n"));
    assert!(matches("…\n", "") && matches("", ""));
    assert!(matches("time: … ms", "time: 0.20 ms"));
    assert!(!matches("a", "a\nb") && !matches("a\nb", "a") && !matches("a…b", "a"));
    assert!(!matches("", "a") && !matches("…b…b", "ab"));
}

#[test]
fn commands_are_counted() {
    assert_eq!(commands("a\n# no\n\nb -d '{\n  \"x\": 1\n}'\nc \\\n  d \\\n  e\nf\n"), 4);
}

#[test]
fn pages_are_taken_apart() {
    let page = DocPage::parse(
        "<!-- needs: node, wasm32 -->\n# T\n```js file=a/b.js\nx\n```\n```sh\ny\n```\n\n```text\nz\n```\n",
    );
    let page = page.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(page.needs, ["node", "wasm32"]);
    let kinds: Vec<_> = page.blocks.iter().map(|block| (block.line, &block.kind, block.text.as_str())).collect();
    assert_eq!(
        kinds,
        [
            (3, &Kind::File("a/b.js".to_owned()), "x\n"),
            (6, &Kind::Run { fails: false }, "y\n"),
            (10, &Kind::Output, "z\n")
        ]
    );
    for (text, error) in [
        ("```js\nx\n```\n", ":1: nothing runs this block: `js`"),
        ("```sh\nx\n", ":1: the block has no end"),
        ("word\n\n    x\n", ":3: nothing runs a block that is only indented"),
        ("```sh\nx\n```\nword\n```text\n```\n", ":5: `text` must stand right after"),
    ] {
        assert!(DocPage::parse(text).err().is_some_and(|found| found.starts_with(error)), "{text}");
    }
}
