//! The conditions of the runner's functions: `path == path && path == literal`.

use serde_json::Value;

/// Returns `true` if the condition holds of the run's event and of another (`async`).
pub(crate) fn holds(condition: &str, event: &Value, other: &Value) -> bool {
    condition.split("&&").all(|comparison| {
        let sides = comparison
            .split_once("==")
            .map(|(left, right)| [left, right].map(|side| value(side.trim(), event, other)));
        matches!(sides, Some([Some(left), Some(right)]) if left == right)
    })
}

/// Returns what a path names, or a literal's own value.
fn value(text: &str, event: &Value, other: &Value) -> Option<Value> {
    let mut names = text.split('.');
    let root = match names.next() {
        Some("event") => event,
        Some("async") => other,
        _ => return serde_json::from_str(text).ok(),
    };
    names.try_fold(root, |value, name| value.get(name)).cloned()
}
