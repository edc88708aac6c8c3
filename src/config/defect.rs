//! What is wrong with a text that is not a signing key, in words for the person who set it.

use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::{KeyError, SigningKey, prefix_len};

/// What is wrong with a text that is not a signing key. The message says what to do, and never
/// contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum KeyDefect {
    /// `signkey-<env>-` without anything after it.
    #[error("nothing follows the prefix; copy the whole key")]
    OnlyPrefix,
    /// U+FEFF at the beginning.
    #[error("it begins with a byte-order mark (U+FEFF); save the text as UTF-8 without one")]
    ByteOrderMark,
    /// An invisible character, such as U+200B.
    #[error("it contains an invisible character, such as U+200B; type it or copy it again")]
    Invisible,
    /// `Bearer …`, or a whole `Authorization` header.
    #[error("it is a bearer token or an Authorization header; set the key alone")]
    Bearer,
    /// A whole `NAME=value`.
    #[error("it contains a variable's name; set the value alone, without the name and \"=\"")]
    Assignment,
    /// `${…}`, `$NAME`, `{{…}}`, `<…>`, `%NAME%` and similar.
    #[error("it is a template that was not filled in, such as $NAME; set the key itself")]
    Template,
    /// The address of a secret, such as `op://…` or `arn:aws:…`.
    #[error("it is a reference to a secret that was not resolved; set the key itself")]
    Reference,
    /// `undefined`, `changeme`, `your-key-here` and similar.
    #[error("it is a placeholder, such as \"undefined\" or \"changeme\"; set the key itself")]
    Placeholder,
    /// `***`, or `…` instead of digits.
    #[error("it is masked or shortened, with \"*\" or \"…\"; copy the whole key")]
    Masked,
    /// A JSON document.
    #[error("it is JSON; set the key alone")]
    Json,
    /// Quotation marks of any kind, on one side or both.
    #[error("it contains quotation marks; remove them")]
    Quoted,
    /// `signkey-` more than once.
    #[error("it contains more than one key; set one (INNGEST_SIGNING_KEY_FALLBACK takes another)")]
    Several,
    /// A comment after the key.
    #[error("it contains a comment; remove everything after the key")]
    Comment,
    /// More than one line.
    #[error("it has more than one line; set the key alone, on one line")]
    Lines,
    /// White space within the key.
    #[error("it contains white space; remove it")]
    WhiteSpace,
    /// `\n`, `%0A` and similar, spelled out.
    #[error("it contains an escape that was not decoded, such as \\n or %0A; remove it")]
    Escape,
    /// A file path or a URL.
    #[error("it is a path or a URL; a path belongs in the variable whose name ends in _FILE")]
    Path,
    /// A character outside ASCII.
    #[error("it contains a character outside ASCII, such as a long dash; type it or copy it again")]
    NotAscii,
    /// A base64-encoded key.
    #[error("it is base64; decode it (in Kubernetes, encode `data` once and `stringData` never)")]
    Base64,
    /// A long random text, probably an event key.
    #[error("it looks like an event key or another secret; set the signing key")]
    EventKey,
    /// Begins with `signkey`, but not with `signkey-<env>-`.
    #[error("its prefix is not `signkey-<env>-` in lower case; copy the whole key")]
    Prefix,
    /// An odd number of hex digits: one was lost or added.
    #[error("it has an odd number of hex digits; copy the whole key")]
    OddLength,
    /// Anything else that is not hex.
    #[error("it contains characters other than hex digits after the prefix; copy the whole key")]
    NotHex,
}

