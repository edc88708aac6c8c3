//! What a layer logs about itself: its mode when it is built, and its settings when it is first
//! added to a service.
//!
//! Settings may change between the two. The mode is logged early because Axum may add a layer to a
//! handler as late as the first connection. By then it is too late to learn that requests are not
//! verified.

use super::policy::Policy;
use crate::config::Mode;
use crate::key::SigningKey;
use crate::verifier::Verifier;

/// Logs the mode, which no setter changes.
pub(super) fn built(mode: &Mode<Verifier>) {
    match mode {
        Mode::Cloud(verifier) => {
            let keys = verifier.keys().snapshot();
            let fingerprint = |key: &SigningKey| tracing::field::display(key.fingerprint());
            tracing::info!(
                mode = "cloud",
                key_prefix = keys.current().prefix(),
                current_key = fingerprint(keys.current()),
                fallback_key = keys.fallback().map(fingerprint),
                "inngest-auth verifies every request"
            );
        }
        Mode::Dev { key_set: false } => tracing::warn!(
            mode = "dev",
            "dev mode: inngest-auth does NOT verify requests, so anyone who can reach this service \
             can run its functions; unset INNGEST_DEV in production"
        ),
        // Logged at ERROR, because `fmt::init()` with the feature `env-filter` shows only errors by
        // default.
        Mode::Dev { key_set: true } => tracing::error!(
            mode = "dev",
            "dev mode: inngest-auth does NOT verify requests although a signing key is set, so \
             anyone who can reach this service can run its functions; in production, unset \
             INNGEST_DEV; on a development machine, unset the key"
        ),
        Mode::Unusable(error) => {
            tracing::error!(
                mode = "unusable",
                "inngest-auth rejects every request: {error}"
            );
        }
    }
}

/// Logs the settings of a verifying layer, once.
pub(super) fn used(policy: &Policy) {
    if let Mode::Cloud(verifier) = &policy.mode {
        policy
            .log
            .started
            .get_or_init(|| settings(policy, verifier));
    }
}

fn settings(policy: &Policy, verifier: &Verifier) {
    let replay_guard = policy.replay.is_some();
    tracing::info!(
        tolerance_seconds = verifier.window().as_secs(),
        body_limit_bytes = policy.body_limit,
        sign_responses = policy.sign_responses.as_str(),
        replay_guard,
        unsigned_sync = policy.insecure_unsigned_sync,
        "inngest-auth layer added to a service"
    );
    if !policy.budget.fits_alone(policy.body_limit) {
        tracing::warn!(
            body_limit_bytes = policy.body_limit,
            body_budget_bytes = policy.budget.limit(),
            "body_budget has no room for a body of body_limit: genuine calls of that size get 503; \
             set body_budget to at least 16 KiB more than body_limit, which may be as low as 4 MiB"
        );
    }
    if !policy.backlog.fits_alone(policy.body_limit) {
        tracing::warn!(
            body_limit_bytes = policy.body_limit,
            verified_backlog_bytes = policy.backlog.limit(),
            "verified_backlog has no room for a body of body_limit: genuine calls of that size get \
             503; set verified_backlog to at least body_limit, which may be as low as 4 MiB"
        );
    }
    if policy.insecure_unsigned_sync {
        tracing::warn!(
            "inngest-auth admits unsigned syncs, so anyone who can reach this service can request \
             a sync: unset INNGEST_ENABLE_UNAUTHED_SYNC unless you need them (a self-hosted server \
             repeats each sync, signed)"
        );
    }
    if replay_guard && policy.replay_fails_open {
        tracing::warn!(
            "inngest-auth admits replays while the replay store is down or full: remove \
             insecure_replay_fail_open unless losing calls is worse than running them twice"
        );
    }
}
