//! The URL at which Inngest reaches the app.

use std::fmt;

use axum::http::Uri;

/// An absolute http or https URL, split into the parts that can be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppUrl {
    /// Scheme, host and port.
    pub(crate) origin: String,
    /// Empty, or begins with a slash.
    pub(crate) path: String,
    /// The query without its question mark.
    query: String,
}

impl AppUrl {
    /// Parses a URL. Returns `None` if it is not an absolute http or https URL, or contains a user
    /// name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.trim().parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
        if !matches!(scheme, "http" | "https") || authority.contains('@') {
            return None;
        }
        Some(Self {
            origin: format!("{scheme}://{authority}"),
            path: Some(uri.path())
                .filter(|path| *path != "/")
                .unwrap_or_default()
                .to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
        })
    }

    /// Replaces the parts that `configured` has. Its path replaces the whole path.
    pub(crate) fn overridden_by(self, configured: &Self) -> Self {
        let or = |configured: &String, ours| {
            if configured.is_empty() {
                ours
            } else {
                configured.clone()
            }
        };
        Self {
            origin: configured.origin.clone(),
            path: or(&configured.path, self.path),
            query: or(&configured.query, self.query),
        }
    }

    /// Returns the URL that calls a function. All other query parameters are kept.
    pub(crate) fn of_function(&self, id: &str) -> Self {
        let is_kept = |pair: &&str| {
            let name = form_urlencoded::parse(pair.as_bytes()).next();
            !name.is_some_and(|(name, _)| matches!(&*name, "fnId" | "stepId"))
        };
        let mut pairs: Vec<_> = self
            .query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .filter(is_kept)
            .collect();
        let call = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("fnId", id), ("stepId", "step")])
            .finish();
        pairs.push(&call);
        Self {
            query: pairs.join("&"),
            ..self.clone()
        }
    }
}

impl fmt::Display for AppUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)?;
        match &*self.query {
            "" => Ok(()),
            query => write!(f, "?{query}"),
        }
    }
}
