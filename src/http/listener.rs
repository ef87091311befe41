//! One address that is listened on: accepts connections, bounds their number and the time that a request's
//! head may take, and ends them politely.
//!
//! Promises that after the stop no new request is begun, that those at work are answered, and that nothing is
//! left running when [`Listener::serve`] returns. What a request means is the router's business.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Most bytes of a request's head; also the smallest read buffer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long no connection is accepted after the system refused one (too many open files).
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// The other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What bounds a listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListenerLimits {
    /// Connections held open at once; more wait in the system's queue.
    pub(crate) connections_max: usize,
    /// A request's head must have arrived by then; also the longest that an idle connection is kept.
    pub(crate) head_timeout: Duration,
    /// After the stop, requests at work have so long.
    pub(crate) drain_timeout: Duration,
}

/// An address that is bound and not yet served.
#[derive(Debug)]
pub(crate) struct Listener {
    surface: &'static str,
    socket: TcpListener,
    address: SocketAddr,
    limits: ListenerLimits,
}

impl Listener {
    /// Binds `address` for the surface called `surface`.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub(crate) async fn bind(
        surface: &'static str,
        address: SocketAddr,
        limits: ListenerLimits,
    ) -> anyhow::Result<Self> {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for {surface}"))?;
        let address = socket.local_addr().context("cannot tell the address that is listened on")?;
        Ok(Self { surface, socket, address, limits })
    }

    /// The address, with the port that the system chose where 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `stop`, then lets the requests at work end, within the drain time.
    pub(crate) async fn serve(self, router: Router, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(self.limits.connections_max));
        let mut connections = JoinSet::new();
        loop {
            // Taken before accepting: beyond the limit the system's own queue holds who comes.
            let place = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                place = Arc::clone(&room).acquire_owned() => place.expect("this semaphore is never closed"),
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = serve_connection(
                        stream,
                        peer,
                        router.clone(),
                        self.limits.head_timeout,
                        stop.clone(),
                    );
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(surface = self.surface, %error, "cannot accept a connection");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
        }
        drop(self.socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.limits.drain_timeout, drained).await.is_err() {
            tracing::warn!(
                surface = self.surface,
                open = connections.len(),
                "cutting off requests that do not end"
            );
            connections.shutdown().await;
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    // Small answers leave at once.
    stream.set_nodelay(true).ok();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX.max(64 * 1024))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // An error here is the other end's (gone, too slow, not HTTP): it concerns nobody else.
    tokio::select! {
        biased;
        ended = connection.as_mut() => drop(ended),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}
