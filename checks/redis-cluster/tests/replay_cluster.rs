//! The store of `examples/replay_cluster.rs`, against a real Redis Cluster of three nodes.
//!
//! Without `REDIS_URL` these tests print that they are skipped.

#[path = "../examples/replay_cluster.rs"]
#[allow(dead_code, reason = "its `main`")]
mod example;
#[path = "../../../tests/common/redis.rs"]
mod redis_server;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use example::ClusterStore;
use inngest_auth::replay::{Recorded, ReplayStore, Sighting};
use redis_server::{Redis, wanted};

const NOW: u64 = 1_700_000_000;
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

fn three_nodes(policy: &str) -> [Redis; 3] {
    let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let settings = [
        &settings[..],
        &["--maxmemory", "64mb", "--maxmemory-policy", policy],
    ]
    .concat();
    let nodes = SLOTS.map(|(first, last)| {
        let node = Redis::start(&settings);
        assert_eq!(
            node.say(&["CLUSTER", "ADDSLOTSRANGE", first, last]),
            "+OK\r\n"
        );
        node
    });
    for other in &nodes[1..] {
        let [host, port] = [
            other.address.ip().to_string(),
            other.address.port().to_string(),
        ];
        nodes[0].say(&["CLUSTER", "MEET", &host, &port]);
    }
    for node in &nodes {
        node.wait("the nodes do not meet", |node| {
            let info = node.say(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_size:3")
        });
    }
    nodes
}

fn urls(nodes: &[Redis; 3]) -> [String; 3] {
    nodes.each_ref().map(Redis::url)
}

fn sighting(number: u64) -> Sighting {
    let mut mac = [7; 32];
    mac[..8].copy_from_slice(&number.to_be_bytes());
    Sighting::new(mac, NOW, NOW + 360, NOW)
}

#[tokio::test]
async fn nothing_is_accepted_twice_in_a_cluster_that_loses_a_node() {
    if !wanted("nothing_is_accepted_twice_in_a_cluster_that_loses_a_node") {
        return;
    }
    let nodes = three_nodes("noeviction");
    let urls = urls(&nodes);
    let urls = urls.each_ref().map(String::as_str);
    example::run(&urls).await.unwrap();
    let held = nodes.each_ref().map(|node| node.say(&["DBSIZE"]));
    assert!(
        held.iter().all(|held| held != ":0\r\n"),
        "not spread: {held:?}"
    );

    // One node is known by name, and the client finds the others.
    let stores = [
        ClusterStore::connect(&urls[..1], "test").await.unwrap(),
        ClusterStore::connect(&urls[1..2], "test").await.unwrap(),
    ];
    let mut accepted = HashSet::new();
    let mut failed = 0;
    let [_, lost, _] = nodes;
    let mut lost = Some(lost);
    for number in 0..300 {
        if number == 100 {
            lost.take().unwrap().kill();
        }
        for store in [0, 1, 1, 0].map(|at| &stores[at]) {
            match store.record(sighting(number)).await {
                Ok(Recorded::Fresh) => assert!(accepted.insert(number), "{number} twice"),
                Ok(recorded) => assert_eq!(recorded, Recorded::Seen),
                Err(error) => {
                    failed += 1;
                    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
                }
            }
        }
        if failed > 8 {
            break;
        }
    }
    println!(
        "{} accepted, none twice; {failed} rejected without the node",
        accepted.len()
    );
    assert!(accepted.len() >= 100 && failed > 0);
}

#[tokio::test]
async fn a_moving_slot_keeps_its_keys() {
    if !wanted("a_moving_slot_keeps_its_keys") {
        return;
    }
    let nodes = three_nodes("noeviction");
    let urls = urls(&nodes);
    let urls = urls.each_ref().map(String::as_str);
    let store = ClusterStore::connect(&urls, "test").await.unwrap();
    let call = sighting(1);
    assert_eq!(store.record(call).await, Ok(Recorded::Fresh));
    // The slot's node, and the node that it moves to.
    let at = nodes
        .iter()
        .position(|node| node.say(&["DBSIZE"]) == ":1\r\n")
        .unwrap();
    let [from, to] = [&nodes[at], &nodes[(at + 1) % 3]];
    let key = format!("test:{}", hex::encode(call.mac));
    let id = |node: &Redis| {
        node.say(&["CLUSTER", "MYID"])
            .lines()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    let [from_id, to_id] = [id(from), id(to)];
    let slot = from.say(&["CLUSTER", "KEYSLOT", &key]);
    let slot = slot.trim_start_matches(':').trim_end();
    let ok = |said: String| assert_eq!(said, "+OK\r\n");
    ok(to.say(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &from_id]));
    ok(from.say(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &to_id]));
    let [host, port] = [to.address.ip().to_string(), to.address.port().to_string()];
    ok(from.say(&["MIGRATE", &host, &port, &key, "0", "5000"]));
    // While the slot moves, the old node redirects the client to the new one.
    assert_eq!(store.record(call).await, Ok(Recorded::Seen));
    ok(to.say(&["CLUSTER", "SETSLOT", slot, "NODE", &to_id]));
    ok(from.say(&["CLUSTER", "SETSLOT", slot, "NODE", &to_id]));
    let began = Instant::now();
    while store.record(call).await != Ok(Recorded::Seen) {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_cluster_that_may_remove_keys_is_rejected() {
    if !wanted("a_cluster_that_may_remove_keys_is_rejected") {
        return;
    }
    let nodes = three_nodes("allkeys-lru");
    let urls = urls(&nodes);
    let urls = urls.each_ref().map(String::as_str);
    let error = ClusterStore::connect(&urls, "test").await.err().unwrap();
    assert!(
        error
            .to_string()
            .contains("set maxmemory-policy to noeviction"),
        "{error}"
    );
}
