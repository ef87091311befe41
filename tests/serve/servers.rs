//! The real Kafka and the real CQL store behind a test: those that all tests share, or a pair of its own that it may end.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

/// Kafka and a CQL store.
pub(crate) enum Servers {
    /// Those of `dev/services`, which other tests use at the same time.
    Common,
    /// This test's alone.
    Own(OwnServers),
}

impl Servers {
    pub(crate) fn kafka(&self) -> String {
        match self {
            Self::Common => common("GATEBELL_TEST_KAFKA", "127.0.0.1:19092"),
            Self::Own(own) => format!("127.0.0.1:{}", own.kafka_port),
        }
    }

    pub(crate) fn cql(&self) -> String {
        match self {
            Self::Common => common("GATEBELL_TEST_CQL", "127.0.0.1:19042"),
            Self::Own(own) => format!("127.0.0.1:{}", own.cql_port),
        }
    }
}

fn common(variable: &str, otherwise: &str) -> String {
    let address = std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned());
    assert!(TcpStream::connect(&address).is_ok(), "nothing at {address}: run dev/services up");
    address
}

/// A pair in a directory and on ports of its own. Ended and removed when dropped.
pub(crate) struct OwnServers {
    directory: tempfile::TempDir,
    kafka_port: u16,
    cql_port: u16,
}

impl OwnServers {
    /// Starts both and waits until they answer.
    pub(crate) fn start() -> Self {
        let own =
            Self { directory: tempfile::tempdir().unwrap(), kafka_port: free_port(), cql_port: free_port() };
        own.services(&["up"]);
        own
    }

    /// Ends `name` as a crash would, and waits until it answers again.
    pub(crate) fn crash(&self, name: &str) {
        self.services(&["restart", "--kill", name]);
    }

    fn services(&self, args: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/services");
        let ended = Command::new(script)
            .args(args)
            .env("GATEBELL_SERVICES_DIR", self.directory.path())
            .env("GATEBELL_KAFKA_PORT", self.kafka_port.to_string())
            .env("GATEBELL_CQL_PORT", self.cql_port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(ended.success(), "dev/services {args:?}: {ended}");
    }
}

impl Drop for OwnServers {
    fn drop(&mut self) {
        self.services(&["down", "--kill", "--purge"]);
    }
}

/// A port that nobody listens on, with some free ones behind it: a server takes up to three in a row.
fn free_port() -> u16 {
    let is_free = |port: &u16| (0..4).all(|next| TcpListener::bind(("127.0.0.1", port + next)).is_ok());
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).unwrap();
    // Below the ports that the system gives out by itself.
    let first = 20_000 + u16::from_be_bytes(bytes) % 10_000;
    (first..32_000).step_by(4).find(is_free).expect("a free port")
}
