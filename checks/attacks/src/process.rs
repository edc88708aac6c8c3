//! The server process, seen from outside: its memory and CPU time as counted by the kernel, and its
//! log.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::server::Options;

pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

#[derive(Clone, Copy)]
pub(crate) struct Log {
    pub(crate) lines: usize,
    pub(crate) bytes: usize,
}

impl Server {
    pub(crate) fn start(options: Options) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("inngest-auth-attacks-{}-{number}.log", std::process::id());
        let log = std::env::temp_dir().join(name);
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("server")
            .args(options.to_words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a file for the log"))
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("the server prints its address");
        Self {
            child,
            address: line.trim().parse().expect("an address"),
            log,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the peak resident memory so far, in MiB: `VmHWM`.
    pub(crate) fn peak(&self) -> f64 {
        let status = self.proc("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        kilobytes
            .expect("VmHWM")
            .parse::<f64>()
            .expect("a number of kB")
            / 1024.0
    }

    /// Returns the CPU time used so far by all threads, in kernel and user mode.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        // The name in parentheses may contain any character. After it, utime and stime are the 12th
        // and 13th fields.
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks
            .map(|field| field.parse::<u64>().expect("ticks"))
            .sum();
        // Linux has reported 100 ticks a second to user space on every architecture for decades
        // (USER_HZ).
        Duration::from_millis(ticks * 10)
    }

    /// Waits until the server has used no CPU for a while, which means that it has read what was
    /// sent.
    pub(crate) fn settle(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        let mut before = Duration::MAX;
        while Instant::now() < end {
            let now = self.cpu();
            if now == before {
                return;
            }
            before = now;
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    pub(crate) fn log(&self) -> Log {
        let text = std::fs::read_to_string(&self.log).expect("the log");
        Log {
            lines: text.lines().count(),
            bytes: text.len(),
        }
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(path).expect("Linux, and a server that runs")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}
