//! The URL that Inngest reaches the app at.

use std::fmt;

use axum::http::Uri;

/// An absolute http or https URL, in the parts that may come from different places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppUrl {
    /// Scheme, host and port.
    pub(crate) origin: String,
    /// Empty, or with its slash.
    pub(crate) path: String,
    /// Without its question mark.
    query: String,
}

impl AppUrl {
    /// Returns `None` for anything else, and if the URL contains a user name.
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

    /// Replaces the parts that `configured` has. Its path is the whole path: nothing is appended.
    pub(crate) fn overridden_by(self, configured: &Self) -> Self {
        let either = |ours: &String, theirs| {
            if ours.is_empty() {
                theirs
            } else {
                ours.clone()
            }
        };
        Self {
            origin: configured.origin.clone(),
            path: either(&configured.path, self.path),
            query: either(&configured.query, self.query),
        }
    }

    /// Returns the URL that calls the function. The rest of the query is kept unchanged.
    pub(crate) fn of_function(&self, id: &str) -> Self {
        let ours = |pair: &&str| {
            let name = form_urlencoded::parse(pair.as_bytes()).next();
            !name.is_some_and(|(name, _)| matches!(&*name, "fnId" | "stepId"))
        };
        let mut pairs: Vec<_> = self
            .query
            .split('&')
            .filter(|it| !it.is_empty())
            .filter(ours)
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
