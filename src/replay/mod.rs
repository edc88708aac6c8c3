//! Replay protection: an opt-in guard that accepts each signed request once.
//!
//! The signature covers the body and the time, but not the method or URL. While a captured call is
//! fresh, anyone can send it again, to any function. With a guard, each signature is accepted once:
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
//! 1. Only verified signatures are recorded, so unauthenticated clients cannot fill the store.
//! 2. A signature is remembered until `t + tolerance + skew`. The
//!    [skew](crate::InngestAuth::replay_skew) (default: 60 s) must cover [how far clocks
//!    differ](#clocks).
//! 3. A signature that was seen before is rejected with 401, whatever the request's method and URL:
//!    [`Replayed`](crate::RejectionKind::Replayed).
//! 4. Requests that run nothing are recorded, but never rejected. These are trust probes, and `GET`
//!    and `HEAD` requests with an empty body, without `X-Run-ID` and without `fnId` or `stepId` in
//!    the query. Two genuine ones in the same second have the same signature. The response to one
//!    that was seen before is never signed, except the probe's constant `{}`.
//! 5. A response is recorded before it is signed, because a signed response is a valid signature of
//!    its bytes. A captured request adds at most itself and one response. Sent again as a probe, it
//!    adds the probe's constant, once for each second and key. So captured requests cannot fill the
//!    store either.
//! 6. Freshness is checked after the headers, before recording, and again after recording. Neither
//!    a slow body nor a slow store can outlive the window.
//! 7. If the store is down or full, a request that may run something is rejected with 503 and
//!    without `Retry-After`: [`StoreUnavailable`](crate::RejectionKind::StoreUnavailable). With
//!    [`insecure_replay_fail_open`](crate::InngestAuth::insecure_replay_fail_open) it is admitted.
//!    In neither case is a response signed that could not be recorded.
//!
//! # Which store
//!
//! - **One process**: [`MemoryReplayStore`]. Calls that were signed before the process started are
//!   rejected, because an earlier process may have accepted them
//!   ([`BeforeStart`](Recorded::BeforeStart)).
//! - **Several instances, one Redis primary**: `RedisReplayStore` (feature `redis`). Separate
//!   stores per instance do not work: a call that one instance accepted is new to the others.
//! - **Redis Cluster, Sentinel, or another database**: implement [`ReplayStore`] over your own
//!   client. The repository has an example for Redis Cluster in `checks/redis-cluster`.
//!
//! # Clocks
//!
//! The skew must be at least the largest difference between the clocks of any two instances that
//! share the store. Their difference from the true time does not matter. Rounding to whole seconds
//! only lengthens how long a signature is remembered, and so does a slow store.
//!
//! A store that expires entries by its own clock, as Redis does, adds two differences that the skew
//! must cover: how far that clock may be set forward while it runs, and how far the clock of a
//! promoted replica may be ahead of the primary's.
//!
//! If clocks differ by more than the skew, a call can be accepted again. That can happen in the
//! last seconds of its window, by an instance whose clock is further behind than the skew. Shared
//! stores keep each entry for as long as the longest tolerance (1 h) needs it. So layers with
//! different tolerances can share a store, and a deployment can change the tolerance. All of them
//! must have the same skew.
//!
//! # What it costs
//!
//! A rejected call costs one attempt. Inngest signs the next attempt anew, so it is accepted. A
//! function that has no attempts left fails.
//!
//! # Before turning it on
//!
//! - **All layers with the same key** must share the store. Otherwise what one layer accepted or
//!   signed is new to the others. Do not nest two layers with the same store: the inner one would
//!   reject everything.
//! - **A proxy that retries by itself**, for example after a broken connection, causes replays. Its
//!   second request is rejected, even if the first never got a response. Inngest's own retry is
//!   accepted. **A redirect through two layers** that share a store has the same effect: the second
//!   layer rejects what the first admitted.
//! - **Two equal syncs in one second** have the same signature, so the second is rejected.
//! - **A shared store can lose keys** when the server evicts them, restarts without persistence, or
//!   fails over to a replica that did not have them yet. Each lost key lets one signature be
//!   accepted again while it is fresh.
//! - **While the store is down**, either calls are rejected, which Inngest retries as long as a
//!   function has attempts left, or replays are admitted. The default is to reject.

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
/// A store must be exact within the window: if it drops an entry early, a replay is accepted. A
/// general cache, which evicts entries, must not be used as a store.
pub trait ReplayStore: Send + Sync + 'static {
    /// Records `sighting`, if it is not recorded yet, in one atomic step. Of two concurrent calls
    /// with the same MAC, only one is [`Fresh`](Recorded::Fresh).
    ///
    /// A sighting whose window has closed (`until` is before `now`) must never be `Fresh`. A store
    /// that expires entries by its own clock must keep an entry for [`Sighting::seconds_left`].
    /// Returning anything but `Fresh` is always safe. A store should have a timeout of its own,
    /// because the layer waits for it with the body in memory.
    fn record(
        &self,
        sighting: Sighting,
    ) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send;
}

/// Lets several layers of a process share one store.
impl<S: ReplayStore> ReplayStore for Arc<S> {
    fn record(
        &self,
        sighting: Sighting,
    ) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send {
        (**self).record(sighting)
    }
}

/// A verified signature, and how long it must be remembered. Times are Unix seconds.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sighting {
    /// The signature's MAC.
    pub mac: [u8; 32],
    /// When it was signed, according to the signer.
    pub signed_at: u64,
    /// The last second in which it must not be accepted again.
    pub until: u64,
    /// The current time, by the layer's clock.
    pub now: u64,
    /// The last second in which a layer with the longest tolerance could accept it.
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

    /// Returns for how many seconds from `now` a store that expires entries by its own clock must
    /// keep it, or `None` if the window has closed. Then there is nothing to record, and the store
    /// must return [`Seen`](Recorded::Seen).
    ///
    /// An entry is kept for as long as a layer with the longest tolerance (1 h) could accept it,
    /// because layers with different tolerances may share a store, and a deployment may change the
    /// tolerance.
    #[must_use]
    pub fn seconds_left(&self) -> Option<u64> {
        self.until.checked_sub(self.now)?;
        // The last second still belongs to the window.
        Some((self.keep_until.max(self.until) - self.now).saturating_add(1))
    }

    /// Returns the sum of the layer's tolerance and skew.
    fn lifetime(&self) -> u64 {
        self.until.saturating_sub(self.signed_at)
    }
}

/// Omits the MAC: together with the body, it is all that a replay needs.
impl fmt::Debug for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sighting")
            .field("signed_at", &self.signed_at)
            .field("until", &self.until)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// What a store knows about a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recorded {
    /// The signature was not recorded before, and now is.
    Fresh,
    /// The signature was recorded before, or may have been.
    Seen,
    /// The signature was made before the store began to remember, so it may have been accepted
    /// before.
    BeforeStart,
}

type Recording<'a> = Pin<Box<dyn Future<Output = Result<Recorded, ReplayStoreError>> + Send + 'a>>;

/// An object-safe [`ReplayStore`], so that the layer needs no type parameter.
trait ErasedStore: Send + Sync {
    fn record(&self, sighting: Sighting) -> Recording<'_>;
}

impl<S: ReplayStore> ErasedStore for S {
    fn record(&self, sighting: Sighting) -> Recording<'_> {
        Box::pin(ReplayStore::record(self, sighting))
    }
}

/// A store as the layer uses it.
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

    /// Records a signature until no instance can accept it any more.
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
