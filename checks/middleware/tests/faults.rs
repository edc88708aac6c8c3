//! Clients that vanish, bodies that fail and handlers that panic, over real sockets. Nothing must
//! be left held: the next genuine call, which needs the whole budget and the only permit, must
//! succeed.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use inngest_auth::replay::{Recorded, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::testing::TestClock;
use inngest_auth::{InngestAuth, KeyRing, SIGNATURE_HEADER, SignResponses, SigningKey};
use testkit::server::{Server, head, hear_status, in_time};
use testkit::{NOW, inngest, key};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, watch};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_http::catch_panic::CatchPanicLayer;

/// In bytes: the budget of all unverified bodies, and the size of the call that shows that nothing
/// is left held.
const BUDGET: usize = 4096;
const URI: &str = "/api/inngest?fnId=hello&stepId=step";

/// Returns the key that `inngest` signs with.
fn current() -> SigningKey {
    key("signkey-test-12345678")
}

/// Where the first request that arrives is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The replay store, on its n-th call.
    Store(usize),
    Readiness,
    Handler,
    /// The body of a response with a known size.
    Reply,
    /// The body of a response that is a stream.
    Stream,
    /// `on_rejection`.
    Rejection,
}

#[derive(Clone, Copy)]
enum Trap {
    Nowhere,
    /// Catches a request and holds it for ever.
    Holds(Place),
    Panics(Place),
}

/// A trap for one request, and how many are in it.
#[derive(Clone)]
struct Trapped {
    trap: Trap,
    sprung: watch::Sender<usize>,
    inside: watch::Sender<usize>,
}

impl Trapped {
    fn new(trap: Trap) -> Self {
        let (sprung, inside) = Default::default();
        Self {
            trap,
            sprung,
            inside,
        }
    }

    fn springs(&self, place: Place) -> bool {
        let here = matches!(self.trap, Trap::Holds(it) | Trap::Panics(it) if it == place);
        here && self.sprung.send_replace(1) == 0
    }

    fn pass_at_once(&self, place: Place) {
        assert!(!self.springs(place), "a panic in {place:?}");
    }

    async fn pass(self, place: Place) {
        if !self.springs(place) {
            return;
        }
        assert!(
            !matches!(self.trap, Trap::Panics(_)),
            "a panic in {place:?}"
        );
        self.inside.send_modify(|inside| *inside += 1);
        let _leaves = Leaves(self.inside.clone());
        std::future::pending::<()>().await;
    }

    async fn until_one_is_inside(&self) {
        let mut inside = self.inside.subscribe();
        in_time(
            "no request reached the trap",
            inside.wait_for(|&inside| inside == 1),
        )
        .await
        .unwrap();
    }
}

struct Leaves(watch::Sender<usize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.send_modify(|inside| *inside -= 1);
    }
}

type Passing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store to which every MAC is new.
struct Store {
    asked: AtomicUsize,
    trapped: Trapped,
}

impl ReplayStore for Store {
    async fn record(&self, _: Sighting) -> Result<Recorded, ReplayStoreError> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.trapped.clone().pass(Place::Store(asked)).await;
        Ok(Recorded::Fresh)
    }
}

/// A service whose readiness can be a trap.
struct Readiness<S> {
    inner: S,
    trapped: Trapped,
    passing: Option<Passing>,
}

impl<S> Readiness<S> {
    fn new(inner: S, trapped: Trapped) -> Self {
        let passing = None;
        Self {
            inner,
            trapped,
            passing,
        }
    }
}

impl<S: Clone> Clone for Readiness<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.trapped.clone())
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Readiness<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let trapped = &self.trapped;
        let passing = self
            .passing
            .get_or_insert_with(|| Box::pin(trapped.clone().pass(Place::Readiness)));
        ready!(passing.as_mut().poll(cx));
        self.passing = None;
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.inner.call(request)
    }
}

