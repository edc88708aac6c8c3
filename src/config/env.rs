//! The names of the variables, and the values that each accepts.

use std::collections::HashMap;
use std::ffi::OsString;

use zeroize::Zeroizing;

use super::error::ConfigError;
use super::names::{
    DEV, SIGNING_KEY, SIGNING_KEY_FALLBACK, SIGNING_KEY_FALLBACK_FILE, SIGNING_KEY_FILE,
};
use super::source::{Found, KeySource, Slot};

const UNAUTHED_SYNC: &str = "INNGEST_ENABLE_UNAUTHED_SYNC";
/// The API's URL: the first that is set.
const API: [&str; 2] = ["INNGEST_API_BASE_URL", "INNGEST_BASE_URL"];
/// The branch environment's name: the first that is set. Inngest's own variable comes before those
/// of platforms.
const ENVIRONMENT: [&str; 7] = [
    "INNGEST_ENV",
    "BRANCH_NAME",
    "VERCEL_GIT_COMMIT_REF",
    "BRANCH",
    "CF_PAGES_BRANCH",
    "RENDER_GIT_BRANCH",
    "RAILWAY_GIT_BRANCH",
];
const CLOUD_API: &str = "https://api.inngest.com";
const DEV_API: &str = "http://localhost:8288";
/// The domains of Inngest's cloud.
const INNGEST: [&str; 2] = ["inngest.com", "inn.gs"];

/// Some editors write this at the beginning of a file, where it becomes part of the first
/// variable's name.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns the name of every variable that is read, with and without a byte-order mark before it.
pub(super) fn names() -> impl Iterator<Item = String> {
    let keys = [
        SIGNING_KEY,
        SIGNING_KEY_FALLBACK,
        SIGNING_KEY_FILE,
        SIGNING_KEY_FALLBACK_FILE,
    ];
    let names = keys
        .into_iter()
        .chain([DEV, UNAUTHED_SYNC])
        .chain(API)
        .chain(ENVIRONMENT);
    names.flat_map(|name| [name.to_owned(), format!("{BYTE_ORDER_MARK}{name}")])
}

/// Names and values. Wiped on drop, because two of the values are secrets.
pub(super) struct Vars(HashMap<String, Zeroizing<Vec<u8>>>);

