//! What a command found: for people, a line each; for programs, one JSON object.

use std::fmt::Display;
use std::process::ExitCode;

use serde_json::{Map, Value};

pub(crate) struct Report {
    yes: bool,
    /// What people read in the place of the lines.
    text: Option<String>,
    lines: Map<String, Value>,
}

impl Report {
    pub(crate) fn new(yes: bool) -> Self {
        Self {
            yes,
            text: None,
            lines: Map::new(),
        }
    }

    pub(crate) fn line(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.lines.insert(name.to_owned(), value);
        }
        self
    }

    pub(crate) fn text(mut self, text: String) -> Self {
        self.text = Some(text);
        self
    }

    pub(crate) fn print(self, json: bool) -> ExitCode {
        println!("{}", self.show(json));
        if self.yes {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        }
    }

    /// Prints why there is nothing to report.
    pub(crate) fn fail(self, json: bool) -> ExitCode {
        if json {
            println!("{}", self.show(true));
        } else {
            eprintln!("{}", self.show(false));
        }
        ExitCode::from(2)
    }

    fn show(&self, json: bool) -> String {
        if json {
            return Value::Object(self.lines.clone()).to_string();
        }
        let line = |(name, value): (&String, &Value)| match value {
            Value::String(text) => format!("{name}: {text}"),
            value => format!("{name}: {value}"),
        };
        let lines = || self.lines.iter().map(line).collect::<Vec<_>>().join("\n");
        self.text.clone().unwrap_or_else(lines)
    }
}

/// Why a command has nothing to report.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}
