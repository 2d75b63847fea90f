//! What the kernel knows of a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel tells CPU time in hundredths of a second, whatever its own clock.
const TICK: Duration = Duration::from_millis(10);
/// Places in `stat`, counted after the name, which may hold spaces.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

/// CPU time of all threads of a process, the system's part included.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    cpu_in(&format!("/proc/{pid}/stat"))
}

/// CPU time of the calling thread.
pub(super) fn thread_cpu() -> Result<Duration> {
    cpu_in("/proc/thread-self/stat")
}

/// The most memory a process ever had resident, in bytes.
pub(super) fn peak_memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    let kibibytes = kibibytes.with_context(|| format!("no VmHWM in {path}"))?;
    Ok(kibibytes.trim().parse::<u64>()? * 1024)
}

fn cpu_in(path: &str) -> Result<Duration> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    ticks(&text)
        .map(|ticks| TICK * ticks)
        .with_context(|| format!("no CPU times in {path}"))
}

fn ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some(number(USER_TIME)? + number(SYSTEM_TIME)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added_whatever_the_name() {
        let stat = "7 (a) b c) S 1 7 7 0 -1 4194304 9 0 0 0 120 30 0 0 20 0 3 0 99";
        assert_eq!(ticks(stat), Some(150));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(peak_memory(std::process::id()).unwrap() > 0);
    }
}
