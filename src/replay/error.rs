//! Why a store could not tell.

use std::fmt;

/// An error returned when a store cannot tell whether it has seen a signature.
///
/// It contains no secret: no URL, no password, and nothing from a server but its error code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayStoreError {
    /// The store is full. It does not drop entries to make room.
    Full,
    /// The store could not be reached, or did not respond in time.
    Unavailable(String),
    /// The server responded with an error.
    Server {
        /// The command, such as `SET`.
        command: &'static str,
        /// The error's code, such as `OOM` or `NOAUTH`.
        code: String,
    },
}

impl ReplayStoreError {
    /// Returns the code of the server's error, if the server returned one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server { code, .. } => Some(code),
            Self::Full | Self::Unavailable(_) => None,
        }
    }
}

impl fmt::Display for ReplayStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("replay store is full: raise its capacity"),
            Self::Unavailable(why) => write!(f, "replay store is unavailable: {why}"),
            Self::Server { command, code } => {
                write!(
                    f,
                    "replay store responded to {command} with an error: {code}"
                )?;
                advice(command, code).map_or(Ok(()), |advice| write!(f, " ({advice})"))
            }
        }
    }
}

impl std::error::Error for ReplayStoreError {}

/// Returns what to do about an error code of Redis.
fn advice(command: &str, code: &str) -> Option<&'static str> {
    Some(match (command, code) {
        (_, "OOM") => "out of memory: raise maxmemory",
        (_, "NOAUTH") => "authentication required: put the user and password into the URL",
        (_, "WRONGPASS") => "wrong user or password; in a URL special characters are %-encoded",
        (_, "NOPERM") => "permission denied: allow SET on the keys of the namespace",
        (_, "READONLY") => "a replica: connecting again to find the primary",
        (_, "MASTERDOWN") => "a replica without its primary: connecting again",
        (_, "LOADING") => "the server is loading its data: connecting again",
        (_, "MISCONF") => "the server cannot save its data: see its log",
        (_, "NOREPLICAS") => "too few replicas: see min-replicas-to-write",
        (_, "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN") => {
            "a Redis Cluster: this store is for one primary, see the module `replay`"
        }
        ("AUTH", "ERR") => "the server expects no password, or no user name",
        ("SELECT", "ERR") => "no such database",
        _ => return None,
    })
}
