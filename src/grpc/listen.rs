//! Listeners and connections.
//!
//! Every connection is served by hyper over HTTP/2, in one supervised set. What does not begin with the HTTP/2 preface is closed, with one
//! log line and a count. When the sidecar stops, connections get a GOAWAY and end with their calls; `Listener::serve` ends with the last of
//! them, and its caller bounds that wait, since a graceful stop has no bound of its own.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};
use tonic::service::Routes;

use super::{
    identity::Gate,
    intake::{Bounded, Rooms},
    measure::Measured,
    tls::{self, Tls},
    tokens::Tokens,
};
use crate::{access::Caller, lifecycle::Lifecycle, metrics};

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of a TLS connection (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How long a connection may take to send its first bytes.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Flow-control windows: h2's guard against small frames allows half of the connection's window of unread ones. A stream that waits for room holds
/// its own window in memory, so that is small; all of a connection fit into the connection's, so one that has room is never held up by the others.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
const STREAM_WINDOW: u32 = 64 * 1024;
const _: () =
    assert!(STREAM_WINDOW as u64 * MAX_CONCURRENT_STREAMS as u64 <= CONNECTION_WINDOW as u64);

/// Of one frame.
pub(super) const FRAME: u32 = 32 * 1024;

/// What a stream that waits for room needs, beside messages that have it: what is not read, which is its window and a frame; and what each has, which is
/// buffers of both directions, what a frame keeps of the buffer that it was read with, and its tasks. Measured: 127 to 159 KiB altogether.
pub const STREAM_BYTES: u64 = (STREAM_WINDOW + FRAME + 64 * 1024) as u64;

/// Header lists that are read.
const MAX_HEADER_LIST: u32 = 16 * 1024;

/// Calls on one connection.
const MAX_CONCURRENT_STREAMS: u32 = 1000;

/// Half-dead peers are found after these: without, a vanished subscriber would hold its records.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes that may take this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Resets of calls that were never accepted (rapid reset, CVE-2023-44487) and of our own for errors, before a connection is closed.
const MAX_PENDING_RESETS: usize = 20;
const MAX_ERROR_RESETS: usize = 1024;

/// Where callers come in.
#[expect(missing_debug_implementations, reason = "handshakes show nothing")]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A socket file, removed at the end.
    Unix(UnixListener, PathBuf),
}

/// What all listeners serve, and whom.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) routes: Routes,
    pub(super) lifecycle: Lifecycle,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) tokens: Option<Arc<Tokens>>,
    pub(super) rooms: Rooms,
    /// Bounds the open connections, whichever listener they came by.
    pub(super) places: Arc<Semaphore>,
}

impl Listener {
    /// Binds a TCP address.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::Tcp)
    }

    /// Binds a socket file. One that is left behind by a dead process is replaced; a live one is not.
    pub fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
            && std::os::unix::net::UnixStream::connect(path).is_err()
        {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(Self::Unix(listener, path.to_owned()))
    }

    /// The bound TCP address.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// The bound socket file.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, path) => Some(path.clone()),
        }
    }

    async fn accept(&self) -> io::Result<Peer> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Peer::Tcp(stream, address))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok(Peer::Unix(stream, uid))
            }
        }
    }

    /// Serves until the sidecar stops and the last connection has ended.
    pub(super) async fn serve(self, door: Door) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = door.lifecycle.stopping() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.accept() => match accepted {
                    Ok(peer) => match Arc::clone(&door.places).try_acquire_owned() {
                        Ok(place) => {
                            let door = door.clone();
                            connections.spawn(async move {
                                peer.serve(door).await;
                                drop(place);
                            });
                        }
                        Err(_) => reject(&peer.to_string(), "too many are open (listen.max_connections)"),
                    },
                    Err(error) => {
                        // Out of descriptors, most likely: others may be given back.
                        tracing::warn!(error = %error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        // Closed before the wait, so that a successor can bind.
        drop(self);
        while connections.join_next().await.is_some() {}
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(error = %error, "the socket file was gone already");
        }
    }
}

enum Peer {
    Tcp(TcpStream, SocketAddr),
    /// With the caller's user id.
    Unix(UnixStream, u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => address.fmt(f),
            Self::Unix(_, uid) => write!(f, "unix socket, uid {uid}"),
        }
    }
}

