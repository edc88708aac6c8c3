//! What a host without `wasm-bindgen` needs to verify requests.
//!
//! The host writes a request into [`input`], calls [`verify`], and reads the verdict from
//! [`output`]. Each is a line of JSON, followed by the bytes of the body. The host tells the time.

use std::cell::RefCell;

use inngest_auth::{Clock, Keys, SigningKey, SystemClock, Verifier};
use serde::Deserialize;
use serde_json::json;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    /// Returns the milliseconds since 1970, as JavaScript's `Date.now()` does.
    safe fn now() -> f64;
}

/// The clock of the host.
struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> Option<u64> {
        let milliseconds = now();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked"
        )]
        (milliseconds >= 0.0).then_some((milliseconds / 1000.0) as u64)
    }
}

/// A request to verify, and what it is verified with.
#[derive(Deserialize)]
struct Request {
    key: String,
    fallback: Option<String>,
    /// All values of `X-Inngest-Signature`.
    signatures: Vec<String>,
    /// The body of the response to sign.
    response: Option<String>,
    /// Uses [`SystemClock`] in place of the host's.
    #[serde(default)]
    system_clock: bool,
}

/// Makes room for a request of `len` bytes. Returns its address.
#[unsafe(no_mangle)]
pub extern "C" fn input(len: usize) -> *mut u8 {
    INPUT.with_borrow_mut(|input| {
        *input = vec![0; len];
        input.as_mut_ptr()
    })
}

/// Verifies the request that was written. Returns how many bytes the verdict has.
#[unsafe(no_mangle)]
pub extern "C" fn verify() -> usize {
    let said = INPUT.with_borrow(|input| verdict(input));
    let said = said.unwrap_or_else(|error| format!("{}\n", json!(error.to_string())).into());
    OUTPUT.set(said);
    OUTPUT.with_borrow(Vec::len)
}

/// Returns the address of the verdict.
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const u8 {
    OUTPUT.with_borrow(Vec::as_ptr)
}

fn verdict(input: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let line = input
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or("no line")?;
    let (request, body) = (&input[..line], &input[line + 1..]);
    let request: Request = serde_json::from_slice(request)?;
    let key: SigningKey = request.key.parse()?;
    let fallback = request.fallback.map(|key| key.parse()).transpose()?;
    let verifier = Verifier::new(Keys::new(key, fallback));
    let verifier = if request.system_clock {
        // Neither may trap.
        let _ = SystemClock.monotonic();
        verifier.clock(SystemClock)
    } else {
        verifier.clock(HostClock)
    };
    let signatures = request.signatures.iter().map(String::as_bytes);
    let (authentic, signer) = match verifier.verify(signatures, body) {
        Ok(authentic) => authentic,
        Err(rejection) => {
            let kind = rejection.kind();
            let verdict = json!({"status": kind.status(), "kind": kind.as_str()});
            return Ok(format!("{verdict}\n").into());
        }
    };
    let (role, form) = (authentic.verified().key(), authentic.verified().form());
    let signature = request
        .response
        .and_then(|response| verifier.sign_response(&signer, response.as_bytes()));
    let verdict = json!({
        "status": 200,
        "key": role.as_str(),
        "form": form.as_str(),
        "signature": signature.map(|signature| signature.to_string()),
    });
    Ok([format!("{verdict}\n").as_bytes(), &authentic.into_bytes()].concat())
}
