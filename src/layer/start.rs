//! What a layer logs when it is first put around a service: by then every setting is known.

use super::policy::Policy;
use crate::config::Mode;
use crate::key::SigningKey;
use crate::verifier::Verifier;

/// Logs what the layer does, once.
pub(super) fn log(policy: &Policy) {
    policy.log.started.get_or_init(|| match &policy.mode {
        Mode::Cloud(verifier) => verifying(policy, verifier),
        Mode::Dev { key_set: false } => tracing::warn!(
            mode = "dev",
            "inngest-auth verifies NOTHING in dev mode: anyone who reaches this service can run its \
             functions; unset INNGEST_DEV in production"
        ),
        // Visible even to `fmt::init()` with `env-filter`, which shows errors only by default.
        Mode::Dev { key_set: true } => tracing::error!(
            mode = "dev",
            "inngest-auth verifies NOTHING in dev mode, although a signing key is set: anyone who \
             reaches this service can run its functions; unset INNGEST_DEV, or the key if this is a \
             development machine"
        ),
        Mode::Unusable(error) => {
            tracing::error!(mode = "unusable", "inngest-auth rejects every request: {error}");
        }
    });
}

fn verifying(policy: &Policy, verifier: &Verifier) {
    let keys = verifier.keys().snapshot();
    let fingerprint = |key: &SigningKey| tracing::field::display(key.fingerprint());
    let replay_guard = policy.replay.is_some();
    tracing::info!(
        mode = "cloud",
        key_prefix = keys.current().prefix(),
        current_key = fingerprint(keys.current()),
        fallback_key = keys.fallback().map(fingerprint),
        tolerance_seconds = verifier.window().as_secs(),
        body_limit_bytes = policy.body_limit,
        sign_responses = policy.sign_responses.as_str(),
        replay_guard,
        unsigned_sync = policy.insecure_unsigned_sync,
        "inngest-auth verifies every request"
    );
    if policy.insecure_unsigned_sync {
        tracing::warn!(
            "inngest-auth lets anyone who reaches this service ask for a sync: unset \
             INNGEST_ENABLE_UNAUTHED_SYNC unless a self-hosted server's UI syncs this app"
        );
    }
    if replay_guard && policy.replay_fails_open {
        tracing::warn!(
            "inngest-auth admits replays while the replay store is down or full: remove \
             insecure_replay_fail_open unless losing calls is worse"
        );
    }
}