impl Peer {
    async fn serve(self, door: Door) {
        let peer = self.to_string();
        match (self, door.tls.clone()) {
            (Self::Tcp(stream, address), None) => {
                let (read, write) = stream.into_split();
                let caller = from_afar(address, None);
                connection(read, write, &peer, caller, door).await;
            }
            (Self::Tcp(mut stream, address), Some(tls)) => {
                let first = tokio::time::timeout(PREFACE_TIMEOUT, is_tls(&mut stream)).await;
                match first {
                    Ok(Ok(Some(true))) => {}
                    Ok(Ok(Some(false))) => {
                        return reject(&peer, "plain text was spoken to the TLS port");
                    }
                    Ok(Ok(None) | Err(_)) => return,
                    Err(_) => return reject(&peer, "nothing was sent"),
                }
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let caller = from_afar(address, tls::name(&stream));
                        let (read, write) = tokio::io::split(stream);
                        connection(read, write, &peer, caller, door).await;
                    }
                    Ok(Err(error)) => reject(&peer, &format!("no TLS: {error}")),
                    Err(_) => reject(&peer, "the TLS handshake took too long"),
                }
            }
            (Self::Unix(stream, uid), _) => {
                let (read, write) = stream.into_split();
                let caller = Caller {
                    names: vec![format!("uid:{uid}")],
                    is_local: true,
                    is_owner: is_owner(uid),
                    ..Caller::default()
                };
                // The kernel says who it is: no token is needed.
                let door = Door {
                    tokens: None,
                    ..door
                };
                connection(read, write, &peer, caller, door).await;
            }
        }
    }
}

fn from_afar(address: SocketAddr, name: Option<String>) -> Caller {
    Caller {
        names: name.into_iter().collect(),
        is_local: address.ip().to_canonical().is_loopback(),
        ..Caller::default()
    }
}

/// Whether a user is the sidecar's own, or root. `/proc/self` belongs to who we are.
fn is_owner(uid: u32) -> bool {
    uid == 0 || fs::metadata("/proc/self").is_ok_and(|own| own.uid() == uid)
}

async fn is_tls(stream: &mut TcpStream) -> io::Result<Option<bool>> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    Ok((count > 0).then_some(first[0] == TLS_HANDSHAKE))
}

async fn connection(
    mut read: impl AsyncRead + Send + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
    peer: &str,
    mut caller: Caller,
    door: Door,
) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    caller.connection = NEXT.fetch_add(1, Ordering::Relaxed);
    let first = match tokio::time::timeout(PREFACE_TIMEOUT, preface(&mut read)).await {
        Ok(Ok(Some(first))) => first,
        // Closed without a byte: somebody looked whether the port is open.
        Ok(Ok(None) | Err(_)) => return,
        Err(_) => return reject(peer, "nothing was sent"),
    };
    if first != PREFACE {
        return reject(peer, describe(&first));
    }
    let _open = metrics::connections().open();
    let gate = Gate {
        routes: door.routes,
        caller: Arc::new(caller),
        tokens: door.tokens,
    };
    let gate = Bounded {
        service: gate,
        rooms: door.rooms,
    };
    let io = tokio::io::join(io::Cursor::new(first).chain(read), write);
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(Measured(gate)));
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = door.lifecycle.stopping() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer, error = %error, "a connection ended with an error");
    }
}

/// Reads the preface, or as much of something else as shows that it is none; `None` when nothing came at all.
async fn preface(read: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let mut rest = (&mut *read).take((PREFACE.len() - first.len()) as u64);
        if rest.read_buf(&mut first).await? == 0 {
            return Ok((!first.is_empty()).then_some(first));
        }
    }
    Ok(Some(first))
}

fn describe(first: &[u8]) -> &'static str {
    if first.first() == Some(&TLS_HANDSHAKE) {
        "TLS was spoken to a plain-text port"
    } else if [
        &b"GET "[..],
        b"POST",
        b"HEAD",
        b"PUT ",
        b"OPTI",
        b"DELE",
        b"CONN",
        b"PATC",
    ]
    .iter()
    .any(|method| first.starts_with(method))
    {
        "HTTP/1 was spoken to the gRPC port"
    } else {
        "what came in is not HTTP/2"
    }
}

fn reject(peer: &str, why: &str) {
    metrics::connections().rejected();
    tracing::warn!(peer, "connection closed: {why}");
}
