//! Checks that the guide keeps up with the code: every message of the crate can be found on the
//! page that explains it.

mod variants;

use variants::variants;

/// Returns the text on one line and without code marks, as a person would search for it.
fn words(text: &str) -> String {
    text.replace('`', "")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn troubleshooting() -> String {
    words(include_str!("../src/guide/troubleshooting.md"))
}

/// Returns the part of `source` from `begin` to the first `end` after it.
fn between<'a>(source: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = source
        .split_once(begin)
        .unwrap_or_else(|| panic!("no {begin:?}"));
    rest.split_once(end).unwrap().0
}

/// Returns the text of a literal, up to its closing quotation mark, and the rest of the source.
fn literal(source: &str) -> (String, &str) {
    let (mut said, mut rest) = (String::new(), source.chars());
    while let Some(next) = rest.next().filter(|&next| next != '"') {
        match (next, rest.clone().next()) {
            ('\\', Some('\n')) => rest = rest.as_str().trim_start().chars(),
            ('\\', _) => said.extend(rest.next()),
            _ => said.push(next),
        }
    }
    (said, rest.as_str())
}

/// Returns the literals that follow `before`, split where a value is interpolated.
fn literals(source: &str, before: &str) -> Vec<String> {
    let found = source.split(before).skip(1).filter_map(|rest| {
        let rest = rest.trim_start().strip_prefix('"')?;
        Some(literal(rest).0)
    });
    cut_at_values(found)
}

fn cut_at_values(texts: impl Iterator<Item = String>) -> Vec<String> {
    texts
        .flat_map(|text| {
            let parts = text.split('{');
            let said = parts.map(|part| words(part.split_once('}').map_or(part, |(_, part)| part)));
            said.collect::<Vec<_>>()
        })
        .filter(|part| part.len() > 4)
        .collect()
}

/// Returns every literal that a person may read: all but those in comments, tests and `expect`.
fn all_literals(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    let code: Vec<_> = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let code = code.join("\n");
    let (mut rest, mut found) = (&*code, Vec::new());
    while let Some((before, after)) = rest.split_once('"') {
        let said;
        (said, rest) = literal(after);
        if !before.ends_with("expect(") {
            found.push(said);
        }
    }
    cut_at_values(found.into_iter())
}

#[test]
fn every_rejection_can_be_looked_up_by_its_kind_and_its_log_message() {
    let (page, source) = (troubleshooting(), include_str!("../src/rejection.rs"));
    let kinds = variants(source, "RejectionKind");
    let said = all_literals(between(source, "fn what(self)", "\n    }\n"));
    assert!(
        kinds.len() == said.len() && kinds.len() >= 14,
        "{kinds:?} {said:?}"
    );
    for kind in kinds {
        assert!(page.contains(&format!("**{kind}** (")), "{kind}");
    }
    for text in said {
        assert!(page.contains(&text), "{text}");
    }
}

#[test]
fn every_error_can_be_looked_up_by_its_message() {
    let page = troubleshooting();
    for (source, name, least) in [
        (include_str!("../src/config/error.rs"), "ConfigError", 6),
        (include_str!("../src/config/defect.rs"), "KeyDefect", 20),
        (include_str!("../src/config/files.rs"), "FileDefect", 9),
        (include_str!("../src/signature.rs"), "SignatureError", 6),
        (include_str!("../src/layer/caller.rs"), "CallerRejection", 2),
        (include_str!("../src/api/service.rs"), "ApiAuthError", 3),
        (include_str!("../src/api/origin.rs"), "ApiBaseError", 5),
    ] {
        let said = literals(
            between(source, &format!("pub enum {name} {{\n"), "\n}\n"),
            "#[error(",
        );
        assert!(said.len() >= least, "{name}: {said:?}");
        for text in said {
            assert!(page.contains(&text), "{name}: {text}");
        }
    }
    for (source, name) in [
        (include_str!("../src/config/error.rs"), "ConfigError"),
        (include_str!("../src/config/defect.rs"), "KeyDefect"),
        (include_str!("../src/config/files.rs"), "FileDefect"),
    ] {
        for kind in variants(source, name) {
            assert!(page.contains(&format!("**{kind}**: ")), "{kind}");
        }
    }
}

/// Covers all text in the layer's log lines except interpolated values.
#[test]
fn every_log_line_of_the_layer_can_be_looked_up_by_its_message() {
    let page = troubleshooting();
    for (source, least) in [
        (include_str!("../src/layer/log.rs"), 29),
        (include_str!("../src/layer/start.rs"), 9),
        (include_str!("../src/diagnose.rs"), 10),
    ] {
        let said = all_literals(source);
        // Names of fields and values contain no space.
        let said: Vec<_> = said.iter().filter(|text| text.contains(' ')).collect();
        assert!(said.len() >= least, "{said:?}");
        for text in said {
            let text = text.trim_end_matches([':', ';', ' ']);
            assert!(page.contains(text), "{text}");
        }
    }
}

#[test]
fn every_message_of_inngest_can_be_looked_up_verbatim() {
    let page = troubleshooting();
    for message in [
        "Signature verification failed. Is your app using the correct signing key?",
        "SDK response was not signed. Is it in dev mode?",
        "Response did not come from an Inngest SDK",
        "signing key is for the wrong account",
        "You are using a branch environment",
        "Not in Cloud mode",
        "Your server returned HTTP 401 before the SDK responded",
        "Unauthorized response from URL.",
        "Error: unauthorized",
        "Not Synced",
        "The Inngest Server can't find your application.",
        "App ID required",
        "HTTP 408",
    ] {
        assert!(page.contains(message), "{message}");
    }
}