impl Vars {
    pub(super) fn new<K, V>(vars: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<OsString>,
    {
        let bytes = |value: V| Zeroizing::new(value.into().into_encoded_bytes());
        Self(
            vars.into_iter()
                .map(|(name, value)| (name.into(), bytes(value)))
                .collect(),
        )
    }

    /// Returns the trimmed value, or `None` if it is unset or blank.
    fn text(&self, variable: &'static str) -> Result<Option<&str>, ConfigError> {
        let Some(value) = self.0.get(variable) else {
            let marked = format!("{BYTE_ORDER_MARK}{variable}");
            if self.0.contains_key(&marked) {
                return Err(ConfigError::ByteOrderMark { variable });
            }
            return Ok(None);
        };
        let text = str::from_utf8(value)
            .map_err(|_| ConfigError::NotUnicode { variable })?
            .trim();
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn switch(&self, variable: &'static str, expected: &'static str) -> Result<bool, ConfigError> {
        match self.text(variable)?.map(str::to_ascii_lowercase).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(ConfigError::InvalidValue { variable, expected }),
        }
    }

    pub(super) fn unsigned_sync(&self) -> Result<bool, ConfigError> {
        self.switch(UNAUTHED_SYNC, r#""1", "true", "0" or "false""#)
    }

    /// Returns the dev server's URL, or `None` in cloud mode.
    pub(super) fn dev_server(&self) -> Result<Option<String>, ConfigError> {
        let text = self.text(DEV)?.unwrap_or_default();
        if is_inngest(text) {
            return Err(ConfigError::DevServerIsInngest);
        }
        if is_url(text) {
            return Ok(Some(text.to_owned()));
        }
        let with_scheme = format!("http://{text}");
        if text.contains(':') && is_url(&with_scheme) {
            return Ok(Some(with_scheme));
        }
        let on = self.switch(DEV, r#""1", "true", "0", "false" or a URL"#)?;
        Ok(on.then(|| DEV_API.to_owned()))
    }

    pub(super) fn api_base(&self, dev_server: Option<&str>) -> Result<String, ConfigError> {
        for variable in API {
            match self.text(variable)? {
                Some(url) if is_url(url) => return Ok(url.trim_end_matches('/').to_owned()),
                Some(_) => {
                    let expected = "a URL, such as https://api.inngest.com";
                    return Err(ConfigError::InvalidValue { variable, expected });
                }
                None => {}
            }
        }
        let url = dev_server.unwrap_or(CLOUD_API);
        Ok(url.trim_end_matches('/').to_owned())
    }

    pub(super) fn environment(&self) -> Result<Option<String>, ConfigError> {
        for variable in ENVIRONMENT {
            match self.text(variable)? {
                // The name becomes the value of a header.
                Some(name) if name.chars().any(char::is_control) => {
                    let expected = "the branch environment's name, in one line";
                    return Err(ConfigError::InvalidValue { variable, expected });
                }
                Some(name) => return Ok(Some(name.to_owned())),
                None => {}
            }
        }
        Ok(None)
    }

    /// Returns `true` if a signing key is set, even an invalid one.
    pub(super) fn has_key(&self) -> bool {
        [SIGNING_KEY, SIGNING_KEY_FILE]
            .iter()
            .any(|variable| self.text(variable) != Ok(None))
    }

    pub(super) fn keys(&self) -> Result<KeySource, ConfigError> {
        KeySource::new([
            self.slot(SIGNING_KEY, SIGNING_KEY_FILE)?,
            self.slot(SIGNING_KEY_FALLBACK, SIGNING_KEY_FALLBACK_FILE)?,
        ])
    }

    fn slot(&self, variable: &'static str, file: &'static str) -> Result<Slot, ConfigError> {
        match (self.text(variable)?, self.text(file)?) {
            (None, None) => Ok(Slot::Unset),
            (Some(_), Some(_)) => Err(ConfigError::BothSet { variable, file }),
            (Some(text), None) => {
                Ok(Found::parse(variable, text)?.map_or(Slot::Unset, Slot::Value))
            }
            (None, Some(path)) => Ok(Slot::File {
                variable: file,
                path: path.into(),
            }),
        }
    }
}

/// Returns `true` for `http(s)://host`, optionally with a port and a path. A user name, query or
/// fragment is rejected, because secrets are sent to this URL.
fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_http = ["http", "https"]
        .iter()
        .any(|it| scheme.eq_ignore_ascii_case(it));
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let path_fits = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    is_http && is_host(host) && port_fits && path.bytes().all(path_fits)
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.bytes().all(allowed)
}

/// Returns `true` if the host is Inngest's own, with or without a scheme, a user name, a port or a
/// path.
fn is_inngest(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    INNGEST.iter().any(|domain| {
        host.strip_suffix(domain)
            .is_some_and(|sub| sub.is_empty() || sub.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const KEY: (&str, &str) = (SIGNING_KEY, "signkey-test-12345678");

    fn config<const N: usize>(vars: [(&str, &str); N]) -> Result<Config, ConfigError> {
        Config::from_vars(vars)
    }

    /// Returns the variable named by the error, if the configuration cannot be used.
    fn blamed<const N: usize>(vars: [(&str, &str); N]) -> Option<&'static str> {
        config(vars).err().map(|error| error.variable())
    }

    #[test]
    fn dev_mode_is_set_explicitly_and_never_inferred() {
        for (value, dev) in [
            ("1", true),
            ("true", true),
            ("True", true),
            ("TRUE", true),
            (" 1\n", true),
            ("http://localhost:8288", true),
            ("HTTP://localhost:8288", true),
            ("https://dev.example/", true),
            ("localhost:8288", true),
            ("[::1]:8288", true),
            ("[::1]", true),
            ("http://[::1]:8288", true),
            ("notinngest.com:80", true),
            ("inngest.com.example:80", true),
            ("", false),
            (" ", false),
            ("0", false),
            ("false", false),
            ("False", false),
            ("FALSE", false),
        ] {
            assert_eq!(
                config([(DEV, value), KEY]).map(|config| config.is_dev()),
                Ok(dev),
                "{value:?}"
            );
        }
        for value in [
            "yes",
            "on",
            "2",
            "localhost",
            "ftp://localhost:8288",
            "http://",
            "http://user@host",
            "http://host:99999",
            "host:port",
            "http://a b",
            "http://localhost:abc",
            "-:1",
            "signkey-test-12345678",
        ] {
            assert_eq!(blamed([(DEV, value), KEY]), Some(DEV), "{value:?}");
        }
    }

    #[test]
    fn dev_mode_is_decided_before_keys_are_parsed() {
        let config = config([
            (DEV, "1"),
            (SIGNING_KEY, "signkey-test-"),
            (SIGNING_KEY_FALLBACK, "\u{0}"),
        ])
        .unwrap();
        assert!(config.is_dev() && config.keys().is_none());
    }

    #[test]
    fn keys_are_trimmed_and_blank_ones_unset() {
        let config = config([
            (SIGNING_KEY, " signkey-test-12345678\n"),
            (SIGNING_KEY_FALLBACK, " \n"),
        ])
        .unwrap();
        let keys = config.keys().unwrap().snapshot();
        assert_eq!(*keys.current(), KEY.1.parse().unwrap());
        assert_eq!(keys.fallback(), None);
    }

    #[test]
    fn keys_that_cannot_be_used_are_errors_that_name_the_variable() {
        assert_eq!(config([]).unwrap_err(), ConfigError::NoKey);
        assert_eq!(
            config([(SIGNING_KEY, " ")]).unwrap_err(),
            ConfigError::NoKey
        );
        assert_eq!(
            config([(SIGNING_KEY_FALLBACK, "ab")]).unwrap_err(),
            ConfigError::FallbackAlone
        );
        assert_eq!(blamed([(SIGNING_KEY, "signkey-test-")]), Some(SIGNING_KEY));
        assert_eq!(
            blamed([KEY, (SIGNING_KEY_FALLBACK, "signkey-test-")]),
            Some(SIGNING_KEY_FALLBACK)
        );
    }

    #[test]
    fn a_fallback_key_equal_to_the_current_key_is_dropped() {
        let config = config([KEY, (SIGNING_KEY_FALLBACK, KEY.1)]).unwrap();
        assert_eq!(config.keys().unwrap().snapshot().fallback(), None);
    }

    #[test]
    fn an_error_never_shows_the_value() {
        let error = config([(DEV, "signkey-prod-5ec2e7")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("5ec2e7"));
    }

    #[test]
    fn insecure_unsigned_sync_is_off_unless_turned_on() {
        for (value, on) in [
            ("1", true),
            ("true", true),
            ("True", true),
            ("0", false),
            ("false", false),
            ("FALSE", false),
            ("", false),
        ] {
            let config = config([KEY, (UNAUTHED_SYNC, value)]).unwrap();
            assert_eq!(config.insecure_unsigned_sync(), on, "{value:?}");
        }
        assert!(!config([KEY]).unwrap().insecure_unsigned_sync());
        assert_eq!(blamed([KEY, (UNAUTHED_SYNC, "yes")]), Some(UNAUTHED_SYNC));
    }

    #[test]
    fn the_first_variable_that_is_set_names_the_api() {
        let base = |vars: &[(&'static str, &'static str)]| {
            let config = Config::from_vars(vars.iter().copied().chain([KEY])).unwrap();
            config.api_base().map(str::to_owned)
        };
        for (vars, expected) in [
            (&[][..], CLOUD_API),
            (&[(DEV, "1")], DEV_API),
            (&[(DEV, "https://dev.example/")], "https://dev.example"),
            (&[(DEV, "localhost:9999")], "http://localhost:9999"),
            (&[(API[1], "http://b.example:81/")], "http://b.example:81"),
            (
                &[(API[0], "http://a.example/x"), (API[1], "http://b.example")],
                "http://a.example/x",
            ),
            (
                &[
                    (API[0], " "),
                    (API[1], "http://b.example"),
                    (DEV, "http://c.example"),
                ],
                "http://b.example",
            ),
        ] {
            assert_eq!(base(vars).as_deref(), Ok(expected), "{vars:?}");
        }
        for url in [
            "api.inngest.com",
            "https://user@api.inngest.com",
            "https://a/?b",
            "file:///etc",
            "https://[x]",
        ] {
            assert_eq!(
                base(&[(API[0], url)]).unwrap_err().variable(),
                API[0],
                "{url}"
            );
        }
    }

    #[test]
    fn the_environment_is_named_by_the_first_variable_that_is_set() {
        for (at, variable) in ENVIRONMENT.into_iter().enumerate() {
            let later = ENVIRONMENT[at + 1..]
                .iter()
                .map(|&variable| (variable, "later"));
            let config = Config::from_vars(later.chain([KEY, (variable, " this ")])).unwrap();
            assert_eq!(config.environment(), Ok(Some("this")), "{variable}");
        }
        assert_eq!(config([KEY]).unwrap().environment(), Ok(None));
    }

    #[test]
    fn an_invalid_value_that_verification_does_not_need_is_an_error_only_where_it_is_used() {
        let error = |(variable, value): (&'static str, &str)| {
            let config = config([KEY, (variable, value)]).unwrap();
            assert!(config.keys().is_some(), "{variable}");
            let used = [config.api_base().err(), config.environment().err()];
            used.into_iter()
                .flatten()
                .map(|error| error.variable())
                .collect::<Vec<_>>()
        };
        for variable in API {
            assert_eq!(error((variable, "no url")), [variable]);
        }
        for variable in ENVIRONMENT {
            for value in ["a\u{7}b", "two\nlines"] {
                assert_eq!(error((variable, value)), [variable]);
            }
        }
    }

    #[test]
    fn a_host_of_inngest_is_rejected_as_a_dev_server() {
        for value in [
            "https://api.inngest.com",
            "http://api.inngest.com:80/x",
            "HTTPS://API.Inngest.COM",
            "wss://api.inngest.com",
            "https://api.inngest.com.",
            "https://api.inngest.com.:443/",
            "https://user:word@api.inngest.com",
            "https://inngest.com?x",
            "https://inngest.com#x",
            "api.inngest.com",
            "api.inngest.com:443",
            "api.inngest.com./v1",
            "app.inngest.com",
            "inngest.com",
            "inn.gs",
            "https://inn.gs/e/key",
        ] {
            assert_eq!(
                config([(DEV, value), KEY]).unwrap_err(),
                ConfigError::DevServerIsInngest,
                "{value}"
            );
        }
    }

    /// A byte-order mark at the beginning of an env file becomes part of the first variable's name.
    #[test]
    fn a_byte_order_mark_before_a_name_is_an_error_where_the_variable_is_used() {
        let marked = |variable| format!("{BYTE_ORDER_MARK}{variable}");
        let error = |variable| ConfigError::ByteOrderMark { variable };
        let needed = [
            SIGNING_KEY,
            SIGNING_KEY_FALLBACK,
            SIGNING_KEY_FILE,
            SIGNING_KEY_FALLBACK_FILE,
        ];
        for variable in needed.into_iter().chain([DEV, UNAUTHED_SYNC]) {
            let config =
                Config::from_vars([(marked(variable), "x"), (SIGNING_KEY.to_owned(), KEY.1)]);
            match variable {
                // It is set under its proper name too.
                SIGNING_KEY => assert!(config.is_ok()),
                _ => assert_eq!(config.unwrap_err(), error(variable)),
            }
        }
        let config = Config::from_vars([(marked(SIGNING_KEY), KEY.1)]);
        assert_eq!(config.unwrap_err(), error(SIGNING_KEY));
        for variable in API.into_iter().chain(ENVIRONMENT) {
            let vars = [(marked(variable), "x"), (SIGNING_KEY.to_owned(), KEY.1)];
            let config = Config::from_vars(vars).unwrap();
            let used = [config.api_base().err(), config.environment().err()];
            assert!(used.contains(&Some(error(variable))), "{variable}");
        }
        let all: Vec<_> = names().collect();
        assert!(all.contains(&marked(SIGNING_KEY)) && all.contains(&marked("BRANCH")));
    }

    #[test]
    fn each_platforms_branch_variable_is_read() {
        for (platform, vars, branch) in [
            (
                "Vercel",
                &[
                    ("VERCEL", "1"),
                    ("VERCEL_ENV", "preview"),
                    ("VERCEL_GIT_COMMIT_REF", "feat/a"),
                ][..],
                "feat/a",
            ),
            (
                "Netlify",
                &[
                    ("NETLIFY", "true"),
                    ("CONTEXT", "deploy-preview"),
                    ("BRANCH", "feat-b"),
                    ("HEAD", "feat-b"),
                ],
                "feat-b",
            ),
            (
                "Cloudflare Pages",
                &[("CF_PAGES", "1"), ("CF_PAGES_BRANCH", "feat-c")],
                "feat-c",
            ),
            (
                "Render",
                &[("RENDER", "true"), ("RENDER_GIT_BRANCH", "feat-d")],
                "feat-d",
            ),
            (
                "Railway",
                &[
                    ("RAILWAY_ENVIRONMENT_NAME", "pr"),
                    ("RAILWAY_GIT_BRANCH", "feat-e"),
                ],
                "feat-e",
            ),
        ] {
            let named = |more: &[(&'static str, &'static str)]| {
                let vars = vars.iter().chain(more).copied().chain([KEY]);
                let config = Config::from_vars(vars).unwrap();
                config.environment().unwrap().map(str::to_owned)
            };
            assert_eq!(named(&[]).as_deref(), Some(branch), "{platform}");
            assert_eq!(
                named(&[("INNGEST_ENV", "own")]).as_deref(),
                Some("own"),
                "{platform}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_unicode_is_an_error() {
        use std::os::unix::ffi::OsStringExt;
        let value = OsString::from_vec(vec![0xff]);
        for variable in [SIGNING_KEY, SIGNING_KEY_FALLBACK, DEV, UNAUTHED_SYNC] {
            let vars = [(SIGNING_KEY, KEY.1.into()), (variable, value.clone())];
            let error = Config::from_vars(vars).unwrap_err();
            assert_eq!(error, ConfigError::NotUnicode { variable });
        }
    }
}
