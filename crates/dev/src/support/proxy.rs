//! A TCP proxy between a client and its server, for the faults of the way between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Forwards every connection to one target until it is told otherwise. Dropping it cuts everything.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    control: watch::Sender<Control>,
    budget: Budget,
    freezes: Trigger,
    mutes: Trigger,
    cuts: Trigger,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Control {
    frozen: bool,
    mute: bool,
    cuts: u64,
}

/// Bytes that may still go from the target to clients before everything is cut.
type Budget = Arc<Mutex<Option<usize>>>;

/// A text that one side has to send for something to happen, once.
type Trigger = Arc<Mutex<Option<Vec<u8>>>>;

impl TcpProxy {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("cannot listen for the proxy")?;
        let address = listener.local_addr().context("no address of the proxy")?;
        let (control, _) = watch::channel(Control::default());
        let way = Way {
            target,
            control: control.clone(),
            budget: Budget::default(),
            freezes: Trigger::default(),
            mutes: Trigger::default(),
            cuts: Trigger::default(),
        };
        Ok(Self {
            address,
            control,
            budget: way.budget.clone(),
            freezes: way.freezes.clone(),
            mutes: way.mutes.clone(),
            cuts: way.cuts.clone(),
            task: tokio::spawn(accept(listener, way)),
        })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every live connection, on both sides. New ones are forwarded.
    pub fn cut(&self) {
        cut(&self.control);
    }

    /// Cuts after `bytes` more have gone from the target to clients: in the middle of a batch.
    pub fn cut_after(&self, bytes: usize) {
        *lock(&self.budget) = Some(bytes);
    }

    /// Cuts when the target sends `text`, of which at least the last byte is not forwarded: the answer
    /// to a request that arrived is lost.
    pub fn cut_at(&self, text: &str) {
        *lock(&self.cuts) = Some(text.as_bytes().to_vec());
    }

    /// Takes back a [`Self::cut_after`] that has not come about.
    pub fn spare(&self) {
        *lock(&self.budget) = None;
    }

    /// Freezes when a client sends `text`, of which at least the last byte is not forwarded.
    pub fn freeze_at(&self, text: &str) {
        *lock(&self.freezes) = Some(text.as_bytes().to_vec());
    }

    /// Holds every answer back once a client sends `text`, which is forwarded.
    pub fn mute_at(&self, text: &str) {
        *lock(&self.mutes) = Some(text.as_bytes().to_vec());
    }

    /// Whether answers are held back.
    #[must_use]
    pub fn is_mute(&self) -> bool {
        self.control.borrow().mute
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.control.borrow().frozen
    }

    /// Half-open: connections stay open, and are accepted, but nothing is read or forwarded.
    pub fn freeze(&self) {
        self.control.send_modify(|control| control.frozen = true);
    }

    /// Goes on where it was frozen or mute; nothing was lost on live connections.
    pub fn thaw(&self) {
        self.control.send_modify(|control| {
            control.frozen = false;
            control.mute = false;
        });
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn cut(control: &watch::Sender<Control>) {
    control.send_modify(|control| control.cuts += 1);
}

/// What every connection shares.
#[derive(Clone, Debug)]
struct Way {
    target: SocketAddr,
    control: watch::Sender<Control>,
    budget: Budget,
    freezes: Trigger,
    mutes: Trigger,
    cuts: Trigger,
}

impl Way {
    /// How many of the bytes from the server may pass; `seen` holds the end of what it sent before.
    fn allow(&self, seen: &mut Vec<u8>, data: &[u8]) -> usize {
        if is_sent(&self.cuts, seen, data) {
            cut(&self.control);
            return 0;
        }
        let mut budget = lock(&self.budget);
        let Some(left) = *budget else {
            return data.len();
        };
        let allowed = left.min(data.len());
        *budget = Some(left - allowed);
        if allowed < data.len() {
            *budget = None;
            cut(&self.control);
        }
        allowed
    }

    /// Looks at what a client sends; `seen` holds the end of what it sent before, for each trigger.
    fn watch(&self, seen: &mut [Vec<u8>; 2], data: &[u8]) {
        if is_sent(&self.freezes, &mut seen[0], data) {
            self.control.send_modify(|control| control.frozen = true);
        }
        if is_sent(&self.mutes, &mut seen[1], data) {
            self.control.send_modify(|control| control.mute = true);
        }
    }
}

/// Whether the end of the text that is waited for is in `data`; `seen` holds what came before.
fn is_sent(trigger: &Trigger, seen: &mut Vec<u8>, data: &[u8]) -> bool {
    let mut trigger = lock(trigger);
    let Some(text) = &*trigger else { return false };
    let before = text.len() - 1;
    seen.extend_from_slice(data);
    let found = seen.windows(text.len()).any(|window| window == text);
    seen.drain(..seen.len().saturating_sub(before));
    if found {
        *trigger = None;
    }
    found
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, way: Way) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(connection(client, way.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Ends, and closes both sides, when either side closes or the connection is cut.
async fn connection(client: TcpStream, way: Way) {
    let mut cuts = way.control.subscribe();
    let before = cuts.borrow_and_update().cuts;
    let Ok(server) = TcpStream::connect(way.target).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (mut sent, mut answered) = (<[Vec<u8>; 2]>::default(), Vec::new());
    let control = || way.control.subscribe();
    let holds_requests = |now: &Control| now.frozen;
    let up = pump(from_client, to_server, control(), holds_requests, |data| {
        way.watch(&mut sent, data);
        data.len()
    });
    let holds_answers = |now: &Control| now.frozen || now.mute;
    let down = pump(from_server, to_client, control(), holds_answers, |data| {
        way.allow(&mut answered, data)
    });
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = cuts.wait_for(|now| now.cuts > before) => {}
    }
}

/// Copies until the end; `allow` says how many of the bytes just read may pass. When not all may, the
/// copy ends after them.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut control: watch::Receiver<Control>,
    holds: impl Fn(&Control) -> bool,
    mut allow: impl FnMut(&[u8]) -> usize,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if control.wait_for(|now| !holds(now)).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = control.wait_for(&holds) => continue,
        };
        let read = match read {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let allowed = allow(&buffer[..read]);
        if control.wait_for(|now| !holds(now)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..allowed]).await.is_err() || allowed < read {
            return;
        }
    }
}
