//! A file of events, one JSON object a line, as a stream would hold them: the line is the sequence.
//!
//! JetStream never stores an event before the one it stored last. So an event counts as published at
//! the time it names itself, or with the event before it when that was later or it names none: the
//! same in every run, and never the cause of an event from the future.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use jiff::Timestamp;
use lookback_engine::{Decoder, event_time};
use lookback_protocol::position::StreamSeq;
use rayon::prelude::*;

use crate::worker::trial::TrialEvent;

/// Reads events in batches.
pub(super) struct Events {
    reader: Box<dyn BufRead>,
    path: PathBuf,
    fields: Vec<String>,
    decoder: Decoder,
    line: u64,
    published: Timestamp,
    /// Events that name no time.
    pub(super) untimed: u64,
    /// Bytes of events.
    pub(super) bytes: u64,
}

impl Events {
    /// Opens `path`, `-` for standard input. `fields` hold the time at which an event counts as
    /// published.
    pub(super) fn open(path: &Path, fields: Vec<String>) -> Result<Self> {
        let reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            ensure!(
                !path.is_dir(),
                "{} is a folder: give a file of events, or - for standard input",
                path.display()
            );
            let file = File::open(path);
            let file = file.with_context(|| format!("cannot read events of {}", path.display()))?;
            Box::new(BufReader::new(file))
        };
        Ok(Self::new(reader, path, fields))
    }

    fn new(reader: Box<dyn BufRead>, path: &Path, fields: Vec<String>) -> Self {
        Self {
            reader,
            path: path.to_owned(),
            fields,
            decoder: Decoder::default(),
            line: 0,
            published: Timestamp::UNIX_EPOCH,
            untimed: 0,
            bytes: 0,
        }
    }

    /// The next events, at most `max`; none at the end. Lines without anything on them are no events.
    pub(super) fn next(&mut self, max: usize) -> Result<Vec<TrialEvent>> {
        let mut payloads = Vec::new();
        while payloads.len() < max {
            let mut line = Vec::new();
            let read = self.reader.read_until(b'\n', &mut line);
            let at = self.line + 1;
            let path = self.path.display();
            if read.with_context(|| format!("cannot read line {at} of {path}"))? == 0 {
                break;
            }
            self.line = at;
            if line.ends_with(b"\n") {
                line.pop();
            }
            if !line.trim_ascii().is_empty() {
                self.bytes += line.len() as u64;
                payloads.push((StreamSeq(at), Bytes::from(line)));
            }
        }
        let times: Vec<Option<Timestamp>> = payloads
            .par_iter()
            .map(|(_, payload)| {
                let event = self.decoder.decode(payload).ok()?;
                event_time(&event, &self.fields)
            })
            .collect();
        let timed = payloads.into_iter().zip(times);
        Ok(timed
            .map(|((sequence, payload), time)| {
                self.untimed += u64::from(time.is_none());
                self.published = self.published.max(time.unwrap_or(self.published));
                TrialEvent {
                    sequence,
                    published: self.published,
                    payload,
                }
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &'static str) -> Events {
        let fields = vec!["t".to_owned()];
        Events::new(Box::new(text.as_bytes()), Path::new("events"), fields)
    }

    fn seconds(text: &'static str) -> Vec<(u64, i64)> {
        let read = events(text).next(100).unwrap();
        let second = |event: TrialEvent| (event.sequence.0, event.published.as_second());
        read.into_iter().map(second).collect()
    }

    #[test]
    fn published_times_never_go_back_and_lines_are_those_of_the_file() {
        let text = "{\"t\":100}\n\n{\"t\":90}\r\n{\"a\":1}\nno json\n{\"t\":110}";
        let expected = [(1, 100), (3, 100), (4, 100), (5, 100), (6, 110)];
        assert_eq!(seconds(text), expected);
    }

    #[test]
    fn a_file_is_read_in_batches_to_its_end() {
        let mut events = events("{\"t\":1}\n{\"t\":2}\n{}\n");
        let sizes: Vec<_> = (0..3).map(|_| events.next(2).unwrap().len()).collect();
        assert_eq!(sizes, [2, 1, 0]);
        assert_eq!((events.untimed, events.bytes), (1, 16));
    }
}
