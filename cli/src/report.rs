//! The result of a command: lines for people, or one JSON object for programs.

use std::fmt::Display;
use std::process::ExitCode;

use serde_json::{Map, Value};

/// A result, printed as lines or as JSON.
pub(crate) struct Report {
    yes: bool,
    /// Replaces the lines in the output for people.
    text: Option<String>,
    lines: Vec<Line>,
}

/// One `name: value` of a report.
struct Line {
    name: &'static str,
    value: Value,
    /// An explanation for people.
    meaning: Option<&'static str>,
}

impl Report {
    /// Creates a report without lines. `yes` decides between the exit codes 0 and 1.
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

    /// Adds an explanation for people to the last line.
    pub(crate) fn meaning(mut self, meaning: &'static str) -> Self {
        if let Some(line) = self.lines.last_mut() {
            line.meaning = Some(meaning);
        }
        self
    }

    /// Replaces the lines in the output for people.
    pub(crate) fn text(mut self, text: String) -> Self {
        self.text = Some(text);
        self
    }

    /// Prints the report, and returns the exit code 0 or 1.
    pub(crate) fn print(self, json: bool) -> ExitCode {
        println!("{}", self.show(json));
        if self.yes {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        }
    }

    /// Prints the report of an error, and returns the exit code 2.
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

/// An error of usage or input.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}