/// A response's body of one frame.
struct Reply {
    data: Option<Bytes>,
    size_is_known: bool,
    passing: Passing,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.data.is_some() {
            ready!(self.passing.as_mut().poll(cx));
        }
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.data {
            data if self.size_is_known => {
                SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64)
            }
            _ => SizeHint::default(),
        }
    }
}

/// Returns the layer around one permit, traps in every place, and a handler that reads the whole
/// body.
fn app(
    auth: InngestAuth,
    permits: &Arc<Semaphore>,
    trapped: &Trapped,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let handlers = trapped.clone();
    let handler = service_fn(move |request: Request<Body>| {
        let trapped = handlers.clone();
        async move {
            // In dev mode, a body that fails cannot be read to its end.
            let _ = request.into_body().collect().await;
            trapped.clone().pass(Place::Handler).await;
            let size_is_known = !matches!(trapped.trap, Trap::Holds(Place::Stream));
            let place = if size_is_known {
                Place::Reply
            } else {
                Place::Stream
            };
            Ok(Response::new(Body::new(Reply {
                data: Some(Bytes::from_static(b"a response")),
                size_is_known,
                passing: Box::pin(trapped.pass(place)),
            })))
        }
    });
    let readiness = tower::layer::layer_fn(|inner| Readiness::new(inner, trapped.clone()));
    ServiceBuilder::new()
        .layer(auth)
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(
            permits,
        )))
        .layer(readiness)
        .service(handler)
}

/// A request that may be sent only in part.
struct Sent {
    method: &'static str,
    uri: &'static str,
    headers: Vec<(&'static str, String)>,
    /// The pieces of the body, each sent when the server waits for it.
    pieces: Vec<Bytes>,
    chunked: bool,
}

impl Sent {
    /// Returns a call that is signed as a whole of 3000 bytes, of which these are sent.
    fn part(pieces: &[usize]) -> Self {
        let whole = current().sign(&[b'x'; 3000], NOW);
        let mut it = Self::unsigned(pieces);
        it.headers.push((SIGNATURE_HEADER, whole.to_string()));
        it
    }

    fn unsigned(pieces: &[usize]) -> Self {
        Self {
            method: "POST",
            uri: URI,
            headers: vec![("Content-Length", "3000".into())],
            pieces: pieces
                .iter()
                .map(|&len| Bytes::from(vec![b'x'; len]))
                .collect(),
            chunked: false,
        }
    }

    /// Returns a call that is sent to its end, and signed over `signed`.
    fn whole(body: &'static str, signed: &str) -> Self {
        let signature = current().sign(signed.as_bytes(), NOW);
        let mut it = Self::unsigned(&[]);
        it.headers = vec![
            ("Content-Length", body.len().to_string()),
            (SIGNATURE_HEADER, signature.to_string()),
        ];
        it.pieces = vec![Bytes::from_static(body.as_bytes())];
        it
    }

    fn chunked(mut self) -> Self {
        self.headers[0] = ("Transfer-Encoding", "chunked".into());
        self.chunked = true;
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    fn to(mut self, method: &'static str, uri: &'static str) -> Self {
        (self.method, self.uri) = (method, uri);
        self
    }

    fn head(&self) -> Vec<u8> {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        head(self.method, self.uri, &headers)
    }

    fn piece(&self, piece: &Bytes) -> Vec<u8> {
        if self.chunked {
            [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
        } else {
            piece.to_vec()
        }
    }
}

/// The point at which a client vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The server waits for more of the body.
    Arriving,
    Caught(Place),
    /// Everything was sent. How far the server has got is not known.
    AllSent,
}
use Stage::{AllSent, Arriving, Caught};

struct Case {
    /// In the order of the work.
    step: usize,
    what: &'static str,
    auth: InngestAuth,
    sent: Sent,
    stage: Stage,
    /// Whether the request holds the permit at that point.
    permit: bool,
    /// The status of a genuine call.
    genuine: u16,
}

fn case(step: usize, what: &'static str, stage: Stage, sent: Sent) -> Case {
    Case {
        step,
        what,
        auth: auth(),
        sent,
        stage,
        permit: false,
        genuine: 200,
    }
}

impl Case {
    fn with(self, auth: InngestAuth) -> Self {
        Self { auth, ..self }
    }

