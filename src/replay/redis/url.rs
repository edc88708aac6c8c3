//! What is wrong with a Redis URL. The message does not quote the URL, which may contain a
//! password.

use redis::{ConnectionInfo, IntoConnectionInfo};
use thiserror::Error;

/// An error returned when a Redis URL cannot be used. The message says what is wrong without
/// quoting the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("invalid Redis URL: {0}")]
pub struct RedisUrlError(&'static str);

/// Parses a URL. Trims white space around it, because secrets often have a trailing newline.
pub(super) fn parse(url: &str) -> Result<ConnectionInfo, RedisUrlError> {
    let url = url.trim();
    // Checked before parsing, because many wrong URLs parse: `redis://user:12#34@host` has the host
    // `user`.
    check(url).map_err(RedisUrlError)?;
    url.into_connection_info().map_err(|_| {
        RedisUrlError("expected redis://[user:password@]host[:port][/database], all in UTF-8")
    })
}

fn check(url: &str) -> Result<(), &'static str> {
    const QUOTES: [char; 3] = ['"', '\'', '`'];
    if url.is_empty() {
        return Err("it is empty");
    }
    if url.starts_with(QUOTES) || url.ends_with(QUOTES) {
        return Err("remove the quotes around it");
    }
    // Parsers silently remove some of these characters, even in the middle of a password.
    if url.chars().any(is_blank) {
        return Err("white space or an invisible character in it: remove it, or write %20");
    }
    let (scheme, rest) = url
        .split_once("://")
        .ok_or("no scheme: begin with redis://")?;
    match &*scheme.to_ascii_lowercase() {
        "redis" | "valkey" => {}
        "rediss" | "valkeys" if cfg!(feature = "redis-tls") => {}
        "rediss" | "valkeys" => return Err("TLS (rediss://) needs the feature `redis-tls`"),
        "unix" | "redis+unix" | "valkey+unix" => return Ok(()),
        _ => return Err("unknown scheme: expected redis:// or rediss://"),
    }
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority);
    if path.contains('@') {
        return Err(match &path[..1] {
            "/" => "`/` in the user or password: write %2F",
            "?" => "`?` in the user or password: write %3F",
            _ => "`#` in the user or password: write %23",
        });
    }
    let (login, host) = authority.rsplit_once('@').unwrap_or((":", authority));
    check_login(login)?;
    check_host(host)?;
    check_path(path)
}

