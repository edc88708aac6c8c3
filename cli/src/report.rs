//! What a command found: for people, a line each; for programs, one JSON object.

use std::fmt::Display;
use std::process::ExitCode;

use serde_json::{Map, Value};

pub(crate) struct Report {
    yes: bool,
    /// What people read in the place of the lines.
    text: Option<String>,
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    value: Value,
    /// What it means, for people.
    meaning: Option<&'static str>,
}

impl Report {
    pub(crate) fn new(yes: bool) -> Self {
        Self {
            yes,
            text: None,
            lines: Vec::new(),
        }
    }

    /// Adds a line, unless the value is null.
    pub(crate) fn line(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.lines.push(Line {
                name,
                value,
                meaning: None,
            });
        }
        self
    }

    /// Tells people what the last line means.
    pub(crate) fn meaning(mut self, meaning: &'static str) -> Self {
        if let Some(line) = self.lines.last_mut() {
            line.meaning = Some(meaning);
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
            let members = self.lines.iter();
            let members = members.map(|line| (line.name.to_owned(), line.value.clone()));
            return Value::Object(members.collect::<Map<_, _>>()).to_string();
        }
        let line = |Line {
                        name,
                        value,
                        meaning,
                    }: &Line| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let meaning = meaning.map(|it| format!(" ({it})")).unwrap_or_default();
            format!("{name}: {value}{meaning}")
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
