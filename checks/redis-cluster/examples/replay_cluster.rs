//! A replay store over your own client, here for a Redis Cluster that two instances of an app
//! share.
//!
//! ```text
//! REDIS_CLUSTER=redis://127.0.0.1:7000,redis://127.0.0.1:7001 cargo run --example replay_cluster
//! ```
//!
//! Any node's name will do; the client finds the others. For your app, copy `ClusterStore`, and add
//! `redis` with the feature `cluster-async` as your own dependency.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::routing::any;
use axum::{Router, response::Response};
use inngest_auth::replay::{Recorded, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::{Clock, InngestAuth, SIGNATURE_HEADER, SigningKey, SystemClock};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use tower::ServiceExt;

/// The longest that a call waits for the cluster.
const PATIENCE: Duration = Duration::from_millis(500);

/// A replay store in a Redis Cluster. Each key is on one node, so `SET … NX` is atomic as on a
/// single server. What was written in the last moments before a node fails over is lost, as with
/// any replica.
#[derive(Clone)]
pub(crate) struct ClusterStore {
    connection: ClusterConnection,
    namespace: &'static str,
}

impl ClusterStore {
    /// Connects, and checks that no primary removes keys before they expire.
    pub(crate) async fn connect(
        nodes: &[&str],
        namespace: &'static str,
    ) -> Result<Self, Box<dyn Error>> {
        let client = ClusterClient::builder(nodes.iter().copied())
            .retries(2)
            .build()?;
        let mut connection = client.get_async_connection().await?;
        let mut read = redis::cmd("CONFIG");
        read.arg("GET").arg("maxmemory-policy");
        let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let policies = connection.route_command(read, everywhere).await?;
        let policies: HashMap<String, HashMap<String, String>> = redis::from_redis_value(policies)?;
        for (node, policy) in policies {
            if policy.get("maxmemory-policy").map(String::as_str) != Some("noeviction") {
                return Err(
                    format!("{node} may remove keys: set maxmemory-policy to noeviction").into(),
                );
            }
        }
        Ok(Self {
            connection,
            namespace,
        })
    }
}

impl ReplayStore for ClusterStore {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        // Its window has closed. A key without a time to live would be new to the next call.
        let Some(seconds) = sighting.seconds_left() else {
            return Ok(Recorded::Seen);
        };
        let mac = hex::encode(sighting.mac);
        let mut set = redis::cmd("SET");
        set.arg(format!("{}:{mac}", self.namespace))
            .arg("")
            .arg("NX")
            .arg("EX")
            .arg(seconds);
        let mut connection = self.connection.clone();
        // The client follows `MOVED` by itself. If it sends a command twice because a response was
        // lost, the second attempt finds the key and the call is rejected, which is safe.
        match tokio::time::timeout(PATIENCE, set.query_async::<Option<String>>(&mut connection))
            .await
        {
            Ok(Ok(Some(_))) => Ok(Recorded::Fresh),
            Ok(Ok(None)) => Ok(Recorded::Seen),
            Ok(Err(error)) => Err(match error.code() {
                Some(code) => ReplayStoreError::Server {
                    command: "SET",
                    code: code.to_owned(),
                },
                None => ReplayStoreError::Unavailable(error.category().to_owned()),
            }),
            Err(_) => Err(ReplayStoreError::Unavailable(format!(
                "no response within {PATIENCE:?}"
            ))),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    let nodes =
        std::env::var("REDIS_CLUSTER").map_err(|_| "set REDIS_CLUSTER to the URLs of its nodes")?;
    let nodes: Vec<_> = nodes.split(',').collect();
    run(&nodes).await
}

/// Sends each of 100 calls twice to each of two instances.
pub(crate) async fn run(nodes: &[&str]) -> Result<(), Box<dyn Error>> {
    let key: SigningKey = "signkey-demo-0123456789abcdef".parse()?;
    let mut instances = Vec::new();
    for _ in ["A", "B"] {
        let store = ClusterStore::connect(nodes, "inngest-auth").await?;
        let auth = InngestAuth::new(key.clone()).replay_guard(store);
        let app: Router = Router::new().route("/api/inngest", any(|| async { "ran" }).layer(auth));
        instances.push(app);
    }
    let now = SystemClock.now().ok_or("no time")?;
    let mut ran = 0;
    for call in 0..100 {
        let body = format!(r#"{{"call":{call},"sent":{now}}}"#);
        for app in [0, 1, 0, 1].map(|at| instances[at].clone()) {
            let request = Request::post("/api/inngest?fnId=pay&stepId=step")
                .header(SIGNATURE_HEADER, key.sign(body.as_bytes(), now).to_string())
                .body(Body::from(body.clone()))?;
            let response: Response = app.oneshot(request).await?;
            ran += u32::from(response.status().is_success());
        }
    }
    println!("100 calls, sent 400 times: {ran} ran");
    if ran == 100 {
        Ok(())
    } else {
        Err("each must run once".into())
    }
}
