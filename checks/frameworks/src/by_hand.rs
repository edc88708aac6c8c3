//! For servers without Tower, whatever their types are: verifies the values of the signature
//! header, the announced length, and the pieces of the body.

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use inngest_auth::{Rejection, RejectionKind, ResponseSigner, Verifier};

/// A request that may reach the handler.
pub(crate) struct Admitted {
    /// The bytes to read: those that were authenticated.
    pub(crate) body: Vec<u8>,
    /// `None` in dev mode.
    signer: Option<ResponseSigner>,
}

/// Reads and verifies a request. If its headers are enough to reject it, its body is not read.
///
/// `verifier` is `None` in dev mode. On a public network, put a deadline around this.
pub(crate) async fn admit<E>(
    verifier: Option<&Verifier>,
    signatures: impl IntoIterator<Item = &[u8]>,
    announced: Option<u64>,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<Admitted, Rejection> {
    let body = body.map_err(|_| Rejection::from(RejectionKind::BodyBroken));
    let mut body = std::pin::pin!(body);
    let Some(verifier) = verifier else {
        let pieces: Vec<_> = body.try_collect().await?;
        return Ok(Admitted {
            body: pieces.concat(),
            signer: None,
        });
    };
    let mut check = verifier.start(signatures)?;
    if let Some(length) = announced {
        check.expect(length)?;
    }
    while let Some(piece) = body.try_next().await? {
        check.push(&piece)?;
    }
    let (authentic, signer) = check.finish()?;
    Ok(Admitted {
        body: authentic.into_bytes().into_owned(),
        signer: Some(signer),
    })
}

/// Signs the response to an in-band sync, and no other: only there does Inngest require it.
pub(crate) fn signature(
    verifier: Option<&Verifier>,
    admitted: &Admitted,
    in_band: bool,
    body: &[u8],
) -> Option<String> {
    let signer = admitted.signer.as_ref().filter(|_| in_band)?;
    Some(verifier?.sign_response(signer, body)?.to_string())
}