fn is_blank(char: char) -> bool {
    char.is_whitespace()
        || char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

fn check_login(login: &str) -> Result<(), &'static str> {
    if !login.contains(':') {
        return Err("a user without a password: for a password alone write redis://:PASSWORD@host");
    }
    let escaped = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if login.split('%').skip(1).all(escaped) {
        Ok(())
    } else {
        Err("`%` in the user or password without two hex digits behind it: write %25")
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(bracketed) => {
            let (name, port) = bracketed
                .split_once(']')
                .ok_or("no `]` behind the IPv6 address")?;
            let port = (!port.is_empty()).then(|| port.strip_prefix(':').unwrap_or_default());
            (name, port)
        }
        None => match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    if host.contains(',') {
        return Err("several hosts: this store is for one primary");
    }
    if name.is_empty() {
        return Err("no host");
    }
    if name.contains(':') && !host.starts_with('[') {
        return Err("a `:` in the host: write an IPv6 address in brackets");
    }
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if port.is_none_or(is_port) {
        Ok(())
    } else {
        Err("invalid port: expected 1 to 65535")
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (database, rest) = path.split_at(end);
    let database = database.strip_prefix('/').unwrap_or(database);
    if !database.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("invalid database: expected a number, as in redis://host:6379/0");
    }
    // Options such as `?ssl=true` would be ignored silently.
    if rest.is_empty() {
        Ok(())
    } else {
        Err(
            "options after the host or database are not supported: remove them (for TLS, write \
            rediss://)",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_is_wrong_without_quoting_the_url() {
        let tls = if cfg!(feature = "redis-tls") {
            ""
        } else {
            "feature `redis-tls`"
        };
        let port = "invalid port";
        for (url, says) in [
            ("", "empty"),
            (" \n", "empty"),
            ("\"redis://:s3cret@host\"", "quotes"),
            ("'redis://:s3cret@host'", "quotes"),
            ("redis://:s3cret@host'", "quotes"),
            ("redis://:s3 cret@host", "white space"),
            ("redis://:s3\ncret@host", "white space"),
            ("redis://:s3\u{200b}cret@host", "invisible"),
            ("\u{feff}redis://:s3cret@host", "invisible"),
            ("s3cret@host:6379", "no scheme"),
            ("host:6379", "no scheme"),
            ("${S3CRET}", "no scheme"),
            ("http://:s3cret@host", "unknown scheme"),
            ("redis-cluster://:s3cret@host", "unknown scheme"),
            ("REDIS_URL=redis://:s3cret@host", "unknown scheme"),
            ("rediss://:s3cret@host", tls),
            ("valkeys://:s3cret@host", tls),
            ("redis://:s3#cret@host", "%23"),
            ("redis://user:33#s3cret@host", "%23"),
            ("redis://:s3/cret@host", "%2F"),
            ("redis://user:33/s3cret@host:6379/0", "%2F"),
            ("redis://:s3?cret@host", "%3F"),
            ("redis://:s3@/cret@host", "%2F"),
            ("redis://:s3%cret@host", "%25"),
            ("redis://:s3cret%@host", "%25"),
            ("redis://us%er:s3cret@host", "%25"),
            ("redis://:s3%FFcret@host", "UTF-8"),
            ("redis://s3cret@host", "redis://:PASSWORD@host"),
            ("redis://", "no host"),
            ("redis://:s3cret@", "no host"),
            ("redis://:s3cret@:6379", "no host"),
            ("redis:///0", "no host"),
            ("redis://a:1,b:2", "several hosts"),
            ("redis://::1", "brackets"),
            ("redis://[::1", "`]`"),
            ("redis://:s3cret@host:s3", port),
            ("redis://host:0", port),
            ("redis://host:65536", port),
            ("redis://host:+1", port),
            ("redis://host:", port),
            ("redis://[::1]6379", port),
            ("redis://:s3cret@host/s3cret", "invalid database"),
            ("redis://host/-1", "invalid database"),
            ("redis://host/0/1", "invalid database"),
            ("redis://host?ssl=true", "not supported"),
            ("redis://host/0?password=s3cret", "not supported"),
            ("redis://host?protocol=s3", "not supported"),
            ("redis://host?protocol=resp3&ssl=true", "not supported"),
            ("redis://host?protocol=resp3#insecure", "not supported"),
            ("redis://host?protocol=resp3", "not supported"),
            ("redis://host/0?", "not supported"),
            ("redis://host/0#s3cret", "not supported"),
            ("redis://0.0.0.0", "expected redis://"),
        ] {
            if says.is_empty() {
                assert!(parse(url).is_ok(), "{url}");
                continue;
            }
            let error = parse(url).unwrap_err().to_string();
            assert!(error.starts_with("invalid Redis URL: "), "{error}");
            assert!(error.contains(says), "{url:?}: {error}");
            for secret in ["s3", "cret", "S3CRET"] {
                assert!(!error.contains(secret), "{url:?}: {error}");
            }
        }
    }

    #[test]
    fn valid_urls_are_parsed_as_intended() {
        for (url, user, password, database) in [
            ("redis://127.0.0.1", None, None, 0),
            (" redis://localhost:6379/\n", None, None, 0),
            ("REDIS://host:1/15", None, None, 15),
            ("redis://[::1]:6379/2", None, None, 2),
            ("redis://[::1]", None, None, 0),
            ("redis://:pass@host", None, Some("pass"), 0),
            (
                "redis://user:pass@host:6379/3",
                Some("user"),
                Some("pass"),
                3,
            ),
            // The last `@` ends the password.
            ("redis://user:p@ss@host", Some("user"), Some("p@ss"), 0),
            ("redis://:p:a:ss@host", None, Some("p:a:ss"), 0),
            (
                "redis://u%40:%23%2F%3F%25%20@host",
                Some("u@"),
                Some("#/?% "),
                0,
            ),
            ("valkey://:pass@host", None, Some("pass"), 0),
            (
                "unix:///run/redis.sock?db=4&pass=pass",
                None,
                Some("pass"),
                4,
            ),
        ] {
            let server = parse(url).unwrap();
            let settings = server.redis_settings();
            let found = (settings.username(), settings.password(), settings.db());
            assert_eq!(found, (user, password, database), "{url}");
        }
    }
}
