//! What a layer logs of itself: its mode as soon as it is built, its settings when it is first used.
//!
//! Setters come between the two. And Axum may put a layer around a handler no earlier than the first
//! connection: too late to learn that nothing is verified.

use super::policy::Policy;
use crate::config::Mode;
use crate::key::SigningKey;
use crate::verifier::Verifier;

/// Logs what no setter changes.
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
        // Visible even to `fmt::init()` with `env-filter`, which by default shows errors only.
        Mode::Dev { key_set: true } => tracing::error!(
            mode = "dev",
            "dev mode: inngest-auth does NOT verify requests although a signing key is set, so \
             anyone who can reach this service can run its functions; unset INNGEST_DEV, or the \
             key on a development machine"
        ),
        Mode::Unusable(error) => {
            tracing::error!(
                mode = "unusable",
                "inngest-auth rejects every request: {error}"
            );
        }
    }
}

/// Logs the settings of a layer that verifies, once.
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
    if policy.insecure_unsigned_sync {
        tracing::warn!(
            "inngest-auth admits unsigned syncs, so anyone who can reach this service can request \
             a sync: unset INNGEST_ENABLE_UNAUTHED_SYNC if syncs also arrive signed, as they do \
             from a self-hosted server, which repeats them"
        );
    }
    if replay_guard && policy.replay_fails_open {
        tracing::warn!(
            "inngest-auth admits replays while the replay store is down or full: remove \
             insecure_replay_fail_open unless losing calls is worse than running them twice"
        );
    }
}
