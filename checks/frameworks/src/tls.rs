//! axum-server with rustls, and a client that trusts its certificate.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock};

use axum_server::tls_rustls::RustlsConfig;
use inngest_auth::InngestAuth;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::layered::app;
use crate::{Http, Setup};

const NAME: &str = "localhost";
const ALPN: [&[u8]; 2] = [b"http/1.1", b"h2"];

static CERTIFICATE: LazyLock<CertifiedKey<KeyPair>> =
    LazyLock::new(|| generate_simple_self_signed([NAME.to_owned()]).expect("it is a host's name"));

/// Starts a server for HTTP/1 and HTTP/2, as the client chooses.
pub(crate) fn start(setup: &Setup) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.set_nonblocking(true).expect("it can be set");
    let address = listener.local_addr().expect("it is bound");
    let key = PrivatePkcs8KeyDer::from(CERTIFICATE.signing_key.serialize_der());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![CERTIFICATE.cert.der().clone()], key.into())
        .expect("the key is the certificate's");
    config.alpn_protocols = ALPN.map(Vec::from).into();
    let tls = RustlsConfig::from_config(Arc::new(config));
    tokio::spawn(serve(listener, tls, setup.auth()));
    address
}

async fn serve(listener: TcpListener, tls: RustlsConfig, auth: InngestAuth) -> io::Result<()> {
    let server = axum_server::from_tcp_rustls(listener, tls)?;
    server.serve(app(auth).into_make_service()).await
}

pub(crate) async fn connect(address: SocketAddr, http: Http) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CERTIFICATE.cert.der().clone())
        .expect("it is a certificate");
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocol = ALPN[usize::from(http == Http::Two)];
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpStream::connect(address).await.expect("it listens");
    let name = ServerName::try_from(NAME).expect("it is a host's name");
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
        .expect("it speaks TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    stream
}
