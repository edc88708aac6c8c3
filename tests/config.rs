//! What a person reads who sets the variables wrongly: the whole text of each error.

mod variants;

use std::collections::BTreeSet;

use inngest_auth::{Config, ConfigError};
use variants::variants;

const KEY: &str = "INNGEST_SIGNING_KEY";
const FALLBACK: &str = "INNGEST_SIGNING_KEY_FALLBACK";
const KEY_FILE: &str = "INNGEST_SIGNING_KEY_FILE";
const FALLBACK_FILE: &str = "INNGEST_SIGNING_KEY_FALLBACK_FILE";
const DEV: &str = "INNGEST_DEV";
const SYNC: &str = "INNGEST_ENABLE_UNAUTHED_SYNC";
const A: &str = "signkey-prod-5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";

type Vars = &'static [(&'static str, &'static str)];

/// Variables that are not those of one key, with the error.
#[rustfmt::skip]
const VARIABLES: [(Vars, &str); 26] = [
    (&[], NO_KEY),
    (&[(KEY, " \n")], NO_KEY),
    (&[(KEY_FILE, "")], NO_KEY),
    (&[(DEV, "0")], NO_KEY),
    (&[(FALLBACK, A)], ALONE),
    (&[(KEY, ""), (FALLBACK, A)], ALONE),
    (&[(KEY, A), (KEY_FILE, "/run/secrets/key")],
        "INNGEST_SIGNING_KEY and INNGEST_SIGNING_KEY_FILE are both set: unset one"),
    (&[(KEY, A), (FALLBACK, A), (FALLBACK_FILE, "/run/secrets/key")],
        "INNGEST_SIGNING_KEY_FALLBACK and INNGEST_SIGNING_KEY_FALLBACK_FILE are both set: unset \
            one"),
    (&[(KEY_FILE, "/no/such/file")],
        "cannot read the key file named by INNGEST_SIGNING_KEY_FILE: no such file; check the path, \
            and that the secret is mounted"),
    (&[(KEY, A), (FALLBACK_FILE, "/no/such/file")],
        "cannot read the key file named by INNGEST_SIGNING_KEY_FALLBACK_FILE: no such file; check \
            the path, and that the secret is mounted"),
    (&[(KEY_FILE, A)],
        "cannot read the key file named by INNGEST_SIGNING_KEY_FILE: the variable holds a key, not \
            a path; set the variable without _FILE"),
    (&[("\u{feff}INNGEST_SIGNING_KEY", A)],
        "the name of INNGEST_SIGNING_KEY begins with a byte-order mark (U+FEFF): save the file \
            that sets it as UTF-8 without one"),
    (&[("\u{feff}INNGEST_DEV", "1")],
        "the name of INNGEST_DEV begins with a byte-order mark (U+FEFF): save the file that sets \
            it as UTF-8 without one"),
    (&[(KEY, A), ("\u{feff}INNGEST_SIGNING_KEY_FALLBACK_FILE", "/run/secrets/key")],
        "the name of INNGEST_SIGNING_KEY_FALLBACK_FILE begins with a byte-order mark (U+FEFF): \
            save the file that sets it as UTF-8 without one"),
    (&[(DEV, "yes")], NOT_DEV),
    (&[(DEV, "localhost")], NOT_DEV),
    (&[(DEV, "http://user@localhost:8288")], NOT_DEV),
    (&[(DEV, A)], NOT_DEV),
    (&[(DEV, "https://api.inngest.com")], INNGEST),
    (&[(DEV, "inn.gs:443")], INNGEST),
    (&[(KEY, A), (SYNC, "yes")],
        "invalid value for INNGEST_ENABLE_UNAUTHED_SYNC: expected \"1\", \"true\", \"0\" or \
            \"false\""),
    // Not needed to verify requests: an error only where it is used.
    (&[(KEY, A), ("INNGEST_API_BASE_URL", "api.inngest.com")],
        "invalid value for INNGEST_API_BASE_URL: expected a URL, such as https://api.inngest.com"),
    (&[(KEY, A), ("INNGEST_BASE_URL", "https://user:password@host")],
        "invalid value for INNGEST_BASE_URL: expected a URL, such as https://api.inngest.com"),
    (&[(KEY, A), ("INNGEST_ENV", "one\ntwo")],
        "invalid value for INNGEST_ENV: expected the branch environment's name, in one line"),
    (&[(KEY, A), ("BRANCH", "one\u{7f}two")],
        "invalid value for BRANCH: expected the branch environment's name, in one line"),
    (&[(KEY, A), ("\u{feff}VERCEL_GIT_COMMIT_REF", "branch")],
        "the name of VERCEL_GIT_COMMIT_REF begins with a byte-order mark (U+FEFF): save the file \
            that sets it as UTF-8 without one"),
];
const NO_KEY: &str = "INNGEST_SIGNING_KEY is not set or blank: set it to your environment's \
    signing key, or set INNGEST_DEV=1 to develop without one";