impl KeyDefect {
    /// Explains why `text` was rejected with `error`, by the first defect that applies. Defects are
    /// ordered: first what cannot be seen, then what may surround a key, then what was set instead
    /// of a key.
    pub(super) fn of(text: &str, error: KeyError) -> Self {
        if error == KeyError::OnlyPrefix {
            return Self::OnlyPrefix;
        }
        if error == KeyError::OddLength {
            return Self::OddLength;
        }
        let text = text.trim();
        // Quotation marks may surround anything. They are the defect only if there is no other.
        let bare = text.trim_matches(|c| is_quote(c) || c.is_whitespace());
        let lower = Zeroizing::new(bare.to_ascii_lowercase());
        let remainder = &bare[prefix_len(bare)..];
        let rules: [(Rule, Self); 20] = [
            (|it| it.text.starts_with('\u{feff}'), Self::ByteOrderMark),
            (|it| it.text.contains(is_invisible), Self::Invisible),
            (is_bearer, Self::Bearer),
            (is_reference, Self::Reference),
            (is_template, Self::Template),
            (is_json, Self::Json),
            (is_assignment, Self::Assignment),
            (is_path, Self::Path),
            (is_placeholder, Self::Placeholder),
            (is_masked, Self::Masked),
            (|it| it.text.contains(is_quote), Self::Quoted),
            (is_escaped, Self::Escape),
            (|it| it.lower.matches("signkey-").count() > 1, Self::Several),
            (has_comment, Self::Comment),
            (|it| it.text.contains(['\n', '\r']), Self::Lines),
            (|it| it.text.contains(char::is_whitespace), Self::WhiteSpace),
            (|it| !it.text.is_ascii(), Self::NotAscii),
            (|it| it.bare.starts_with("c2lnbmtleS"), Self::Base64),
            (is_event_key, Self::EventKey),
            (
                |it| it.lower.starts_with("signkey") && it.remainder.contains(['-', '_']),
                Self::Prefix,
            ),
        ];
        let look = Look {
            text,
            bare,
            lower: &lower,
            remainder,
        };
        let first = rules.into_iter().find(|(fits, _)| fits(&look));
        first.map_or(Self::NotHex, |(_, defect)| defect)
    }
}

type Rule = fn(&Look<'_>) -> bool;

/// A text in the forms that the rules need. The rules copy none of it, because it may contain a
/// key.
struct Look<'a> {
    text: &'a str,
    /// The text without surrounding quotation marks.
    bare: &'a str,
    /// `bare` in lower case.
    lower: &'a str,
    /// `bare` without its prefix.
    remainder: &'a str,
}

fn is_key(word: &str) -> bool {
    word.parse::<SigningKey>().is_ok()
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '´' | '«' | '»' | '‹' | '›')
        || matches!(
            c,
            '\u{2018}'..='\u{201f}' | '′' | '″' | '「' | '」' | '＂' | '＇'
        )
}

/// Returns `true` for control characters and for what Unicode calls default-ignorable.
fn is_invisible(c: char) -> bool {
    (c.is_control() && !c.is_whitespace())
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

fn is_bearer(it: &Look<'_>) -> bool {
    let after = it.lower.strip_prefix("bearer");
    after.is_some_and(|rest| rest.starts_with([' ', '\t', ':', '=']))
        || it.lower.starts_with("authorization")
}

fn is_reference(it: &Look<'_>) -> bool {
    let scheme = it.lower.split_once("://").map(|(scheme, _)| scheme);
    let is_word = |scheme: &str| {
        scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    scheme.is_some_and(|scheme| is_word(scheme) && !["http", "https", "file"].contains(&scheme))
        || "arn: vault: ref+ secretref: @microsoft.keyvault( enc[ !vault"
            .split(' ')
            .any(|head| it.lower.starts_with(head))
        || (it.lower.starts_with("projects/") && it.lower.contains("/secrets/"))
}

fn is_template(it: &Look<'_>) -> bool {
    let framed = |open: &str, close: &str| {
        let inside = it
            .remainder
            .strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close));
        inside.is_some_and(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-. ".contains(&b))
        })
    };
    ["${", "$(", "{{", "#{", "@{", "<%", "%{"]
        .iter()
        .any(|mark| it.bare.contains(mark))
        || (it.remainder.starts_with('$') && !it.remainder.contains('='))
        || it
            .bare
            .split_once('<')
            .is_some_and(|(_, rest)| rest.contains('>'))
        || [
            ("%", "%"),
            ("{", "}"),
            ("[", "]"),
            ("__", "__"),
            ("@@", "@@"),
            ("@", "@"),
        ]
        .into_iter()
        .any(|(open, close)| framed(open, close))
}

fn is_json(it: &Look<'_>) -> bool {
    it.text.starts_with(['{', '['])
}

