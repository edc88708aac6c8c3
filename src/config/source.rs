//! Where the keys come from, so that they can be read again.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::defect::KeyDefect;
use super::error::ConfigError;
use super::files::{self, FileDefect, Text};
use crate::key::{SigningKey, prefix_len};
use crate::keyring::{KeyRing, Keys};

/// The ring of a configuration, and the sources of its current key and its fallback key.
pub(super) struct KeySource {
    ring: KeyRing,
    slots: [Slot; 2],
    /// The keys as last read. Locked from reading to publishing, so that of two concurrent reloads
    /// the one that reads later also publishes later.
    last: Mutex<Keys>,
}

/// The source of one key.
pub(super) enum Slot {
    Unset,
    Value(Found),
    File {
        variable: &'static str,
        path: PathBuf,
    },
}

/// A key, and whether it looks odd.
#[derive(Clone)]
pub(super) struct Found {
    key: SigningKey,
    variable: &'static str,
    upper_case: bool,
    short: bool,
}

impl KeySource {
    /// Reads the keys for the first time.
    pub(super) fn new(slots: [Slot; 2]) -> Result<Self, ConfigError> {
        let read = Pair::read(&slots)?;
        read.warn();
        let keys = read.keys();
        Ok(Self {
            ring: KeyRing::from(keys.clone()),
            slots,
            last: Mutex::new(keys),
        })
    }

    pub(super) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Returns `true` if there is a file to read again.
    pub(super) fn has_files(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| matches!(slot, Slot::File { .. }))
    }

    /// Reads the keys again, and publishes them if `accept` agrees. `accept` receives the keys that
    /// were read last and those that were read now. Returns `true` if the ring changed.
    pub(super) fn reload(
        &self,
        accept: impl FnOnce(&Keys, &Keys) -> bool,
    ) -> Result<bool, ConfigError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let read = Pair::read(&self.slots)?;
        let keys = read.keys();
        if !accept(&last, &keys) {
            return Ok(false);
        }
        // Equal keys are not replaced: another copy would be another place to wipe.
        if *last != keys {
            last.clone_from(&keys);
        }
        let change = self.ring.swap(|_| keys);
        // A subscriber that is told of the change may itself reload.
        drop(last);
        let Some(change) = change else {
            return Ok(false);
        };
        read.warn();
        change.log();
        Ok(true)
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ring.fmt(f)
    }
}

/// Two keys that were read at the same time.
struct Pair {
    current: Found,
    fallback: Option<Found>,
}

impl Pair {
    fn read(slots: &[Slot; 2]) -> Result<Self, ConfigError> {
        let [current, fallback] = match slots {
            [Slot::File { path: one, .. }, Slot::File { path: other, .. }] => {
                files::read_pair([one, other]).map(Some)
            }
            slots => slots.each_ref().map(|slot| match slot {
                Slot::File { path, .. } => Some(files::read(path)),
                Slot::Unset | Slot::Value(_) => None,
            }),
        };
        let current = slots[0].key(current)?;
        let fallback = slots[1].key(fallback)?;
        match (current, &slots[0]) {
            (Some(current), _) => Ok(Self { current, fallback }),
            (None, Slot::File { variable, .. }) => Err(ConfigError::KeyFile {
                variable,
                reason: FileDefect::Blank,
            }),
            (None, _) if fallback.is_some() => Err(ConfigError::FallbackAlone),
            (None, _) => Err(ConfigError::NoKey),
        }
    }

    fn keys(&self) -> Keys {
        let fallback = self.fallback.as_ref().map(|found| found.key.clone());
        Keys::new(self.current.key.clone(), fallback)
    }

    /// Warns about values that are valid but probably not intended.
    fn warn(&self) {
        for Found {
            variable,
            upper_case,
            short,
            ..
        } in [Some(&self.current), self.fallback.as_ref()]
            .into_iter()
            .flatten()
        {
            if *upper_case {
                tracing::warn!(
                    "{variable} contains upper-case hex digits: keys are case-sensitive, and \
                     Inngest issues them in lower case; copy the key again if requests are rejected"
                );
            }
            if *short {
                tracing::warn!(
                    "{variable} has fewer than 32 hex digits: it may be cut short, and a short key \
                     can be guessed; copy the whole key"
                );
            }
        }
        if let Some(fallback) = self
            .fallback
            .as_ref()
            .filter(|found| found.key == self.current.key)
        {
            tracing::warn!(
                "{} equals {}: there is no fallback key; unset it, or set it to the other key of \
                     the rotation",
                fallback.variable,
                self.current.variable
            );
        }
    }
}

impl Slot {
    /// Returns the key from the variable, or from a file's `text`.
    fn key(&self, text: Option<Result<Text, FileDefect>>) -> Result<Option<Found>, ConfigError> {
        match (self, text) {
            (Self::File { variable, .. }, Some(text)) => {
                let text = text.map_err(|reason| ConfigError::KeyFile { variable, reason })?;
                Found::parse(variable, &text)
            }
            (Self::Value(found), _) => Ok(Some(found.clone())),
            _ => Ok(None),
        }
    }
}

impl Found {
    /// Returns `None` if the text is blank.
    pub(super) fn parse(variable: &'static str, text: &str) -> Result<Option<Self>, ConfigError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let key = text.parse().map_err(|error| {
            let reason = KeyDefect::of(text, error);
            ConfigError::InvalidKey { variable, reason }
        })?;
        let (prefix, digits) = text.split_at(prefix_len(text));
        Ok(Some(Self {
            key,
            variable,
            upper_case: digits.bytes().any(|digit| digit.is_ascii_uppercase()),
            short: digits.len() < 32 && prefix != "signkey-test-",
        }))
    }
}
