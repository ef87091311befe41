//! What stands before several processes in a city: one address that passes connections on to whichever of them lives.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes connections on, to each process in turn. Ends when dropped.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    behind: Arc<Mutex<Vec<SocketAddr>>>,
    _passing_on: JoinSet<()>,
}

impl Front {
    /// Listens; nobody stands behind it yet.
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = Arc::new(Mutex::new(Vec::new()));
        let mut passing_on = JoinSet::new();
        passing_on.spawn(pass_on(listener, Arc::clone(&behind)));
        Self { address, behind, _passing_on: passing_on }
    }

    /// These stand behind it from now on.
    pub(crate) fn put_behind(&self, processes: impl IntoIterator<Item = SocketAddr>) {
        *self.behind.lock().unwrap() = processes.into_iter().collect();
    }
}

async fn pass_on(listener: TcpListener, behind: Arc<Mutex<Vec<SocketAddr>>>) {
    let turn = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    while let Ok((mut caller, _)) = listener.accept().await {
        let processes = behind.lock().unwrap().clone();
        let first = turn.fetch_add(1, Ordering::Relaxed);
        connections.spawn(async move {
            for step in 0..processes.len() {
                let process = processes[(first + step) % processes.len()];
                if let Ok(mut called) = TcpStream::connect(process).await {
                    // A connection that breaks is the caller's business.
                    let _ = copy_bidirectional(&mut caller, &mut called).await;
                    return;
                }
            }
        });
    }
}