/// Returns `true` for `NAME=value` and `NAME: value`, also after `export` and similar.
fn is_assignment(it: &Look<'_>) -> bool {
    let rest = ["export ", "set ", "setx ", "env ", "$env:", "--", "- "]
        .iter()
        .find_map(|head| it.lower.strip_prefix(head))
        .unwrap_or(it.lower)
        .trim_start();
    let len = rest
        .bytes()
        .take_while(|&b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        .count();
    let (name, rest) = rest.split_at(len);
    let value = match rest
        .trim_start_matches([' ', '"', '\''])
        .split_at_checked(1)
    {
        Some(("=", value)) => value.trim_start_matches('='),
        Some((":", value)) if value.starts_with([' ', '"', '\'']) || value.contains("signkey-") => {
            value
        }
        // `--signing-key signkey-…`, `INNGEST_SIGNING_KEY signkey-…`
        _ if name.ends_with("signing-key") || name.ends_with("signing_key") => rest,
        _ => "",
    };
    !name.is_empty() && !name.starts_with("signkey-") && !value.trim().is_empty()
}

fn is_placeholder(it: &Look<'_>) -> bool {
    const WORDS: &str = "undefined null none nil nan na empty unset notset missing unknown default \
        true false yes no on off todo tbd tba fixme dummy sample fake foo bar foobar test testing \
        secret mysecret supersecret password key value string signkey hex objectobject";
    const PARTS: &str = "changeme changethis changeit replace placeholder example redacted \
        signingkey insert keyhere";
    let is_placeholder_text = |text: &str| {
        // Allocated once, so that no copy of a possible key is left in freed memory.
        let mut plain = Zeroizing::new(String::with_capacity(text.len()));
        plain.extend(
            text.chars()
                .filter(char::is_ascii_alphanumeric)
                .map(|c| c.to_ascii_lowercase()),
        );
        WORDS.split(' ').any(|word| *word == **plain)
            || PARTS.split(' ').any(|part| plain.contains(part))
            || plain.starts_with("your")
            || (!plain.is_empty() && plain.bytes().all(|b| b == b'x'))
    };
    // A comment after a key may contain any words.
    let begins_with_a_key = it.bare.split_whitespace().next().is_some_and(is_key);
    !begins_with_a_key && (is_placeholder_text(it.bare) || is_placeholder_text(it.remainder))
}

fn is_masked(it: &Look<'_>) -> bool {
    it.bare.contains(['*', '…', '•', '·', '●', '█'])
        || it.bare.contains("..")
        || {
            let marks = |c: char| c.is_ascii_punctuation();
            !it.remainder.is_empty() && it.remainder.chars().all(marks)
        }
        || it.lower.contains("xxxx")
}

fn is_path(it: &Look<'_>) -> bool {
    let drive = it
        .bare
        .as_bytes()
        .get(1..3)
        .is_some_and(|rest| rest == b":\\" || rest == b":/");
    let begins = [
        "/", "./", "../", "~/", "~\\", "\\\\", ".\\", "..\\", "file:", "http:", "https:",
    ]
    .iter()
    .any(|head| it.lower.starts_with(head));
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
    let long = it.bare.len() >= 40 && it.bare.bytes().all(base64);
    let inside =
        it.bare.len() > 3 && it.bare.contains('/') && !it.lower.starts_with("signkey") && !long;
    let file = [".key", ".txt", ".pem", ".env", ".secret", ".json"]
        .iter()
        .any(|end| it.lower.ends_with(end));
    begins || drive || (inside && !it.bare.contains(char::is_whitespace)) || file
}

fn is_escaped(it: &Look<'_>) -> bool {
    let percent = it.bare.split('%').skip(1).any(|rest| {
        rest.as_bytes()
            .get(..2)
            .is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    });
    it.bare.contains('\\') || percent
}

fn has_comment(it: &Look<'_>) -> bool {
    it.text.contains('#')
        || [" //", "\t//", " --", " ;", " <!--"]
            .iter()
            .any(|mark| it.text.contains(mark))
}

/// Returns `true` for a long text with far more letters than a mistyped key has.
fn is_event_key(it: &Look<'_>) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_+/=".contains(&b);
    let foreign = it.bare.bytes().filter(|b| !b.is_ascii_hexdigit()).count();
    !it.lower.starts_with("signkey")
        && it.bare.len() >= 20
        && it.bare.bytes().all(allowed)
        && foreign * 4 >= it.bare.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError};

    const KEY: &str =
        "signkey-prod-5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";

    /// `§` stands for a key.
    #[rustfmt::skip]
    const NO_KEYS: [(KeyDefect, &[&str]); 23] = [
        (KeyDefect::OnlyPrefix, &["signkey-prod-", " signkey-my_env- \n"]),
        (KeyDefect::ByteOrderMark, &["\u{feff}§", "\u{feff}", " \u{feff}undefined"]),
        (KeyDefect::Invisible, &[
            "§\u{200b}", "\u{200b}", "signkey-\u{200d}prod-12", "12\u{ad}34", "\u{2060}§",
            "§\u{202c}", "§\u{0}", "12\u{1b}[0m34", "§\u{feff}", "§\u{e0041}", "\u{7f}§",
        ]),
        (KeyDefect::Quoted, &[
            "'§'", "\"§\"", "`§`", "“§”", "‘§’", "«§»", "„§“", "'§", "§'", "§”", "\"\"", "''",
            "signkey-prod-\"1234\"", "' § '", "′§′", "＂§＂",
        ]),
        (KeyDefect::Lines, &["§\nINNGEST_DEV", "12\n34", "12\r\n34", "§\n\nabc"]),
        (KeyDefect::WhiteSpace, &[
            "12 34", "§ abcd", "signkey-prod- 1234", "12\t34", "12\u{a0}34", "12\u{2003}34",
        ]),
        (KeyDefect::Comment, &[
            "§ # comment", "§ #comment", "§#comment", "§ // old", "§ ; old", "§ -- old", "# §",
            "§ # see the example",
        ]),
        (KeyDefect::Template, &[
            "${INNGEST_SIGNING_KEY}", "$INNGEST_SIGNING_KEY", "$(cat /run/secrets/key)",
            "{{ .Values.key }}", "{{key}}", "<your key>", "<hex>", "signkey-prod-<hex>",
            "signkey-prod-${KEY}", "%INNGEST_SIGNING_KEY%", "#{Key}#", "{KEY}", "__KEY__",
            "@@KEY@@", "@KEY@", "[KEY]", "<%= key %>", "\"${KEY}\"",
            "{{resolve:secretsmanager:key}}", "%{KEY}",
        ]),
        (KeyDefect::Reference, &[
            "op://vault/inngest/key", "arn:aws:secretsmanager:eu:1:secret:key",
            "vault:secret/data/key#k", "ref+vault://secret/key",
            "projects/p/secrets/key/versions/1", "gcp-sm://key", "awssm://key", "secretref:key",
            "@Microsoft.KeyVault(SecretUri=https://x)", "ENC[AES256_GCM,data:x]",
        ]),
        (KeyDefect::Placeholder, &[
            "undefined", "null", "None", "nil", "NaN", "changeme", "CHANGE_ME", "change-me",
            "todo", "TODO", "tbd", "xxx", "XXXXXXXX", "your-key-here", "your_signing_key",
            "YOUR KEY HERE", "insert-key-here", "replace-me", "placeholder", "example", "redacted",
            "true", "false", "test", "secret", "n/a", "object Object", "signkey-prod-xxx",
            "signkey-test-your-key", "signkey-prod-changeme", "signkey", "'undefined'",
            "INNGEST_SIGNING_KEY", "unset", "not-set", "paste-your-key-here", "change-it",
        ]),
        (KeyDefect::Masked, &[
            "***", "••••", "…", "...", "---", "???", "signkey-prod-***", "signkey-prod-0123…",
            "signkey-prod-12...", "signkey-prod-****5ec2", "§…", "signkey-prod-xxxxxxxx12",
        ]),
        (KeyDefect::EventKey, &[
            "Jk3-vX9_qLmZt0RwYpNsUoGhT7KfBcD2EiA5rWxVyQzMlPnOjHgSuRtKwLqZvXyN",
            "NFAoAIyYLRjLhTnGTOGXRHgEbwQfqlzPmvZ4s7kGq0IkRXw", "sk_live_qwrtzpsghjklmnvqx",
        ]),
        (KeyDefect::Path, &[
            "/run/secrets/x", "./key", "../key", "~/key", "C:\\run\\key", "C:/run/key",
            "\\\\host\\key", "run/secrets/x", "file:///run/key",
            "https://app.inngest.com/env/production", "inngest.key", "key.txt",
        ]),
        (KeyDefect::Bearer, &[
            "Bearer §", "bearer §", "BEARER 1234", "Bearer: §", "Authorization: Bearer §",
            "authorization: §",
        ]),
        (KeyDefect::Assignment, &[
            "INNGEST_SIGNING_KEY=§", "INNGEST_SIGNING_KEY = §", "INNGEST_SIGNING_KEY: §",
            "inngest_signing_key=§", "SIGNING_KEY=1234", "KEY=§", "export INNGEST_SIGNING_KEY=§",
            "set INNGEST_SIGNING_KEY=§", "$env:INNGEST_SIGNING_KEY=§", "INNGEST_SIGNING_KEY=\"§\"",
            "\"INNGEST_SIGNING_KEY=§\"", "--signing-key=§", "--signing-key §", "signing-key:§",
            "INNGEST_SIGNING_KEY_FALLBACK=§", "INNGEST_SIGNING_KEY=§\nINNGEST_DEV=0",
        ]),
        (KeyDefect::Json, &["{\"key\":\"§\"}", "[\"§\"]", "{"]),
        (KeyDefect::Several, &[
            "§,§", "§§", "§;signkey-prod-12", "signkey-test-signkey-prod-1234", "§ §", "§\n§",
        ]),
        (KeyDefect::Escape, &["§\\n", "1234\\r\\n", "§%0A", "1234%20", "signkey-prod-\\u0031"]),
        (KeyDefect::NotAscii, &[
            "signkey–prod–12345678", "1234а678", "signkey-prod-１２３４", "signkey-é-1234", "ключ",
        ]),
        (KeyDefect::Base64, &["c2lnbmtleS1wcm9kLTEyMzQ1Njc4", "c2lnbmtleS1wcm9kLTEyMzQ1Ng=="]),
        (KeyDefect::Prefix, &[
            "SIGNKEY-prod-1234", "Signkey-prod-1234", "signkey_prod_1234", "signkey--1234",
            "signkey-my-env-1234", "signkey-12345678",
        ]),
        (KeyDefect::OddLength, &["signkey-prod-123", "0", "abc"]),
        (KeyDefect::NotHex, &[
            "signkey-prod-123g", "123g", "signkey-prod-1234,",
            "550e8400-e29b-41d4-a716-446655440000", "1234;",
        ]),
    ];

    #[test]
    fn every_text_that_is_not_a_key_is_explained_and_never_shown() {
        let mut wrong = Vec::new();
        for (defect, texts) in NO_KEYS {
            for text in texts {
                let text = &text.replace('§', KEY);
                for variable in ["INNGEST_SIGNING_KEY", "INNGEST_SIGNING_KEY_FALLBACK"] {
                    let vars = [("INNGEST_SIGNING_KEY", KEY), (variable, text)];
                    let error = Config::from_vars(vars).expect_err(text);
                    let shown = format!("{error} {error:?}");
                    assert!(
                        shown.contains(variable) && !shown.contains("5ec2"),
                        "{shown}"
                    );
                    match error {
                        ConfigError::InvalidKey { reason, .. } if reason == defect => {}
                        other => wrong.push((text.clone(), other, defect)),
                    }
                }
            }
        }
        assert_eq!(wrong, []);
    }

    #[test]
    fn legal_keys_have_no_defect() {
        let short = ["1234", "ABCD", "dead", " 1234\n", "\t1234\r\n"];
        for key in short
            .into_iter()
            .chain(["signkey-prod-1234", "signkey-my_env-ABcd", KEY])
        {
            assert!(
                Config::from_vars([("INNGEST_SIGNING_KEY", key)]).is_ok(),
                "{key:?}"
            );
        }
    }
}
