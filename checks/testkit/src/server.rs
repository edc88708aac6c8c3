//! A real server on loopback that reports what it holds, so that a test waits for a state instead
//! of a time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::http::header::HOST;
use axum::http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use inngest_auth::{SIGNATURE_HEADER, SigningKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::{Service, ServiceExt};

use crate::NOW;

/// Ends a test that would hang. It is far longer than anything takes.
const TOO_LONG: Duration = Duration::from_secs(100);

pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(TOO_LONG, work).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {TOO_LONG:?}"))
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// The number of connections ever accepted.
    pub accepted: usize,
    /// The number of connections of which something is left.
    pub open: usize,
    /// The number of bytes read from sockets.
    pub received: usize,
    /// The number of request bodies that are waiting for their client.
    pub waiting: usize,
    /// The number of body bytes that the application has received and not dropped.
    pub in_hand: usize,
    /// The number of bodies that it has dropped.
    pub dropped: usize,
}

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    count: watch::Sender<Count>,
}

impl Server {
    /// Starts a server for HTTP/1 and HTTP/2.
    pub async fn start<S, R>(app: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<R>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = watch::Sender::default();
        let server = Self { address, count };
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(accepting.clone().connection(socket, app.clone()));
            }
        });
        server
    }

    async fn connection<S, R>(self, socket: TcpStream, app: S)
    where
        S: Service<Request<Body>, Response = Response<R>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        // Dropped after everything else that belongs to the connection.
        let _open = Open::new(self.count.clone());
        let io = TokioIo::new(CountedSocket(socket, self.count.clone()));
        let app = app.map_request(move |request: Request<Incoming>| {
            request.map(|body| Body::new(CountedBody::new(body, self.count.clone())))
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let _ = builder
            .serve_connection(io, TowerToHyperService::new(app))
            .await;
    }

    pub fn now(&self) -> Count {
        *self.count.borrow()
    }

    pub fn changes(&self) -> watch::Receiver<Count> {
        self.count.subscribe()
    }

    /// Waits until it holds what `reached` requires.
    pub async fn until(&self, what: &str, mut reached: impl FnMut(&Count) -> bool) -> Count {
        let mut count = self.count.subscribe();
        let waited = tokio::time::timeout(TOO_LONG, count.wait_for(|count| reached(count))).await;
        let count = waited
            .unwrap_or_else(|_| panic!("{what}: not within {TOO_LONG:?}, but {:?}", self.now()));
        *count.unwrap()
    }

    /// Returns the status of a genuine call that needs every byte of a budget of `len`: its body is
    /// one chunk, which does not declare that it is the last.
    pub async fn status_of_a_call_of(&self, len: usize, key: &SigningKey) -> u16 {
        assert!(len <= 4096, "one read of the server's must take it");
        let body = vec![b'g'; len];
        let signature = key.sign(&body, NOW).to_string();
        let headers = [
            (SIGNATURE_HEADER, &*signature),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
        ];
        let mut call = head("POST", "/api/inngest?fnId=genuine&stepId=step", &headers);
        call.extend(format!("{len:x}\r\n").into_bytes());
        call.extend(body);
        call.extend(b"\r\n0\r\n\r\n");
        in_time("a genuine call", async {
            let mut socket = self.connect().await;
            socket.write_all(&call).await.unwrap();
            hear_status(&mut socket)
                .await
                .expect("an response to a genuine call")
        })
        .await
    }

    /// Sends a request over its own connection, and reads the response to its end.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Response<Bytes> {
        let host = self.address.to_string();
        request.headers_mut().insert(HOST, host.parse().unwrap());
        let socket = TokioIo::new(self.connect().await);
        let (mut client, connection) = client::conn::http1::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let (parts, body) = client.send_request(request).await.unwrap().into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

pub fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("{method} {uri} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Reads until the server closes. Returns the status, or `None` if there is no response.
pub async fn hear_status(socket: &mut (impl AsyncRead + Unpin)) -> Option<u16> {
    let mut heard = Vec::new();
    // A reset also ends the response.
    let _ = socket.read_to_end(&mut heard).await;
    status_in(&heard)
}

pub fn status_in(response: &[u8]) -> Option<u16> {
    let status = response.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    Some(str::from_utf8(status).unwrap().parse().unwrap())
}

/// A connection, counted as long as it exists.
struct Open(watch::Sender<Count>);

impl Open {
    fn new(count: watch::Sender<Count>) -> Self {
        count.send_modify(|count| {
            count.accepted += 1;
            count.open += 1;
        });
        Self(count)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|count| count.open -= 1);
    }
}

struct CountedSocket(TcpStream, watch::Sender<Count>);

impl AsyncRead for CountedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.1.send_modify(|count| count.received += read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A request's body, as the outermost layer would see its use.
struct CountedBody {
    body: Incoming,
    count: watch::Sender<Count>,
    given: usize,
    waits: bool,
}

impl CountedBody {
    fn new(body: Incoming, count: watch::Sender<Count>) -> Self {
        Self {
            body,
            count,
            given: 0,
            waits: false,
        }
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let waits = polled.is_pending();
        let data = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        if waits != this.waits || data > 0 {
            this.count.send_modify(|count| {
                count.waiting += usize::from(waits);
                count.waiting -= usize::from(this.waits);
                count.in_hand += data;
            });
        }
        this.waits = waits;
        this.given += data;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.count.send_modify(|count| {
            count.waiting -= usize::from(self.waits);
            count.in_hand -= self.given;
            count.dropped += 1;
        });
    }
}