    fn holds_permit(self) -> Self {
        Self {
            permit: true,
            ..self
        }
    }
}

fn auth() -> InngestAuth {
    let auth = inngest().auth().body_budget(BUDGET);
    auth.sign_responses(SignResponses::All)
}

/// Returns clients that vanish before they are verified: steps 1 to 8.
fn unverified() -> Vec<Case> {
    let dev = InngestAuth::insecure_unverified_dev();
    let unusable = InngestAuth::from_env();
    let syncs = auth().insecure_unsigned_sync(true);
    let malformed = Sent::part(&[2000]).header(SIGNATURE_HEADER, "t=1");
    let stale = current().sign(b"", NOW - 301).to_string();
    let stale = Sent::part(&[2000]).header(SIGNATURE_HEADER, &stale);
    let sync = |pieces| Sent::unsigned(pieces).to("PUT", "/");
    let too_long = Sent::part(&[]).header("Content-Length", "8388609");
    let over_budget = Sent::part(&[3000, 3000]).header("Content-Length", "9000");
    vec![
        case(1, "dev mode", Arriving, Sent::unsigned(&[2000]))
            .with(dev)
            .holds_permit(),
        Case {
            genuine: 500,
            ..case(2, "no key", Arriving, Sent::unsigned(&[2000])).with(unusable)
        },
        case(3, "no signature", Arriving, Sent::unsigned(&[2000])),
        case(3, "half a sync", Arriving, sync(&[2000])).with(syncs.clone()),
        case(3, "a sync", Caught(Place::Handler), sync(&[3000]))
            .with(syncs)
            .holds_permit(),
        case(4, "a malformed signature", Arriving, malformed),
        case(5, "a stale signature", Arriving, stale),
        case(6, "a length over the limit", AllSent, too_long),
        case(7, "a head", Arriving, Sent::part(&[])),
        case(7, "a head, chunked", Arriving, Sent::part(&[]).chunked()),
        case(7, "a byte", Arriving, Sent::part(&[1])),
        case(7, "half", Arriving, Sent::part(&[1500, 7, 700])),
        case(7, "chunks", Arriving, Sent::part(&[1500, 7, 700]).chunked()),
        case(7, "more than the budget", Arriving, over_budget),
        case(8, "a wrong signature", AllSent, Sent::whole("[]", "{}")),
        case(8, "a right signature", AllSent, Sent::whole("{}", "{}")),
    ]
}

/// Returns genuine calls whose client vanishes after they are verified: steps 9 to 13.
fn callers() -> Vec<Case> {
    let call = || Sent::whole("{}", "{}");
    let canonical = Sent::whole(" {\"b\":1,\"a\":2}", "{\"a\":2,\"b\":1}");
    let probe = call().to("POST", "/?probe=trust");
    vec![
        case(9, "the canonical form", Caught(Place::Handler), canonical).holds_permit(),
        case(10, "a replay store", Caught(Place::Store(1)), call()),
        case(11, "a trust probe", Caught(Place::Store(2)), probe),
        case(12, "readiness", Caught(Place::Readiness), call()).holds_permit(),
        case(12, "a handler", Caught(Place::Handler), call()).holds_permit(),
        case(13, "a response, read", Caught(Place::Reply), call()),
        case(13, "a response, recorded", Caught(Place::Store(2)), call()),
        case(13, "a stream", Caught(Place::Stream), call()),
    ]
}

#[tokio::test]
async fn a_client_that_vanishes_in_any_step_leaves_nothing_held() {
    assert!(
        InngestAuth::try_from_env().is_err(),
        "run this without INNGEST_ variables"
    );
    for resets in [false, true] {
        for case in unverified().into_iter().chain(callers()) {
            vanishes(case, resets).await;
        }
    }
}

async fn vanishes(case: Case, resets: bool) {
    let name = format!("step {}, {}, {resets}", case.step, case.what);
    let trapped = Trapped::new(match case.stage {
        Caught(place) => Trap::Holds(place),
        Arriving | AllSent => Trap::Nowhere,
    });
    let permits = Arc::new(Semaphore::new(1));
    let store = Store {
        asked: AtomicUsize::new(0),
        trapped: trapped.clone(),
    };
    let server = Server::start(app(case.auth.replay_guard(store), &permits, &trapped)).await;

    let mut socket = server.connect().await;
    socket.write_all(&case.sent.head()).await.unwrap();
    let mut sent = 0;
    let waits_after =
        |sent| server.until(&name, move |now| (now.waiting, now.in_hand) == (1, sent));
    for piece in &case.sent.pieces {
        waits_after(sent).await;
        socket.write_all(&case.sent.piece(piece)).await.unwrap();
        sent += piece.len();
    }
    match case.stage {
        Arriving => drop(waits_after(sent).await),
        Caught(_) => trapped.until_one_is_inside().await,
        AllSent => {}
    }
    if case.stage != AllSent {
        assert_eq!(permits.available_permits() == 0, case.permit, "{name}");
    }
    if case.stage != AllSent && !case.permit {
        // Other calls do not wait for it, whatever it holds.
        let status = server.status_of_a_call_of(BUDGET, &current()).await;
        assert_eq!(status, case.genuine, "{name}");
    }

    if resets {
        socket.set_zero_linger().unwrap();
    }
    drop(socket);
    server
        .until(&name, |now| now.accepted > 0 && now.open == 0)
        .await;
    assert_eq!(*trapped.inside.borrow(), 0, "{name}");
    nothing_is_held(&server, &permits, &name, case.genuine).await;
}

/// Sends all of it, then reads the response. With `ends`, also announces the end.
async fn says(server: &Server, bytes: &[u8], ends: bool) -> Option<u16> {
    in_time("a response", async {
        let mut socket = server.connect().await;
        socket.write_all(bytes).await.unwrap();
        if ends {
            socket.shutdown().await.unwrap();
        }
        hear_status(&mut socket).await
    })
    .await
}

/// Checks that nothing is left of earlier requests, and that a call that needs everything succeeds.
async fn nothing_is_held(server: &Server, permits: &Semaphore, after: &str, genuine: u16) {
    let now = server.until(after, |count| count.open == 0).await;
    assert_eq!((now.waiting, now.in_hand), (0, 0), "after {after}: {now:?}");
    assert_eq!(permits.available_permits(), 1, "after {after}");
    let status = server.status_of_a_call_of(BUDGET, &current()).await;
    assert_eq!(status, genuine, "after {after}");
}

#[tokio::test]
async fn a_body_that_ends_early_or_fails_is_rejected_and_released() {
    let permits = Arc::new(Semaphore::new(1));
    let server = Server::start(app(auth(), &permits, &Trapped::new(Trap::Nowhere))).await;
    let half = vec![b'x'; 2000];
    let announced = Sent::part(&[]).head();
    let chunked = Sent::part(&[]).chunked().head();
    let chunks = |text: &[&[u8]]| [&[&*chunked], text].concat().concat();
    for (what, bytes, ends) in [
        ("half a body", [&*announced, &half].concat(), true),
        ("half a chunk", chunks(&[b"bb8\r\n", &half]), true),
        ("no last chunk", chunks(&[b"7d0\r\n", &half, b"\r\n"]), true),
        (
            "an invalid length",
            chunks(&[b"7d0\r\n", &half, b"\r\nxyz\r\n"]),
            false,
        ),
        (
            "a chunk over its length",
            chunks(&[b"7c0\r\n", &half]),
            false,
        ),
        (
            "a length past all numbers",
            chunks(&[b"7d0\r\n", &half, b"\r\nfffffffffffffffff\r\n"]),
            false,
        ),
    ] {
        assert_eq!(says(&server, &bytes, ends).await, Some(400), "{what}");
        nothing_is_held(&server, &permits, what, 200).await;
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_ended() {
    let permits = Arc::new(Semaphore::new(1));
    let auth = auth().body_deadline(Duration::from_millis(500));
    let server = Server::start(app(auth, &permits, &Trapped::new(Trap::Nowhere))).await;
    for (what, trickles) in [("silence", false), ("a trickle", true)] {
        let begun = Sent::part(&[2000]).chunked();
        let (mut hears, mut speaks) = server.connect().await.into_split();
        let bytes = [begun.head(), begun.piece(&begun.pieces[0])].concat();
        speaks.write_all(&bytes).await.unwrap();
        let trickle = async {
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            while trickles && speaks.write_all(b"1\r\nx\r\n").await.is_ok() {
                pace.tick().await;
            }
            // Neither side ends it.
            std::future::pending::<()>().await;
        };
        let status = in_time(what, async {
            tokio::select! {
                status = hear_status(&mut hears) => status,
                () = trickle => None,
            }
        });
        assert_eq!(status.await, Some(408), "{what}");
        drop((hears, speaks));
        nothing_is_held(&server, &permits, what, 200).await;
    }
}

#[tokio::test]
async fn a_panic_affects_only_its_own_request() {
    let genuine = || Sent::whole("{}", "{}");
    for (place, sent) in [
        (Place::Rejection, Sent::whole("[]", "{}")),
        (Place::Store(1), genuine()),
        (Place::Readiness, genuine()),
        (Place::Handler, genuine()),
        (Place::Reply, genuine()),
        (Place::Store(2), genuine()),
    ] {
        let name = format!("a panic in {place:?}");
        let trapped = Trapped::new(Trap::Panics(place));
        let permits = Arc::new(Semaphore::new(1));
        let store = Store {
            asked: AtomicUsize::new(0),
            trapped: trapped.clone(),
        };
        let rejections = trapped.clone();
        let auth = auth().replay_guard(store).on_rejection(move |_, response| {
            rejections.pass_at_once(Place::Rejection);
            response
        });
        let ring = auth.keys().unwrap().clone();
        let app = CatchPanicLayer::new().layer(app(auth, &permits, &trapped));
        let server = Server::start(app).await;
        let sent = sent.header("Connection", "close");
        let call = [sent.head(), sent.pieces.concat()].concat();
        assert_eq!(says(&server, &call, false).await, Some(500), "{name}");
        assert_eq!(*trapped.sprung.borrow(), 1, "{name}");
        nothing_is_held(&server, &permits, &name, 200).await;
        // The keys can still be changed.
        ring.replace(key("signkey-test-aa"));
        let rejected = server.status_of_a_call_of(BUDGET, &current()).await;
        let accepted = server
            .status_of_a_call_of(BUDGET, &key("signkey-test-aa"))
            .await;
        assert_eq!((rejected, accepted), (401, 200), "after {name}");
    }
}

/// Panics at every event.
struct Panics;

impl tracing::Subscriber for Panics {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        panic!("in the log");
    }
}

#[tokio::test]
async fn a_panic_while_keys_change_leaves_the_ring_whole_and_usable() {
    let ring = KeyRing::from(current());
    let auth = InngestAuth::new(ring.clone()).clock(TestClock::at(NOW));
    let permits = Arc::new(Semaphore::new(1));
    let server = Server::start(app(auth, &permits, &Trapped::new(Trap::Nowhere))).await;
    let changing = || ring.rotate(key("signkey-test-aa"));
    let panicked =
        tracing::subscriber::with_default(Panics, || catch_unwind(AssertUnwindSafe(changing)));
    assert!(panicked.is_err());
    // The change was complete before it was logged, and another one is possible.
    assert_eq!(
        *ring.snapshot(),
        (key("signkey-test-aa"), Some(current())).into()
    );
    ring.rotate(key("signkey-test-bb"));
    for key in [key("signkey-test-aa"), key("signkey-test-bb")] {
        assert_eq!(server.status_of_a_call_of(10, &key).await, 200);
    }
}
