//! `kubectl lookback dlq show`.

use std::io::{self, Write};

use anyhow::Result;
use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use serde::Serialize;

use super::store;
use crate::ctl::context::Context;
use crate::ctl::output::{Answer, Fields, Format, Style, moment, plain, print};
use crate::nats::deadletters::StoredDeadLetter;

/// Bytes of a payload shown, unless it is asked for raw.
const SHOWN: usize = 4096;
/// Bytes in a line of hex.
const ROW: usize = 16;

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// The id, or its first 6 characters or more
    #[arg(value_parser = super::given_id)]
    id: String,
    /// Write the event's payload alone, byte for byte, to standard output
    #[arg(long)]
    raw: bool,
}

/// A dead letter with its event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    id: String,
    state: String,
    reason: String,
    error: String,
    attempts: u32,
    epoch: u64,
    redrives: u32,
    /// Who moved it here, when it was a person.
    by: Option<String>,
    /// Why, in their words.
    note: Option<String>,
    stored: Timestamp,
    stream: String,
    sequence: u64,
    subject: String,
    published: Timestamp,
    /// The event's headers, a line each.
    headers: Vec<String>,
    bytes: usize,
    /// The payload when it is UTF-8.
    text: Option<String>,
    /// The payload in base64 when it is not.
    base64: Option<String>,
    #[serde(skip)]
    payload: Vec<u8>,
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    let store = store(context).await?;
    let letter = store.get(&args.id).await?;
    if args.raw {
        let mut out = io::stdout().lock();
        out.write_all(&letter.event.payload)?;
        return Ok(out.flush()?);
    }
    print(&Shown::of(letter), format)
}

impl Shown {
    fn of(letter: StoredDeadLetter) -> Self {
        let event = letter.event;
        let payload = event.payload.to_vec();
        let text = std::str::from_utf8(&payload).ok().map(str::to_owned);
        let headers = String::from_utf8_lossy(&event.headers);
        Self {
            id: letter.id,
            state: letter.state,
            reason: letter.reason.to_string(),
            error: letter.error,
            attempts: letter.attempts,
            epoch: letter.epoch.0,
            redrives: letter.redrives,
            by: letter.by,
            note: letter.note,
            stored: letter.stored,
            stream: event.stream,
            sequence: event.sequence.0,
            subject: event.subject,
            published: event.published,
            // The first line is the protocol's version.
            headers: headers
                .lines()
                .skip(1)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            bytes: payload.len(),
            base64: text.is_none().then(|| BASE64.encode(&payload)),
            text,
            payload,
        }
    }
}

impl Answer for Shown {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let mut fields = Fields::default();
        fields.field("Id", &self.id);
        fields.field("State", &self.state);
        fields.field("Since", moment(self.stored));
        if let Some(by) = &self.by {
            let note = self.note.as_ref().map(|note| format!(": {note}"));
            fields.field("Moved by", format!("{by}{}", note.unwrap_or_default()));
        }
        fields.field("Redrives", self.redrives.to_string());
        fields.field("Reason", &self.reason);
        fields.field("Error", &self.error);
        fields.field("Attempts", self.attempts.to_string());
        fields.field("Epoch", self.epoch.to_string());
        fields.field(
            "Event",
            format!("message {} of {}", self.sequence, self.stream),
        );
        fields.field("Subject", &self.subject);
        fields.field("Published", moment(self.published));
        for (at, header) in self.headers.iter().enumerate() {
            match at {
                0 => fields.field("Headers", header),
                _ => fields.more(header),
            }
        }
        fields.field("Payload", format!("{} bytes", self.bytes));
        fields.write(out, style)?;
        let shown = &self.payload[..self.payload.len().min(SHOWN)];
        match std::str::from_utf8(shown)
            .ok()
            .filter(|_| self.text.is_some())
        {
            Some(text) => {
                for line in text.lines() {
                    writeln!(out, "  {}", plain(line))?;
                }
            }
            None => hex(out, shown)?,
        }
        if self.payload.len() > SHOWN {
            writeln!(
                out,
                "  and {} bytes more: --raw writes all",
                self.payload.len() - SHOWN
            )?;
        }
        Ok(())
    }
}

fn hex(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    for (at, row) in bytes.chunks(ROW).enumerate() {
        let pairs: Vec<_> = row.iter().map(|byte| HEXLOWER.encode(&[*byte])).collect();
        let printable = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        };
        let text: String = row.iter().map(printable).collect();
        writeln!(out, "  {:08x}  {:<47}  {text}", at * ROW, pairs.join(" "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_in_hex() {
        let mut out = Vec::new();
        hex(&mut out, b"\xff{\"a\":1}\n").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "  00000000  ff 7b 22 61 22 3a 31 7d 0a                       .{\"a\":1}.\n"
        );
    }
}
