//! What clients without a key can make a server with the layer consume, measured on its process
//! from outside. `README.md` describes each attack.

mod genuine;
mod lockout;
mod memory;
mod process;
mod responses;
mod server;
mod silent;
mod table;
mod time;
mod wire;

use std::process::ExitCode;
use std::time::Instant;

use table::{Limit, Table};

#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// For every change: each attack takes under 20 s on a quiet machine.
    pub(crate) short: bool,
}

/// How many seconds a try of an attack may take in a short run. Most of each is fixed pauses, so a
/// slower machine needs little longer.
const SHORT: f64 = 45.0;

struct Attack {
    name: &'static str,
    run: fn(Run, &mut Table),
    /// Some figures include time, which is longer on a busy machine, so the attack is tried up to
    /// three times. Without such figures it is tried once, because its limits must hold every time.
    timed: bool,
}

const fn timed(name: &'static str, run: fn(Run, &mut Table)) -> Attack {
    Attack {
        name,
        run,
        timed: true,
    }
}

const fn untimed(name: &'static str, run: fn(Run, &mut Table)) -> Attack {
    Attack {
        name,
        run,
        timed: false,
    }
}

const ATTACKS: [Attack; 21] = [
    timed("quiet", lockout::quiet),
    untimed("padded", memory::padded),
    untimed("tiny-frames", memory::tiny_frames),
    untimed("fragments", memory::fragments),
    untimed("many-headers", memory::many_headers),
    timed("backlog", memory::backlog),
    timed("stalled", lockout::stalled),
    timed("http2-streams", lockout::http2_streams),
    timed("drip", lockout::drip),
    timed("burst", lockout::burst),
    timed("evict", lockout::evict),
    timed("silent", silent::silent),
    timed("flood", time::flood),
    timed("flood-unread", time::flood_unread),
    timed("floods", time::floods),
    timed("hostile-json", time::hostile_json),
    timed("forged", time::forged_body),
    timed("forgers", time::forgers),
    untimed("statuses", responses::statuses),
    untimed("tells", responses::tells),
    untimed("logs", responses::logs),
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
        .find(|word| !ATTACKS.iter().any(|attack| attack.name == **word));
    if let Some(unknown) = unknown {
        let names = ATTACKS.map(|attack| attack.name).join(", ");
        eprintln!("unknown attack {unknown:?}; expected one of {names}");
        return ExitCode::FAILURE;
    }
    let mut table = Table::new();
    let mut over = 0;
    for attack in ATTACKS {
        if words.is_empty() || words.iter().any(|word| word == attack.name) {
            over += tried(&attack, Run { short }, &mut table);
        }
    }
    if over > 0 {
        println!("{over} over the limit");
        return ExitCode::FAILURE;
    }
    println!("all within their limits");
    ExitCode::SUCCESS
}

/// Returns how many figures of the last try are over their limits.
fn tried(attack: &Attack, run: Run, table: &mut Table) -> usize {
    let tries = if attack.timed { 3 } else { 1 };
    for left in (0..tries).rev() {
        let start = Instant::now();
        table.attack(attack.name);
        (attack.run)(run, table);
        let limit = if run.short {
            Limit::AtMost(SHORT)
        } else {
            Limit::None
        };
        table.row("took", start.elapsed().as_secs_f64(), "s", &limit);
        if table.over == 0 || left == 0 {
            break;
        }
        table.note("trying again: a busy machine takes longer");
    }
    table.over
}
