//! Each signed call once: an opt-in guard against calls that were captured and are sent again.
//!
//! The signature covers body and time, not method or URL. For the rest of its window a captured call can be sent
//! again, to any function. With a guard each MAC is accepted once:
//!
//! ```
//! use axum::{Router, http::StatusCode, routing::any};
//! use inngest_auth::replay::MemoryReplayStore;
//! use inngest_auth::testing::TestInngest;
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let inngest = TestInngest::new("signkey-test-12345678".parse()?);
//! let store = MemoryReplayStore::new(100_000, inngest.clock());
//! let app: Router = Router::new().fallback(any(|| async {})).layer(inngest.auth().replay_guard(store));
//!
//! let call = || inngest.call("/api/inngest?fnId=pay&stepId=step", r#"{"ctx":"one"}"#);
//! assert_eq!(app.clone().oneshot(call()).await?.status(), StatusCode::OK);
//! assert_eq!(app.oneshot(call()).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! 1. Only a verified MAC is recorded: strangers cannot fill the store.
//! 2. It is kept until `t + tolerance + skew`, the [skew](crate::InngestAuth::replay_skew) (60 s unless set) for
//!    instances whose clocks differ.
//! 3. A MAC that is there already is refused: 401, [`Replayed`](crate::RejectionKind::Replayed). `GET` and `HEAD` are
//!    recorded and never refused (two with the same body in one second share a signature, rightly), so that a captured
//!    introspection opens nothing else.
//! 4. Our own signed answers are recorded too: each is a valid signature of its bytes.
//! 5. A store that is down or full refuses: 503 and `Retry-After`,
//!    [`StoreUnavailable`](crate::RejectionKind::StoreUnavailable).
//!    [`insecure_replay_fail_open`](crate::InngestAuth::insecure_replay_fail_open) lets such calls pass.
//!
//! # What it costs
//!
//! A refused call costs one attempt. Inngest signs the next one anew, so it passes; a function that has no retries left
//! fails.
//!
//! Measured (`cargo bench --bench replay`): a third of a microsecond a call in memory, 50 µs with Redis on the same machine.
//! [`MemoryReplayStore`] keeps 32 bytes a call, in hash tables: a million entries take 69 MB, and at most twice the
//! window's calls are held at a time. For 50 calls a second and the tolerance of 300 s a capacity of 100,000 is ample.
//!
//! # What to know before turning it on
//!
//! - **Several instances** behind one address need a store that they share, like `RedisReplayStore` (feature `redis`): a
//!   call replayed at another instance is fresh there otherwise.
//! - **A proxy that sends requests again** by itself (after a broken connection, say) makes replays. Its second request
//!   is refused, though the first may never have been answered; Inngest's own retry then passes. So does a **redirect
//!   through the layer**: what it let pass once it refuses at the second place, if both share a store.
//! - **Two equal syncs in one second** share a signature: the second is refused.
//! - **A shared store that fails over and loses keys** has forgotten what it saw: calls of the last minutes could be sent
//!   again. Let it persist, or wait for a window's length before it counts as up.
//! - **When the store is down**, choose between refusing calls, which Inngest sends again for as long as a function has
//!   attempts left, and letting replays pass. The default is to refuse.

mod memory;
#[cfg(feature = "redis")]
mod redis;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use thiserror::Error;

pub use memory::MemoryReplayStore;
#[cfg(feature = "redis")]
pub use redis::RedisReplayStore;

use crate::signature::Signature;
use crate::verify::Tolerance;

/// Remembers MACs until a time.
///
/// Must be exact inside the window: an entry that is dropped before its time is a replay that is accepted. A general
/// cache, which evicts, is no store.
pub trait ReplayStore: Send + Sync + 'static {
    /// Records `sighting` if it is not there yet, in one step: of two calls at once with one MAC, one is fresh.
    ///
    /// Refusing (by [`Seen`](Recorded::Seen) or by an error) is always safe.
    fn record(&self, sighting: Sighting) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send;
}

/// One store for several layers of a process.
impl<S: ReplayStore> ReplayStore for Arc<S> {
    fn record(&self, sighting: Sighting) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send {
        (**self).record(sighting)
    }
}

/// A verified signature, and for how long it must be remembered. Times are Unix seconds.
#[derive(Clone, Copy)]
pub struct Sighting {
    /// The signature's MAC.
    pub mac: [u8; 32],
    /// Its time.
    pub signed_at: u64,
    /// The last second in which it must not be accepted again.
    pub until: u64,
    /// The time now, by the layer's clock.
    pub now: u64,
}

/// What a store knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was not there, and is now.
    Fresh,
    /// It was there, or may have been.
    Seen,
    /// It was signed before the store began to remember.
    BeforeStart,
}

/// Why a store could not tell.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayStoreError {
    /// No room. What is there is not forgotten for what comes.
    #[error("the replay store is full")]
    Full,
    /// Not reached, or not in time.
    #[error("the replay store cannot be reached: {0}")]
    Unavailable(String),
}

type Recording<'a> = Pin<Box<dyn Future<Output = Result<Recorded, ReplayStoreError>> + Send + 'a>>;

/// [`ReplayStore`] without its type, so that the layer needs no parameter.
trait ErasedStore: Send + Sync {
    fn record(&self, sighting: Sighting) -> Recording<'_>;
}

impl<S: ReplayStore> ErasedStore for S {
    fn record(&self, sighting: Sighting) -> Recording<'_> {
        Box::pin(ReplayStore::record(self, sighting))
    }
}

/// A store, and how the layer uses it.
#[derive(Clone)]
pub(crate) struct Guard {
    store: Arc<dyn ErasedStore>,
}

impl Guard {
    pub(crate) fn new(store: impl ReplayStore) -> Self {
        Self { store: Arc::new(store) }
    }

    /// Records a signature until it cannot be accepted any more, by any instance.
    pub(crate) async fn record(
        &self,
        signature: &Signature,
        now: u64,
        tolerance: Tolerance,
        skew: u64,
    ) -> Result<Recorded, ReplayStoreError> {
        let lives = tolerance.as_secs().saturating_add(skew);
        let sighting = Sighting {
            mac: *signature.mac(),
            signed_at: signature.signed_at(),
            until: signature.signed_at().saturating_add(lives),
            now,
        };
        self.store.record(sighting).await
    }
}
