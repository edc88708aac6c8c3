//! A signed request, what may happen to it, and the verdict that it deserves.

use arbitrary::Arbitrary;
use inngest_auth::{Form, KeyRole};

use crate::{CURRENT, FALLBACK, NOW, header, json};

/// All zeros: a genuine request with the current key, unchanged.
#[derive(Debug, Default, Arbitrary)]
pub struct Plan {
    pub held: Held,
    pub signer: Signer,
    pub over: Over,
    /// In seconds by the receiver's clock; negative if signed in the future.
    pub age: i16,
    pub spelling: Spelling,
    /// How many digits move from `t` to the end of the body; negative for the reverse.
    pub digits_moved: i8,
    pub header_edit: Edit,
    pub body_edit: Edit,
    /// The error of the receiver's clock, as a mask.
    pub clock: u64,
    /// In seconds; 0 for the default.
    pub tolerance: u16,
    pub method: Method,
    pub says_dev: bool,
}

/// The receiver's keys.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Held {
    #[default]
    Both,
    CurrentAlone,
    /// The current key in both roles, so there is no fallback key.
    OneTwice,
    Swapped,
}

#[derive(Debug, Default, Clone, Copy, Arbitrary)]
pub enum Signer {
    #[default]
    Current,
    Fallback,
    Stranger,
}

/// The signed bytes, if they are not those that are sent.
#[derive(Debug, Default, Clone, Copy, Arbitrary)]
pub enum Over {
    #[default]
    Body,
    CanonicalForm,
    Nothing,
    BodyWithoutTime,
    TimeAlone,
}

#[derive(Debug, Default, Clone, Copy, Arbitrary)]
pub enum Spelling {
    #[default]
    TimeFirst,
    MacFirst,
    UpperCase,
    WithUnknown,
    TimeTwice,
    MacTwice,
}

#[derive(Debug, Default, Clone, Copy, Arbitrary)]
pub enum Edit {
    #[default]
    None,
    Replace(u16, u8),
    Insert(u16, u8),
    Remove(u16),
    CutAt(u16),
}

#[derive(Debug, Default, Clone, Copy, Arbitrary)]
pub enum Method {
    #[default]
    Post,
    Put,
    Get,
    Head,
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        match self {
            Self::Replace(at, byte) if len > 0 => bytes[usize::from(at) % len] = byte,
            Self::Insert(at, byte) => bytes.insert(usize::from(at) % (len + 1), byte),
            Self::Remove(at) if len > 0 => drop(bytes.remove(usize::from(at) % len)),
            Self::CutAt(at) => bytes.truncate(usize::from(at)),
            _ => {}
        }
    }
}

impl Method {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

/// What is sent.
#[derive(Debug)]
pub struct Sent {
    pub header: Vec<u8>,
    pub body: Vec<u8>,
}

impl Plan {
    #[must_use]
    pub fn now(&self) -> u64 {
        NOW ^ self.clock
    }

    /// Returns the tolerance that the receiver sets, in seconds.
    #[must_use]
    pub fn tolerance(&self) -> u64 {
        match self.tolerance {
            0 => 300,
            set => set.into(),
        }
    }

    /// Returns the receiver's keys by role, each as text and secret.
    #[must_use]
    pub fn keys(&self) -> Vec<(KeyRole, (&'static str, &'static str))> {
        match self.held {
            Held::Both => vec![(KeyRole::Current, CURRENT), (KeyRole::Fallback, FALLBACK)],
            Held::CurrentAlone | Held::OneTwice => vec![(KeyRole::Current, CURRENT)],
            Held::Swapped => vec![(KeyRole::Current, FALLBACK), (KeyRole::Fallback, CURRENT)],
        }
    }

    #[must_use]
    pub fn send(&self, body: &[u8]) -> Sent {
        let time = NOW.saturating_add_signed(-i64::from(self.age)).to_string();
        let form = || json::canonical(body).unwrap_or_default();
        let message = match self.over {
            Over::Body => [body, time.as_bytes()].concat(),
            Over::CanonicalForm => [&*form(), time.as_bytes()].concat(),
            Over::Nothing => Vec::new(),
            Over::BodyWithoutTime => body.to_vec(),
            Over::TimeAlone => time.as_bytes().to_vec(),
        };
        let secret = match self.signer {
            Signer::Current => CURRENT.1,
            Signer::Fallback => FALLBACK.1,
            Signer::Stranger => "",
        };
        let mac = header::hmac(secret, &message);
        let mut body = body.to_vec();
        let time = self.move_digits(&time, &mut body);
        let usual = header::write(&time, &mac);
        let (t, s) = usual.split_once('&').unwrap_or_default();
        let mut header = match self.spelling {
            Spelling::TimeFirst => usual.clone(),
            Spelling::MacFirst => format!("{s}&{t}"),
            Spelling::UpperCase => format!("{t}&s={}", s[2..].to_uppercase()),
            Spelling::WithUnknown => format!("v=2&{usual}&x=y=z"),
            Spelling::TimeTwice => format!("{usual}&{t}"),
            Spelling::MacTwice => format!("{s}&{usual}"),
        }
        .into_bytes();
        self.header_edit.apply(&mut header);
        self.body_edit.apply(&mut body);
        Sent { header, body }
    }

    /// Moves digits between body and time. What is signed stays the same.
    fn move_digits(&self, time: &str, body: &mut Vec<u8>) -> String {
        let count = usize::from(self.digits_moved.unsigned_abs() % 4);
        if self.digits_moved >= 0 {
            let (wandered, rest) = time.split_at(count);
            body.extend_from_slice(wandered.as_bytes());
            return rest.to_owned();
        }
        let wandered = body.split_off(body.len().saturating_sub(count));
        String::from_utf8_lossy(&wandered).into_owned() + time
    }

    /// Returns the verdict by the rules, one after the other.
    ///
    /// # Panics
    ///
    /// Never: the difference of two 64-bit times fits.
    #[must_use]
    pub fn judge(&self, sent: &Sent) -> Verdict {
        let Some((time, mac)) = header::read(&sent.header) else {
            return Verdict::Malformed;
        };
        let age = i128::from(self.now()) - i128::from(time);
        let tolerance = i128::from(self.tolerance().clamp(1, 3600));
        if age > tolerance {
            return Verdict::Stale(u64::try_from(age).unwrap());
        }
        if age < -tolerance {
            return Verdict::Future(u64::try_from(-age).unwrap());
        }
        for (key, (_, secret)) in self.keys() {
            if header::sign(secret, &sent.body, time) == mac {
                return Verdict::Accepted {
                    key,
                    form: Form::Raw,
                    time,
                    bytes: sent.body.clone(),
                };
            }
        }
        if let Some(bytes) = json::canonical(&sent.body) {
            for (key, (_, secret)) in self.keys() {
                if header::sign(secret, &bytes, time) == mac {
                    return Verdict::Accepted {
                        key,
                        form: Form::Canonical,
                        time,
                        bytes,
                    };
                }
            }
        }
        Verdict::Mismatch
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Malformed,
    /// In seconds, as with `Future`.
    Stale(u64),
    Future(u64),
    Mismatch,
    Accepted {
        key: KeyRole,
        form: Form,
        time: u64,
        /// What the handler must read.
        bytes: Vec<u8>,
    },
}
