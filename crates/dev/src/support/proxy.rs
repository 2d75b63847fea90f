//! A TCP proxy between a client and its server, for the faults of the way between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

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
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Control {
    frozen: bool,
    cuts: u64,
}

/// Bytes that may still go from the target to clients before everything is cut.
type Budget = Arc<Mutex<Option<usize>>>;

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
        let budget = Budget::default();
        let task = tokio::spawn(accept(listener, target, control.clone(), budget.clone()));
        Ok(Self {
            address,
            control,
            budget,
            task,
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
        *self.budget.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    /// Half-open: connections stay open, and are accepted, but nothing is read or forwarded.
    pub fn freeze(&self) {
        self.control.send_modify(|control| control.frozen = true);
    }

    /// Goes on where it was frozen; nothing was lost on live connections.
    pub fn thaw(&self) {
        self.control.send_modify(|control| control.frozen = false);
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

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    control: watch::Sender<Control>,
    budget: Budget,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (control, budget) = (control.clone(), budget.clone());
        connections.spawn(connection(client, target, control, budget));
        while connections.try_join_next().is_some() {}
    }
}

/// Ends, and closes both sides, when either side closes or the connection is cut.
async fn connection(
    client: TcpStream,
    target: SocketAddr,
    control: watch::Sender<Control>,
    budget: Budget,
) {
    let mut cuts = control.subscribe();
    let before = cuts.borrow_and_update().cuts;
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump(from_client, to_server, control.subscribe(), |n| n);
    let down = pump(from_server, to_client, control.subscribe(), |n| {
        let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = *budget else { return n };
        let allowed = left.min(n);
        *budget = Some(left - allowed);
        if allowed < n {
            *budget = None;
            cut(&control);
        }
        allowed
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
    allow: impl Fn(usize) -> usize,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if control.wait_for(|now| !now.frozen).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = control.wait_for(|now| now.frozen) => continue,
        };
        let read = match read {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        if control.wait_for(|now| !now.frozen).await.is_err() {
            return;
        }
        let allowed = allow(read);
        if to.write_all(&buffer[..allowed]).await.is_err() || allowed < read {
            return;
        }
    }
}
