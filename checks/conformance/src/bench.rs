//! The app behind the layer, on a socket, beside a server that it can call.

use axum::Router;
use inngest_auth::testing::TestClock;
use inngest_auth::{Config, InngestAuth, SigningKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::register::{Registry, Serve};
use crate::server::{Api, Outcome, Response, Sender, Server};
use crate::url::AppUrl;
use crate::{app, cases, functions};

pub(crate) const NOW: u64 = 1_700_000_000;
const CURRENT: &str = "7468697320697320612074657374206b6579";
const FALLBACK: &str = "signkey-test-0123456789abcdef0123456789abcdef";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The server signs with the app's current key.
    Cloud,
    /// It signs with the fallback, and knows no other.
    Rotation,
    /// It has no key, and the app verifies nothing.
    Dev,
}

impl Mode {
    /// Returns the app's mode, as introspection says it.
    pub(crate) fn name(self) -> &'static str {
        if self == Self::Dev { "dev" } else { "cloud" }
    }
}

pub(crate) struct Bench {
    pub(crate) mode: Mode,
    pub(crate) api: Api,
    /// Where the app is reached. The query is the app's own, and must be kept.
    pub(crate) url: String,
    key: SigningKey,
    clock: TestClock,
}

impl Bench {
    pub(crate) async fn start(mode: Mode) -> Outcome<Self> {
        let text = if mode == Mode::Rotation {
            FALLBACK
        } else {
            CURRENT
        };
        let key: SigningKey = text.parse().map_err(|error| format!("{error}"))?;
        let api = Api::start((mode != Mode::Dev).then_some(&key)).await;
        let config = Config::from_vars([
            ("INNGEST_SIGNING_KEY", CURRENT),
            ("INNGEST_SIGNING_KEY_FALLBACK", FALLBACK),
            ("INNGEST_API_BASE_URL", &api.url),
            ("INNGEST_DEV", if mode == Mode::Dev { "1" } else { "0" }),
        ]);
        let clock = TestClock::at(NOW);
        let config = config.map_err(|error| error.to_string())?;
        let auth = InngestAuth::from_config(&config).clock(clock.clone());
        let (listener, serve) = listen("127.0.0.1:0")
            .await
            .map_err(|error| error.to_string())?;
        let url = format!("{}?via=runner", serve.listening);
        let app = router(auth, &config, serve);
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok(Self {
            mode,
            api,
            url,
            key,
            clock,
        })
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender::new(
            (self.mode != Mode::Dev).then(|| self.key.clone()),
            self.clock.clone(),
        )
    }

    /// Returns the key that the server signs with.
    pub(crate) fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    pub(crate) async fn sync_in_band(&self) -> Outcome<Response> {
        let body = json!({"url": self.url}).to_string();
        let headers = [
            ("x-inngest-sync-kind", "in_band"),
            ("x-inngest-server-kind", "dev"),
        ];
        self.sender()
            .send("PUT", &self.url, &headers, body.as_bytes())
            .await
    }

    /// Returns a server that has synced the app.
    pub(crate) async fn synced(&self) -> Outcome<Server> {
        let functions: Vec<Value> = cases::functions(self, &self.sync_in_band().await?)?;
        // Each case begins when its app did: the check of the response's signature is by that time.
        self.clock.set(Some(NOW));
        Ok(Server::new(self.sender(), functions))
    }
}

/// Returns what no response may contain: the keys' digits, and of their hashes what makes a token.
pub(crate) fn secrets() -> Vec<String> {
    let keys = [CURRENT, FALLBACK].map(|text| text.parse::<SigningKey>().expect("it is a key"));
    let hash = |key: &SigningKey| {
        key.bearer()
            .as_str()
            .rsplit('-')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let digits =
        [CURRENT, FALLBACK].map(|text| text.rsplit('-').next().unwrap_or_default().to_owned());
    keys.iter().map(hash).chain(digits).collect()
}

/// The example's app, with the runner's functions.
pub(crate) fn router(auth: InngestAuth, config: &Config, serve: Serve) -> Router {
    app::app(
        auth,
        Registry::new(config, functions::app(), serve),
        functions::run,
    )
}

pub(crate) async fn listen(address: &str) -> std::io::Result<(TcpListener, Serve)> {
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}/api/inngest", listener.local_addr()?);
    let serve = Serve {
        configured: None,
        listening: AppUrl::parse(&url).expect("an address and a path are a URL"),
    };
    Ok((listener, serve))
}
