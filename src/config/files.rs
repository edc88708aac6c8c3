//! Key files: how to open one, and how to read two that belong together.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::key::SigningKey;

/// The size limit of a key file, in bytes.
const MAX_LEN: usize = 4096;
/// How many symbolic links are followed, as on Linux.
const MAX_LINKS: usize = 40;
/// How often a directory may be swapped while it is read.
const MAX_SWAPS: usize = 20;

/// Why a key file cannot be used. The message never contains the path, which may be a key that was
/// set in the wrong variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum FileDefect {
    /// The variable holds a key, not a path.
    #[error("the variable holds a key, not a path; set the variable without _FILE")]
    KeyAsPath,
    /// There is no such file.
    #[error("no such file; check the path, and that the secret is mounted")]
    Missing,
    /// The process may not read it.
    #[error("permission denied; check the owner and mode of the file and its directories")]
    Denied,
    /// Another error of the operating system.
    #[error("cannot be read ({0})")]
    Unreadable(ErrorKind),
    /// The path names a directory.
    #[error("it is a directory; name the file in it")]
    Directory,
    /// The path names a pipe, a socket or a device.
    #[error("it is a pipe, a socket or a device, not a regular file")]
    NotRegular,
    /// The file is longer than 4 KiB.
    #[error("it is larger than 4 KiB, so it is not a key")]
    TooLarge,
    /// The file is not UTF-8 text.
    #[error("it is not UTF-8 text; write the key as plain text")]
    Binary,
    /// The file contains only white space, but a key is required.
    #[error("it is blank; write the key into it")]
    Blank,
}

pub(super) type Text = Zeroizing<String>;

/// Reads one key file.
pub(super) fn read(path: &Path) -> Result<Text, FileDefect> {
    read_text(path).map_err(|error| explain(error, path))
}

/// Reads two key files. If both are in one directory, reads them through one resolved directory: if
/// that is swapped by a symbolic link, both are read from before the swap or both from after it.
pub(super) fn read_pair(paths: [&Path; 2]) -> [Result<Text, FileDefect>; 2] {
    let mut resolved = resolve(paths);
    let mut texts = read_resolved(&resolved);
    for _ in 0..MAX_SWAPS {
        if !texts.contains(&Err(FileDefect::Missing)) {
            break;
        }
        // A directory that was swapped out may have been removed while it was read.
        let again = resolve(paths);
        if again.is_ok() && again == resolved {
            break;
        }
        resolved = again;
        texts = read_resolved(&resolved);
    }
    let [first, second] = texts;
    [
        first.map_err(|error| explain(error, paths[0])),
        second.map_err(|error| explain(error, paths[1])),
    ]
}

fn read_resolved(paths: &Result<[PathBuf; 2], FileDefect>) -> [Result<Text, FileDefect>; 2] {
    match paths {
        Ok(paths) => paths.each_ref().map(|path| read_text(path)),
        Err(error) => [Err(*error), Err(*error)],
    }
}

/// Resolves both paths step by step, and a directory that they share only once.
///
/// A Kubernetes volume has `key -> ..data/key` and `..data -> ..2024_11_26`. Both files are links,
/// and what is swapped is a link on the path to both.
fn resolve(paths: [&Path; 2]) -> Result<[PathBuf; 2], FileDefect> {
    let mut paths = paths.map(Path::to_path_buf);
    for _ in 0..MAX_LINKS {
        let [Some((directory, first)), Some((other, second))] =
            paths.each_ref().map(|path| split(path))
        else {
            break;
        };
        if directory != other {
            break;
        }
        let directory = directory.canonicalize().map_err(|error| defect(&error))?;
        paths = [directory.join(first), directory.join(second)];
        let [Ok(first), Ok(second)] = paths.each_ref().map(|path| path.read_link()) else {
            break;
        };
        paths = [directory.join(first), directory.join(second)];
    }
    Ok(paths)
}

/// Splits a path into its directory and the name in it.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    Some((directory.unwrap_or(Path::new(".")), path.file_name()?))
}

fn read_text(path: &Path) -> Result<Text, FileDefect> {
    let file = open(path).map_err(|error| defect(&error))?;
    // Read from the open handle, because the path may name another file by now.
    let metadata = file.metadata().map_err(|error| defect(&error))?;
    if metadata.is_dir() {
        return Err(FileDefect::Directory);
    }
    if !metadata.is_file() {
        return Err(FileDefect::NotRegular);
    }
    // Larger than the limit, so that the vector never grows, which would leave a copy in freed
    // memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_LEN));
    let limit = MAX_LEN as u64 + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| defect(&error))?;
    if bytes.len() > MAX_LEN {
        return Err(FileDefect::TooLarge);
    }
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        error.into_bytes().zeroize();
        FileDefect::Binary
    })?;
    let text = Zeroizing::new(text);
    if text.contains('\0') {
        return Err(FileDefect::Binary);
    }
    Ok(text)
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Otherwise, opening a pipe without a writer would block for ever, and opening a terminal
        // could make it this process's controlling terminal.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    options.open(path)
}

fn defect(error: &io::Error) -> FileDefect {
    match error.kind() {
        // The path names a socket.
        #[cfg(unix)]
        _ if error.raw_os_error() == Some(libc::ENXIO) => FileDefect::NotRegular,
        ErrorKind::NotFound | ErrorKind::NotADirectory => FileDefect::Missing,
        ErrorKind::PermissionDenied => FileDefect::Denied,
        ErrorKind::IsADirectory => FileDefect::Directory,
        kind => FileDefect::Unreadable(kind),
    }
}

/// Recognizes a key that was set instead of a path.
fn explain(defect: FileDefect, path: &Path) -> FileDefect {
    let is_key = |path: &str| path.parse::<SigningKey>().is_ok() || path.starts_with("signkey-");
    match defect {
        FileDefect::Missing if path.to_str().is_some_and(is_key) => FileDefect::KeyAsPath,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some that a test cannot cause, because it may run as root, which may read everything.
    #[test]
    fn each_error_of_the_operating_system_has_its_defect_and_text() {
        for (error, expected, text) in [
            (
                ErrorKind::PermissionDenied,
                FileDefect::Denied,
                "permission denied; check the owner and mode of the file and its directories",
            ),
            (
                ErrorKind::NotFound,
                FileDefect::Missing,
                "no such file; check the path, and that the secret is mounted",
            ),
            (
                ErrorKind::NotADirectory,
                FileDefect::Missing,
                "no such file; check the path, and that the secret is mounted",
            ),
            (
                ErrorKind::IsADirectory,
                FileDefect::Directory,
                "it is a directory; name the file in it",
            ),
            (
                ErrorKind::TimedOut,
                FileDefect::Unreadable(ErrorKind::TimedOut),
                "cannot be read (timed out)",
            ),
        ] {
            let defect = defect(&error.into());
            assert_eq!((defect, &*defect.to_string()), (expected, text));
        }
    }
}
