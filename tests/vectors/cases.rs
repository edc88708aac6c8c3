//! Known answers, by kind.

use serde_json::Value;

/// Returns the cases of a kind. Panics if their number has changed.
pub(crate) fn cases(kind: &str, count: usize) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("known_answers.json")).unwrap();
    let cases = all[kind].as_array().unwrap().clone();
    assert_eq!(cases.len(), count, "cases of {kind}");
    cases
}

pub(crate) fn text<'a>(case: &'a Value, name: &str) -> &'a str {
    case[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} of {case}"))
}
