//! The variants of an enum, as its source lists them, so that none escapes a test.

/// Returns the names of an enum's variants, without their fields.
pub(crate) fn variants(source: &str, name: &str) -> Vec<String> {
    let begin = format!("pub enum {name} {{\n");
    let (_, body) = source
        .split_once(&begin)
        .expect("the enum is in the source");
    let (body, _) = body.split_once("\n}\n").unwrap();
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let named = lines.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
    named
        .map(|line| {
            line.split(|c: char| !c.is_ascii_alphanumeric())
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}
