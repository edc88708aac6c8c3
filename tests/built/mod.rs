//! The examples, as built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Returns the example's program. `cargo test` builds it; `cargo test --test …` does not.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("examples").join(name);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = newest(&root.join("src")).max(newest(&root.join("examples")));
    let time = built.metadata().and_then(|built| built.modified());
    if !time.is_ok_and(|built| built > sources) {
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--example", name])
            .status();
        assert!(cargo.unwrap().success());
    }
    built
}

fn newest(path: &Path) -> SystemTime {
    if path.is_dir() {
        let inside = path
            .read_dir()
            .unwrap()
            .map(|entry| newest(&entry.unwrap().path()));
        return inside.max().unwrap();
    }
    path.metadata().unwrap().modified().unwrap()
}