/// The alerts are tested as a file and read on the page, so the two must be equal.
#[test]
fn the_metrics_page_has_the_alerts_that_are_tested() {
    let page = include_str!("../src/guide/metrics.md");
    let alerts = between(page, "```yaml\n", "```\n");
    assert_eq!(alerts, include_str!("../examples/metrics/alerts.yml"));
}

/// `fmt::init()` hides warnings if any crate enables `env-filter` and `RUST_LOG` is not set.
#[test]
fn every_example_and_the_readme_set_up_a_subscriber_that_shows_warnings() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut programs = vec![(
        "README.md".to_owned(),
        include_str!("../README.md").to_owned(),
    )];
    for entry in std::fs::read_dir(examples).unwrap() {
        let mut path = entry.unwrap().path();
        if path.is_dir() {
            path = path.join("main.rs");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        programs.push((path.display().to_string(), text));
    }
    assert!(programs.len() >= 7, "{}", programs.len());
    for (path, text) in programs {
        let set_up = between(&text, "tracing_subscriber::fmt()", "init()");
        let level = set_up.split_once("with_max_level(").map(|(_, it)| it);
        // Without a level, `fmt()` shows INFO and above.
        let shown = ["tracing::Level::WARN", "level.unwrap_or(LevelFilter::INFO)"];
        assert!(
            level.is_none_or(|level| shown.iter().any(|it| level.starts_with(it))),
            "{path}: {set_up}"
        );
        assert!(!set_up.contains("env_filter"), "{path}");
    }
}

/// Operators compare what it prints with the fingerprints in the log.
#[cfg(unix)]
#[test]
fn the_shell_line_prints_a_keys_fingerprint() {
    const LINE: &str = "printf %s HEX | xxd -r -p | sha256sum | cut -c1-12";
    for (page, text) in [
        ("adoption", include_str!("../src/guide/adoption.md")),
        ("rotation", include_str!("../src/guide/rotation.md")),
        (
            "troubleshooting",
            include_str!("../src/guide/troubleshooting.md"),
        ),
        ("the log", include_str!("../src/layer/log.rs")),
    ] {
        assert!(
            words(&text.replace("\\\n", "")).contains(LINE),
            "{page} has another line"
        );
    }
    let run = |line: &str| {
        let shell = std::process::Command::new("sh").args(["-c", line]).output();
        String::from_utf8(shell.unwrap().stdout).unwrap()
    };
    if run("command -v xxd").is_empty() {
        println!("not run, because xxd is not installed");
        return;
    }
    for digits in ["12345678", "f7b964cc6e44c90645e5623ffc7e6076d5a69fca"] {
        for prefix in ["", "signkey-test-", "signkey-prod-"] {
            let key: inngest_auth::SigningKey = format!("{prefix}{digits}").parse().unwrap();
            let printed = run(&LINE.replace("HEX", digits));
            assert_eq!(printed.trim(), key.fingerprint().to_string(), "{prefix}");
        }
    }
}

/// An example that does not run, or shows only accepted requests, would teach unchecked claims.
#[test]
fn every_page_has_one_example_that_runs_and_shows_a_rejection() {
    let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let declared = include_str!("../src/guide/mod.rs");
    let mut count = 0;
    for entry in std::fs::read_dir(pages).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let (name, text) = (
            path.file_name().unwrap().to_str().unwrap(),
            std::fs::read_to_string(&path).unwrap(),
        );
        let fences: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("```"))
            .collect();
        let opened: Vec<_> = fences
            .iter()
            .step_by(2)
            .filter(|fence| !["```yaml", "```text"].contains(*fence))
            .collect();
        assert_eq!(opened, [&"```"], "{name}");
        let rejects = ["UNAUTHORIZED", "401", "rejected"]
            .iter()
            .any(|word| between(&text, "\n```\n", "\n```\n").contains(word));
        assert!(rejects, "{name} shows no rejection");
        assert!(
            declared.contains(&format!("include_str!(\"{name}\")")),
            "{name} is not a page of the guide"
        );
        count += 1;
    }
    assert_eq!(count, declared.matches(".md\")]").count());
}

/// The links of a page lead to files in plain Markdown, and to items on docs.rs.
#[test]
fn every_link_of_a_page_leads_to_a_file_and_on_docs_rs_to_an_item() {
    let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let items = include_str!("../src/guide/links.txt");
    let definition = |line: &str| {
        let (label, target) = line.strip_prefix('[')?.split_once("]: ")?;
        Some((label.to_owned(), target.to_owned()))
    };
    let mut unused: Vec<_> = items.lines().filter_map(definition).collect();
    assert_eq!(unused.len(), items.lines().count());
    let labels: Vec<_> = unused.iter().map(|(label, _)| label.clone()).collect();
    for entry in std::fs::read_dir(&pages).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let (name, text) = (path.display(), std::fs::read_to_string(&path).unwrap());
        for (label, target) in text.lines().filter_map(definition) {
            assert!(pages.join(&target).is_file(), "{name}: {label}: {target}");
            assert!(labels.contains(&label), "{name}: {label} leads to no item");
            unused.retain(|(other, _)| *other != label);
        }
        // Without code, whose brackets are no links.
        let prose: String = text.split("```").step_by(2).collect();
        for (at, _) in prose.match_indices("[`") {
            let (label, after) = prose[at + 1..].split_once(']').unwrap();
            let defined = prose.contains(&format!("\n[{label}]: "));
            assert!(
                defined || after.starts_with('('),
                "{name}: [{label}] is no link"
            );
        }
        for (at, _) in prose.match_indices("](") {
            let target = &prose[at + 2..];
            let leads = ["#", "https://"].iter().any(|it| target.starts_with(it));
            assert!(
                leads,
                "{name}: rustdoc alone finds {}",
                between(target, "", ")")
            );
        }
    }
    assert!(unused.is_empty(), "no page uses {unused:?}");
}
