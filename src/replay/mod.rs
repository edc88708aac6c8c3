//! Each signed call once: an opt-in guard against calls that were captured and are sent again.
//!
//! The signature covers body and time, not method or URL. While a captured call is fresh, anyone
//! can send it again, to any function. With a guard each signature is accepted once:
//!
//! ```
//! use axum::{Router, http::StatusCode, routing::any};
//! use inngest_auth::{Clock, replay::MemoryReplayStore, testing::TestInngest};
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let inngest = TestInngest::new("signkey-test-12345678".parse()?);
//! let store = MemoryReplayStore::new(100_000, inngest.clock());
//! // What was signed in the first seconds may have been accepted by an earlier process.
//! inngest.clock().set(inngest.clock().now().map(|now| now + 10));
//!
//! let auth = inngest.auth().replay_guard(store);
//! let app: Router = Router::new().fallback(any(|| async {})).layer(auth);
//! let call = || inngest.call("/api/inngest?fnId=pay&stepId=step", r#"{"ctx":"one"}"#);
//! assert_eq!(app.clone().oneshot(call()).await?.status(), StatusCode::OK);
//! assert_eq!(app.oneshot(call()).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! 1. Only a verified signature is recorded: strangers cannot fill the store.
//! 2. It is remembered until `t + tolerance + skew`. The [skew](crate::InngestAuth::replay_skew)
//!    (default: 60 s) must cover [how far clocks differ](#clocks).
//! 3. A signature that was seen before is rejected, whatever its method and URL: 401,
//!    [`Replayed`](crate::RejectionKind::Replayed).
//! 4. What runs nothing is recorded and never rejected: `GET` and `HEAD` with an empty body, without
//!    `X-Run-ID` and without `fnId` or `stepId` in the query, and trust probes. Two of these in one second rightly share a signature.
//!    The response to one that was seen before is never signed, except the probe's constant `{}`.
//! 5. A response is recorded before it is signed: it is a valid signature of its bytes. A captured
//!    request adds itself and one response at most; sent again as a probe, the probe's constant, once
//!    for each second and key. So captured traffic cannot fill the store either.
//! 6. Freshness is checked with the headers, again before recording, and once more after it.
//!    Neither a slow body nor a slow store can outlive the window.
//! 7. If the store is down or full, the request is rejected: 503,
//!    [`StoreUnavailable`](crate::RejectionKind::StoreUnavailable), without `Retry-After`.
//!    [`insecure_replay_fail_open`](crate::InngestAuth::insecure_replay_fail_open) lets it pass.
//!
//! # Which store
//!
//! - **One process**: [`MemoryReplayStore`]. A call that was signed before the process started is
//!   rejected, because an earlier process may have accepted it
//!   ([`BeforeStart`](Recorded::BeforeStart)).
//! - **Several instances, one Redis primary**: `RedisReplayStore` (feature `redis`). With a store
//!   for each instance, a call that one has accepted is new to the others.
//! - **Redis Cluster, Sentinel, or another database**: a [`ReplayStore`] over your own client. The
//!   example in `checks/redis-cluster` of the repository is one for Redis Cluster.
//!
//! # Clocks
//!
//! The skew must be at least the difference between the clocks of any two instances that share the
//! store, the one furthest ahead and the one furthest behind, not their distance from the right
//! time. Whole seconds are rounded in your favour, and a slow store only remembers for longer.
//!
//! A store that forgets by a clock of its own, as Redis does, adds two things that the skew must
//! cover: how far that clock is set forward while it runs, and how far the clock of a replica that
//! is promoted is ahead of the primary's.
//!
//! If clocks differ by more, a call can be accepted again, by an instance whose clock is further
//! behind than the skew, in the last seconds of its window there. Shared stores keep each entry for
//! as long as the longest tolerance (1 h) needs it, so that layers of different tolerances can share
//! one, and a deployment can change the tolerance; all of them must have the same skew.
//!
//! # What it costs
//!
//! A rejected call costs one attempt. Inngest signs the next one anew, so it passes; a function
//! that has no attempts left fails.
//!
//! # What to know before turning it on
//!
//! - **Every layer with the same key** must share the store: what one of them has accepted or signed
//!   is new to the others. Do not nest two layers on one store: the inner one rejects everything.
//! - **A proxy that retries by itself** (after a broken connection, say) makes replays. Its second
//!   request is rejected, though the first may never have got a response; Inngest's own retry then
//!   passes. So does a **redirect through the layer**: what it let pass once it rejects at the
//!   second place, if both share a store.
//! - **Two equal syncs in one second** share a signature: the second is rejected.
//! - **A shared store that loses keys** has forgotten what it saw. Each lost key lets one signature
//!   pass once more while it is fresh. Keys are lost when the server evicts them, restarts without
//!   persistence, or fails over to a replica that did not have them yet.
//! - **When the store is down**, choose between rejecting calls, which Inngest retries for as long
//!   as a function has attempts left, and letting replays pass. The default is to reject.