const ALONE: &str =
    "a fallback key is set but INNGEST_SIGNING_KEY is not: set INNGEST_SIGNING_KEY to it";
const NOT_DEV: &str =
    r#"invalid value for INNGEST_DEV: expected "1", "true", "0", "false" or a URL"#;
const INNGEST: &str = "invalid value for INNGEST_DEV: the host is Inngest's own, and dev mode \
    would turn verification off; unset INNGEST_DEV (the API's address belongs in \
    INNGEST_API_BASE_URL)";

/// Texts that are not a key, with the defect. `§` stands for a key.
#[rustfmt::skip]
const KEYS: [(&str, &str); 23] = [
    ("signkey-prod-", "nothing follows the prefix; copy the whole key"),
    ("\u{feff}§", "it begins with a byte-order mark (U+FEFF); save the text as UTF-8 without one"),
    ("§\u{200b}", "it contains an invisible character, such as U+200B; type it or copy it again"),
    ("Bearer §", "it is a bearer token or an Authorization header; set the key alone"),
    ("INNGEST_SIGNING_KEY=§", "it contains a variable's name; set the value alone, without the \
        name and \"=\""),
    ("${INNGEST_SIGNING_KEY}", "it is a template that was not filled in, such as $NAME; set the \
        key itself"),
    ("op://vault/inngest/key", "it is a reference to a secret that was not resolved; set the key \
        itself"),
    ("undefined", "it is a placeholder, such as \"undefined\" or \"changeme\"; set the key itself"),
    ("signkey-prod-***", "it is masked or shortened, with \"*\" or \"…\"; copy the whole key"),
    ("{\"key\":\"§\"}", "it is JSON; set the key alone"),
    ("'§'", "it contains quotation marks; remove them"),
    ("§,§", "it contains more than one key; set one (INNGEST_SIGNING_KEY_FALLBACK takes another)"),
    ("§ # old", "it contains a comment; remove everything after the key"),
    ("12\n34", "it has more than one line; set the key alone, on one line"),
    ("12 34", "it contains white space; remove it"),
    ("§\\n", "it contains an escape that was not decoded, such as \\n or %0A; remove it"),
    ("/run/secrets/x", "it is a path or a URL; a path belongs in the variable whose name ends in \
        _FILE"),
    ("signkey–prod–12345678", "it contains a character outside ASCII, such as a long dash; type it \
        or copy it again"),
    ("c2lnbmtleS1wcm9kLTEyMzQ1Njc4", "it is base64; decode it (in Kubernetes, encode `data` once \
        and `stringData` never)"),
    ("sk_live_qwrtzpsghjklmnvqx", "it looks like an event key or another secret; set the signing \
        key"),
    ("SIGNKEY-prod-1234", "its prefix is not `signkey-<env>-` in lower case; copy the whole key"),
    ("signkey-prod-123", "it has an odd number of hex digits; copy the whole key"),
    ("signkey-prod-123g", "it contains characters other than hex digits after the prefix; copy the \
        whole key"),
];

/// Returns the first error of these variables.
fn error(vars: &[(&str, &str)]) -> ConfigError {
    let config = Config::from_vars(vars.iter().map(|&(name, value)| (name, value)));
    let used = config.and_then(|config| {
        config.api_base()?;
        config.environment()?;
        config.reload()
    });
    used.expect_err("an error")
}

#[test]
fn each_error_names_the_variable_and_says_what_to_do() {
    let mut seen = BTreeSet::new();
    let mut said = |error: ConfigError, text: &str| {
        assert_eq!(error.to_string(), text);
        assert!(text.contains(error.variable()), "{text}");
        assert!(!format!("{error:?} {error}").contains("5ec2"), "{error:?}");
        let debug = format!("{error:?}");
        seen.extend(
            debug
                .split(|c: char| !c.is_ascii_alphanumeric())
                .map(str::to_owned),
        );
    };
    for (vars, text) in VARIABLES {
        said(error(vars), text);
    }
    for (value, defect) in KEYS {
        let value = &value.replace('§', A);
        for variable in [KEY, FALLBACK] {
            let text = format!("invalid signing key in {variable}: {defect}");
            said(error(&[(KEY, A), (variable, value)]), &text);
        }
    }
    said(
        error(&[(KEY, A)]),
        "no signing key is read from a file: set INNGEST_SIGNING_KEY_FILE to be able to reload \
            keys",
    );
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        let binary = std::ffi::OsString::from_vec(vec![b'5', 0xff]);
        for variable in [KEY, FALLBACK_FILE, DEV, SYNC] {
            let text = format!("{variable} is not Unicode text: set it again");
            said(Config::from_vars([(variable, &binary)]).unwrap_err(), &text);
        }
        for (source, name) in [
            (include_str!("../src/config/error.rs"), "ConfigError"),
            (include_str!("../src/config/defect.rs"), "KeyDefect"),
        ] {
            for variant in variants(source, name) {
                assert!(seen.contains(&variant), "no row has {name}::{variant}");
            }
        }
    }
}
