//! Ports for servers that must come back on the same one.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// Below the range from which the kernel takes the ports of outgoing connections: nothing takes the
/// port while its server is down.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Those that were given out: a server that is down keeps its port.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A loopback port that is free now, and that nobody else in this process is given. Another process may
/// take it before it is used; whoever starts a server on it tries again with another.
///
/// # Errors
/// When hardly any port is free.
pub fn free_port() -> Result<u16> {
    for _ in 0..200 {
        let random = RandomState::new().hash_one(0) % u64::from(COUNT);
        let port = FIRST + u16::try_from(random).unwrap_or(0);
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if is_free && given.insert(port) {
            return Ok(port);
        }
    }
    bail!("no free port on the loopback address")
}
