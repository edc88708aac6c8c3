//! How much unauthenticated clients can write into the log. This is a separate test program,
//! because the first subscriber determines for all threads whether a line is enabled.
#![cfg(feature = "layer")]

mod common;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{CALL, Seen, ask, inngest};
use inngest_auth::{Rejection, RejectionKind};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(text)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_rejections_is_one_advice_an_hour_and_ten_lines_a_minute_of_each_kind() {
    let it = inngest();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let app = Seen::default().app(it.auth());
    let huge = "x".repeat(400_000);
    let send = async |kind: RejectionKind| {
        let request = match kind {
            RejectionKind::Stale => it.stale(CALL, "{}"),
            RejectionKind::WrongSignature => {
                let mut request = it.tampered(CALL, "{}");
                request
                    .headers_mut()
                    .insert("content-encoding", huge.parse().unwrap());
                request
            }
            _ => it.unsigned(CALL, "{}"),
        };
        let response = ask(&app, request).await;
        let rejection = response.extensions.get::<Rejection>();
        assert_eq!(rejection.map(Rejection::kind), Some(kind));
    };
    // The layer logs its settings when it is first used.
    ask(&app, it.call(CALL, "{}")).await;
    log.lines();
    for kind in [
        RejectionKind::Stale,
        RejectionKind::WrongSignature,
        RejectionKind::Missing,
    ] {
        for _ in 0..300 {
            send(kind).await;
        }
        let lines = log.lines();
        let rejected = lines.iter().filter(|line| line.contains("rejected: "));
        assert_eq!(rejected.count(), 1 + 10, "{kind:?}: {lines:#?}");
        assert!(lines.len() <= 13, "{kind:?}: {lines:#?}");
        assert!(
            lines.iter().all(|line| line.len() < 1000),
            "{kind:?}: {lines:?}"
        );
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    send(RejectionKind::Stale).await;
    let lines = log.lines();
    let stale: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("kind=\"stale\""))
        .collect();
    assert!(
        stale.len() == 1 && stale[0].contains("suppressed=289"),
        "{lines:?}"
    );
}
