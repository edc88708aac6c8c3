//! Real Redis servers for tests, each on its own port. Needs `redis-server` in the path.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Returns `true` if `REDIS_URL` is set, to run a test that needs servers. Otherwise prints that
/// the test is skipped.
pub(crate) fn wanted(test: &str) -> bool {
    let wanted = std::env::var_os("REDIS_URL").is_some();
    if !wanted {
        eprintln!("{test}: skipped, REDIS_URL is not set");
    }
    wanted
}

/// Returns an address on which nothing listens.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A server that is stopped at the end of the test.
pub(crate) struct Redis {
    process: Child,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
}

impl Redis {
    /// Starts a server that keeps nothing on disk, unless `settings` say otherwise.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_at(free(), settings)
    }

    /// Starts a server at `address`, with what an earlier server there kept on disk.
    pub(crate) fn start_at(address: SocketAddr, settings: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("inngest-auth-redis-{}", address.port()));
        std::fs::create_dir_all(&folder).unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                folder.to_str().unwrap(),
            ])
            .args(settings)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is in the path");
        let server = Self {
            process,
            address,
            folder,
        };
        server.wait("it does not listen", |server| {
            TcpStream::connect(server.address).is_ok()
        });
        server
    }

    /// Waits for another process, which can only be polled.
    pub(crate) fn wait(&self, or: &str, until: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !until(self) {
            assert!(began.elapsed() < Duration::from_secs(20), "{or}");
            std::thread::yield_now();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Returns the response to a command, as on the wire.
    pub(crate) fn say(&self, command: &[&str]) -> String {
        let words: Vec<_> = command
            .iter()
            .map(|word| format!("${}\r\n{word}\r\n", word.len()))
            .collect();
        let mut socket = TcpStream::connect(self.address).unwrap();
        let command = format!("*{}\r\n{}", words.len(), words.concat());
        socket.write_all(command.as_bytes()).unwrap();
        let mut response = vec![0; 16_384];
        let read = socket.read(&mut response).unwrap();
        String::from_utf8_lossy(&response[..read]).into_owned()
    }

    /// Kills the server at once, and leaves what it has kept on disk.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.folder = PathBuf::new();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if self.folder.components().next().is_some() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
