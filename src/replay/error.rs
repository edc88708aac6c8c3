//! Why a store could not tell.

use std::fmt;

/// An error returned when a store cannot tell whether it has seen a signature.
///
/// It holds no secret: no URL, no password and no text of a server beyond its error code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayStoreError {
    /// The store has no room. It forgets nothing to make some.
    Full,
    /// The store was not reached, or did not respond in time.
    Unavailable(String),
    /// The server responded with an error. Holds its code, like `OOM` or `NOAUTH`.
    Server(String),
}

impl fmt::Display for ReplayStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("replay store is full: raise its capacity"),
            Self::Unavailable(why) => write!(f, "replay store is unavailable: {why}"),
            Self::Server(code) => {
                write!(f, "replay store responded with an error: {code}")?;
                advice(code).map_or(Ok(()), |advice| write!(f, " ({advice})"))
            }
        }
    }
}

impl std::error::Error for ReplayStoreError {}

/// What to do about an error code of Redis.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "OOM" => "out of memory: raise maxmemory",
        "NOAUTH" => "authentication required: put user and password into the URL",
        "WRONGPASS" => "wrong user or password: compare them; in a URL write `%` as `%25`, `@` as `%40`",
        "NOPERM" => "the user may not: allow `SET` on the keys of the namespace",
        "READONLY" => "a replica: the store connects again, to find the primary",
        "LOADING" => "the server is loading its data: wait",
        "MASTERDOWN" => "a replica without its primary: the store connects again",
        "MISCONF" => "the server cannot save its data: see its log",
        "NOREPLICAS" => "too few replicas: see min-replicas-to-write",
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN" => {
            "a Redis Cluster: this store is for one primary; see the `replay` module"
        }
        _ => return None,
    })
}
