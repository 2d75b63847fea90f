//! Asking before something is done.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context as _, Result};

use super::Usage;

/// Whether a person at a terminal says yes to `question`, below what `show` writes. Elsewhere nobody
/// could answer, and `instead` says which flag to give.
pub(super) fn confirm(
    question: &str,
    instead: &str,
    show: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Usage(instead.to_owned()).into());
    }
    let mut out = io::stderr().lock();
    show(&mut out)
        .and_then(|()| write!(out, "{question} [y/N] "))
        .and_then(|()| out.flush())
        .context("cannot ask")?;
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "yes"))
}
