//! Key files of a test, as platforms lay them out.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use inngest_auth::{Config, ConfigError, Keys, SigningKey};

pub(crate) const CURRENT: &str = "INNGEST_SIGNING_KEY";
pub(crate) const FALLBACK: &str = "INNGEST_SIGNING_KEY_FALLBACK";
pub(crate) const CURRENT_FILE: &str = "INNGEST_SIGNING_KEY_FILE";
pub(crate) const FALLBACK_FILE: &str = "INNGEST_SIGNING_KEY_FALLBACK_FILE";
pub(crate) const A: &str = "signkey-test-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const B: &str = "signkey-test-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(crate) const C: &str = "signkey-test-cccccccccccccccccccccccccccccccc";

/// A directory of one test, removed at its end.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("inngest-auth-keys-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.at(name), contents).unwrap();
        self.at(name)
    }

    /// Returns a configuration that reads both keys from the files `current` and `fallback`.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        config(&[
            (CURRENT_FILE, &self.at("current")),
            (FALLBACK_FILE, &self.at("fallback")),
        ])
    }

    /// Replaces what is published at `link` by a new directory with these files, by one rename.
    pub(crate) fn swap(&self, link: &str, new: &str, current: &str, fallback: &str) {
        let old = fs::read_link(self.at(link)).ok();
        fs::create_dir(self.at(new)).unwrap();
        fs::write(self.at(new).join("current"), current).unwrap();
        fs::write(self.at(new).join("fallback"), fallback).unwrap();
        symlink(new, self.at("..tmp")).unwrap();
        fs::rename(self.at("..tmp"), self.at(link)).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.at(old.to_str().unwrap())).unwrap();
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn config(vars: &[(&'static str, &Path)]) -> Result<Config, ConfigError> {
    Config::from_vars(vars.iter().map(|&(name, path)| (name, path)))
}

pub(crate) fn key(text: &str) -> SigningKey {
    text.parse().unwrap()
}

pub(crate) fn pair(current: &str, fallback: &str) -> Keys {
    Keys::new(key(current), (!fallback.is_empty()).then(|| key(fallback)))
}

pub(crate) fn held(config: &Config) -> Keys {
    config.keys().unwrap().snapshot().as_ref().clone()
}

/// Returns the layouts in which a directory is swapped by a symbolic link, with the link's name.
pub(crate) fn layouts() -> [(&'static str, Dir, Config); 3] {
    let start = |dir: &Dir, link: &str| dir.swap(link, "..0", A, B);
    // Kubernetes: each file is a link through `..data`, which is swapped.
    let kubernetes = Dir::new();
    start(&kubernetes, "..data");
    for name in ["current", "fallback"] {
        symlink(format!("..data/{name}"), kubernetes.at(name)).unwrap();
    }
    let config_of_kubernetes = kubernetes.config().unwrap();
    // The directory itself is the link that is swapped.
    let whole = Dir::new();
    start(&whole, "keys");
    let keys = whole.at("keys");
    let config_of_whole = config(&[
        (CURRENT_FILE, &keys.join("current")),
        (FALLBACK_FILE, &keys.join("fallback")),
    ]);
    // Links into a volume, through a link to the volume's directory.
    let linked = Dir::new();
    start(&linked, "..data");
    symlink("..data", linked.at("mounted")).unwrap();
    fs::create_dir(linked.at("app")).unwrap();
    for name in ["current", "fallback"] {
        let target = linked.at("mounted").join(name);
        symlink(target, linked.at("app").join(name)).unwrap();
    }
    let app = linked.at("app");
    let config_of_linked = config(&[
        (CURRENT_FILE, &app.join("current")),
        (FALLBACK_FILE, &app.join("fallback")),
    ]);
    [
        ("..data", kubernetes, config_of_kubernetes),
        ("keys", whole, config_of_whole.unwrap()),
        ("..data", linked, config_of_linked.unwrap()),
    ]
}
