//! What strangers can make a server with the layer consume, measured on its process from outside.
//! `README.md` says what each attack is.

mod answers;
mod genuine;
mod lockout;
mod memory;
mod process;
mod server;
mod table;
mod time;
mod wire;

use std::process::ExitCode;
use std::time::Instant;

use table::Table;

#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// For every change: under three minutes together.
    pub(crate) short: bool,
}

type Attack = fn(Run, &mut Table);

const ATTACKS: [(&str, Attack); 13] = [
    ("quiet", lockout::quiet),
    ("padded", memory::padded),
    ("tiny-frames", memory::tiny_frames),
    ("backlog", memory::backlog),
    ("stalled", lockout::stalled),
    ("http2-streams", lockout::http2_streams),
    ("drip", lockout::drip),
    ("flood", time::flood),
    ("hostile-json", time::hostile_json),
    ("forged", time::forged_body),
    ("statuses", answers::statuses),
    ("tells", answers::tells),
    ("logs", answers::logs),
];

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "server") {
        server::main(&words[1..]);
        return ExitCode::SUCCESS;
    }
    let short = words.iter().any(|word| word == "--short");
    words.retain(|word| word != "--short");
    let unknown = words
        .iter()
        .find(|word| !ATTACKS.iter().any(|(name, _)| name == word));
    if let Some(unknown) = unknown {
        let names = ATTACKS.map(|(name, _)| name).join(", ");
        eprintln!("no attack is called {unknown:?}; there are {names}");
        return ExitCode::FAILURE;
    }
    let mut table = Table::new();
    for (name, attack) in ATTACKS {
        if words.is_empty() || words.iter().any(|word| word == name) {
            let start = Instant::now();
            table.attack(name);
            attack(Run { short }, &mut table);
            table.note(&format!("took {:.0} s", start.elapsed().as_secs_f64()));
        }
    }
    if table.over > 0 {
        println!("{} over the limit", table.over);
        return ExitCode::FAILURE;
    }
    println!("all within their limits");
    ExitCode::SUCCESS
}