mod error;
mod memory;
#[cfg(feature = "redis")]
mod redis;
mod start;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use error::ReplayStoreError;
pub use memory::MemoryReplayStore;
#[cfg(feature = "redis")]
pub use redis::{RedisReplayStore, RedisUrlError};

use crate::signature::Signature;
use crate::verify::Tolerance;

/// Remembers signatures for as long as they are fresh.
///
/// A store must be exact inside the window: an entry that is dropped before its time is a replay
/// that is accepted. A general cache, which evicts, is not a store.
pub trait ReplayStore: Send + Sync + 'static {
    /// Records `sighting` if it is not recorded yet, in one atomic step: of two calls at once with
    /// the same MAC, one is [`Fresh`](Recorded::Fresh).
    ///
    /// A sighting whose window has closed (`until` is before `now`) is never `Fresh`. A store that
    /// forgets by a time of its own keeps an entry for [`Sighting::seconds_left`]. Anything but
    /// `Fresh` is always safe. A store should respond within a time of its own: the layer waits for
    /// it, with the body in memory.
    fn record(
        &self,
        sighting: Sighting,
    ) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send;
}

/// One store for several layers of a process.
impl<S: ReplayStore> ReplayStore for Arc<S> {
    fn record(
        &self,
        sighting: Sighting,
    ) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send {
        (**self).record(sighting)
    }
}

/// A verified signature, and for how long it must be remembered. Times are Unix seconds.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sighting {
    /// The signature's MAC.
    pub mac: [u8; 32],
    /// When it was signed, as the signer says.
    pub signed_at: u64,
    /// The last second in which it must not be accepted again.
    pub until: u64,
    /// The time now, by the layer's clock.
    pub now: u64,
    /// The last second in which a layer of the longest tolerance could accept it.
    keep_until: u64,
}

impl Sighting {
    /// Creates a sighting, for the tests of a store.
    #[must_use]
    pub fn new(mac: [u8; 32], signed_at: u64, until: u64, now: u64) -> Self {
        Self {
            mac,
            signed_at,
            until,
            now,
            keep_until: until,
        }
    }

    /// Returns for how many seconds from `now` a store that forgets by a time of its own must keep
    /// it, or `None` if the window has closed: then there is nothing to record, and it counts as
    /// [`Seen`](Recorded::Seen).
    ///
    /// That is for as long as a layer with the longest tolerance (1 h) could accept it: layers of
    /// different tolerances may share a store, and a deployment may change the tolerance.
    #[must_use]
    pub fn seconds_left(&self) -> Option<u64> {
        self.until.checked_sub(self.now)?;
        // The last second is still inside.
        Some((self.keep_until.max(self.until) - self.now).saturating_add(1))
    }

    /// Tolerance and skew of the layer.
    fn lifetime(&self) -> u64 {
        self.until.saturating_sub(self.signed_at)
    }
}

/// Without the MAC: with the body, it is all that a replay needs.
impl fmt::Debug for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sighting")
            .field("signed_at", &self.signed_at)
            .field("until", &self.until)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// What a store knows of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recorded {
    /// It was not recorded, and is now.
    Fresh,
    /// It was recorded before, or may have been.
    Seen,
    /// It was made before the store began to remember, so that nothing is known of it.
    BeforeStart,
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
        Self {
            store: Arc::new(store),
        }
    }

    /// Records a signature until it cannot be accepted any more, by any instance.
    pub(crate) async fn record(
        &self,
        signature: &Signature,
        now: u64,
        tolerance: Tolerance,
        skew: u64,
    ) -> Result<Recorded, ReplayStoreError> {
        let signed_at = signature.signed_at();
        let until = |tolerance: Tolerance| {
            signed_at
                .saturating_add(tolerance.as_secs())
                .saturating_add(skew)
        };
        self.store
            .record(Sighting {
                keep_until: until(Tolerance::MAX),
                ..Sighting::new(*signature.mac(), signed_at, until(tolerance), now)
            })
            .await
    }
}
