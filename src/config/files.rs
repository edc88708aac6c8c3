//! Key files: how one is opened, and how two that belong together are read.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::key::SigningKey;

/// Largest file that can be a key's, in bytes.
const MAX_LEN: usize = 4096;
/// How many symbolic links are followed, as on Linux.
const MAX_LINKS: usize = 40;
/// How often a directory may be swapped away while it is read.
const MAX_SWAPS: usize = 20;

/// Why a key file cannot be read. Never shows the path, which may be a key that was pasted into the
/// wrong variable.
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
    /// A directory, where a file belongs.
    #[error("it is a directory; name the file in it")]
    Directory,
    /// A pipe, a socket or a device.
    #[error("it is a pipe, a socket or a device, not a regular file")]
    NotRegular,
    /// Longer than 4 KiB.
    #[error("it is larger than 4 KiB, so it is not a key")]
    TooLarge,
    /// Not UTF-8 text.
    #[error("it is not UTF-8 text; write the key as plain text")]
    Binary,
    /// Nothing but white space, where there must be a key.
    #[error("it is blank; write the key into it")]
    Blank,
}

pub(super) type Text = Zeroizing<String>;

/// Reads one key file.
pub(super) fn read(path: &Path) -> Result<Text, FileDefect> {
    read_text(path).map_err(|error| explain(error, path))
}

/// Reads two key files. If they are in one directory, then through one resolved directory: a
/// directory that is swapped by a symbolic link is read before the swap or after it.
pub(super) fn read_pair(paths: [&Path; 2]) -> [Result<Text, FileDefect>; 2] {
    let mut resolved = resolve(paths);
    let mut texts = read_resolved(&resolved);
    for _ in 0..MAX_SWAPS {
        if !texts.contains(&Err(FileDefect::Missing)) {
            break;
        }
        // What was swapped away may have been removed while it was read.
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
/// A Kubernetes volume has `key -> ..data/key` and `..data -> ..2024_11_26`: both files are links,
/// and what is swapped is a link that both lead through.
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

/// Returns the directory and the name in it.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    Some((directory.unwrap_or(Path::new(".")), path.file_name()?))
}

fn read_text(path: &Path) -> Result<Text, FileDefect> {
    let file = open(path).map_err(|error| defect(&error))?;
    // Of the open handle: the path may name something else by now.
    let metadata = file.metadata().map_err(|error| defect(&error))?;
    if metadata.is_dir() {
        return Err(FileDefect::Directory);
    }
    if !metadata.is_file() {
        return Err(FileDefect::NotRegular);
    }
    // With room for one byte too many and more, so that it never grows and leaves a copy behind.
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
        // To open a pipe that nobody writes to would wait for ever, and a terminal would be taken.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    options.open(path)
}

fn defect(error: &io::Error) -> FileDefect {
    match error.kind() {
        // A socket.
        #[cfg(unix)]
        _ if error.raw_os_error() == Some(libc::ENXIO) => FileDefect::NotRegular,
        ErrorKind::NotFound | ErrorKind::NotADirectory => FileDefect::Missing,
        ErrorKind::PermissionDenied => FileDefect::Denied,
        ErrorKind::IsADirectory => FileDefect::Directory,
        kind => FileDefect::Unreadable(kind),
    }
}

/// Recognizes a key that was set where a path belongs.
fn explain(defect: FileDefect, path: &Path) -> FileDefect {
    let is_key = |path: &str| path.parse::<SigningKey>().is_ok() || path.starts_with("signkey-");
    match defect {
        FileDefect::Missing if path.to_str().is_some_and(is_key) => FileDefect::KeyAsPath,
        other => other,
    }
}
