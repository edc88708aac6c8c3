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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_servers_code_and_says_what_to_do() {
        for (command, code, advice) in [
            ("SET", "OOM", "(out of memory: "),
            ("SET", "NOAUTH", "(authentication required: "),
            ("AUTH", "WRONGPASS", "(wrong user or password; "),
            ("SET", "NOPERM", "(permission denied: "),
            ("SET", "READONLY", "(a replica: connecting again "),
            ("SET", "MASTERDOWN", "(a replica without its primary: "),
            ("SET", "LOADING", "(the server is loading its data: "),
            ("SET", "MISCONF", "(the server cannot save its data: "),
            ("SET", "NOREPLICAS", "(too few replicas: "),
            ("SET", "MOVED", "(a Redis Cluster: "),
            ("SET", "ASK", "(a Redis Cluster: "),
            ("SET", "CLUSTERDOWN", "(a Redis Cluster: "),
            ("SET", "CROSSSLOT", "(a Redis Cluster: "),
            ("SET", "TRYAGAIN", "(a Redis Cluster: "),
            ("AUTH", "ERR", "(the server expects no password, "),
            ("SELECT", "ERR", "(no such database)"),
            // What the code alone does not tell gets no advice.
            ("SET", "ERR", ""),
            ("CONFIG", "ERR", ""),
            ("SET", "BUSY", ""),
        ] {
            let server_error = ReplayStoreError::Server {
                command,
                code: code.to_owned(),
            };
            let said = server_error.to_string();
            let begins = format!("replay store responded to {command} with an error: {code}");
            let after = said.strip_prefix(&*begins).expect("the code comes first");
            assert!(after.trim_start().starts_with(advice), "{said}");
            assert_eq!(after.is_empty(), advice.is_empty(), "{said}");
        }
    }
}
