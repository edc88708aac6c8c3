//! What a server without Tower needs of this crate, whatever its types are: the values of one
//! header, the announced length, and the pieces of the body.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use inngest_auth::{Rejection, RejectionKind, ResponseSigner, Verifier};

/// A request that may reach the handler.
pub(crate) struct Admitted {
    /// The bytes to read: what was authenticated.
    pub(crate) body: Vec<u8>,
    /// `None` in dev mode, in which nothing is verified.
    pub(crate) signer: Option<ResponseSigner>,
}

/// Reads and verifies a request. A rejection from its header costs no byte of its body.
///
/// A server for strangers puts its own deadline around this.
pub(crate) async fn admit<E>(
    verifier: &Verifier,
    signatures: impl IntoIterator<Item = &[u8]>,
    announced: Option<u64>,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<Admitted, Rejection> {
    let mut check = verifier.start(signatures)?;
    if let Some(length) = announced {
        check.expect(length)?;
    }
    let mut body = std::pin::pin!(body);
    while let Some(piece) = body.next().await {
        check.push(&piece.map_err(|_| RejectionKind::BodyBroken)?)?;
    }
    let (authentic, signer) = check.finish()?;
    Ok(Admitted {
        body: authentic.into_bytes().into_owned(),
        signer: Some(signer),
    })
}

/// Signs the response to an in-band sync, which Inngest requires, and no other.
pub(crate) fn signature(
    verifier: &Verifier,
    admitted: &Admitted,
    in_band: bool,
    body: &[u8],
) -> Option<String> {
    let signer = admitted.signer.as_ref().filter(|_| in_band)?;
    Some(verifier.sign_response(signer, body)?.to_string())
}
