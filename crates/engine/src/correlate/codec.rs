//! Bytes of group state: LEB128 integers, zigzag for signed ones, length-prefixed text. Every value
//! has exactly one encoding, so equal states have equal bytes.
//!
//! A row is: version, newest event time, touched time, event points (sequence, seconds, nanoseconds),
//! a tag for the kind of window, and its entries in order with times as differences.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use lookback_protocol::position::StreamSeq;
use rsigma_eval::{CompiledCorrelation, WindowState};

use super::EventPoint;
use super::group::{Group, MAX_POINTS};

/// The version of the encoding written by this build.
const VERSION: u8 = 1;

const EVENT_COUNT: u8 = 0;
const VALUE_COUNT: u8 = 1;
const TEMPORAL: u8 = 2;
const NUMERIC: u8 = 3;

/// The state of `group`, a window of `correlation`.
pub(super) fn encode(group: &Group, correlation: &CompiledCorrelation) -> Vec<u8> {
    let mut out = Writer::default();
    out.byte(VERSION);
    out.signed(group.newest);
    out.signed(group.touched);
    out.length(group.points.len());
    for point in &group.points {
        out.unsigned(point.sequence.0);
        out.signed(point.time.as_second());
        out.unsigned(point.time.subsec_nanosecond().unsigned_abs().into());
    }
    match &group.window {
        WindowState::EventCount { timestamps } => {
            out.byte(EVENT_COUNT);
            out.times(timestamps);
        }
        WindowState::ValueCount { entries } => {
            out.byte(VALUE_COUNT);
            out.entries(entries, |out, value| out.text(value));
        }
        WindowState::Temporal { rule_hits } => {
            out.byte(TEMPORAL);
            let references = &correlation.rule_refs;
            out.length(references.len());
            for reference in references {
                out.times(rule_hits.get(reference).unwrap_or(&VecDeque::new()));
            }
        }
        WindowState::NumericAgg { entries } => {
            out.byte(NUMERIC);
            out.entries(entries, |out, value| {
                out.0.extend(value.to_bits().to_be_bytes())
            });
        }
    }
    out.finish()
}

/// The group that [`encode`] wrote.
pub(super) fn decode(bytes: &[u8], correlation: &CompiledCorrelation) -> Result<Group, String> {
    let mut reader = Reader::new(bytes);
    match reader.byte()? {
        VERSION => {}
        other => {
            return Err(format!(
                "its encoding has version {other}, this build reads {VERSION}"
            ));
        }
    }
    let newest = reader.signed()?;
    let touched = reader.signed()?;
    let mut points = VecDeque::with_capacity(MAX_POINTS);
    for _ in 0..reader.length()? {
        points.push_back(EventPoint {
            sequence: StreamSeq(reader.unsigned()?),
            time: reader.timestamp()?,
        });
    }
    let window = match (
        reader.byte()?,
        WindowState::new_for(correlation.correlation_type),
    ) {
        (EVENT_COUNT, WindowState::EventCount { .. }) => WindowState::EventCount {
            timestamps: reader.times()?,
        },
        (VALUE_COUNT, WindowState::ValueCount { .. }) => WindowState::ValueCount {
            entries: reader.entries(Reader::text)?,
        },
        (TEMPORAL, WindowState::Temporal { .. }) => reader.temporal(&correlation.rule_refs)?,
        (NUMERIC, WindowState::NumericAgg { .. }) => WindowState::NumericAgg {
            entries: reader.entries(Reader::float)?,
        },
        (tag, _) => {
            return Err(format!(
                "a window of kind {tag} does not fit its correlation"
            ));
        }
    };
    if !reader.is_empty() {
        return Err("bytes are left over at its end".to_owned());
    }
    Ok(Group::restored(newest, touched, points, window))
}

#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn length(&mut self, length: usize) {
        self.unsigned(length as u64);
    }

    fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn times(&mut self, times: &VecDeque<i64>) {
        self.length(times.len());
        let mut previous = 0_i64;
        for time in times {
            self.signed(time.wrapping_sub(previous));
            previous = *time;
        }
    }

    fn entries<V>(&mut self, entries: &VecDeque<(i64, V)>, value: impl Fn(&mut Self, &V)) {
        self.length(entries.len());
        let mut previous = 0_i64;
        for (time, entry) in entries {
            self.signed(time.wrapping_sub(previous));
            previous = *time;
            value(self, entry);
        }
    }
}

pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn text(&mut self) -> Result<String, String> {
        let length = self.length()?;
        let bytes = self.bytes(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| "a text in it is not UTF-8".to_owned())
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(length).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.bytes(1)?[0])
    }

    fn unsigned(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            value |= bits
                .checked_shl(shift)
                .filter(|v| v >> shift == bits)
                .ok_or("a number is too large")?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is too long".to_owned())
    }

    fn signed(&mut self) -> Result<i64, String> {
        let value = self.unsigned()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A number of elements, each of which takes at least one byte.
    fn length(&mut self) -> Result<usize, String> {
        let length = usize::try_from(self.unsigned()?).ok();
        length
            .filter(|length| *length <= self.0.len())
            .ok_or_else(|| "it is cut short".to_owned())
    }

    fn float(&mut self) -> Result<f64, String> {
        let mut bits = [0; 8];
        bits.copy_from_slice(self.bytes(8)?);
        Ok(f64::from_bits(u64::from_be_bytes(bits)))
    }

    fn timestamp(&mut self) -> Result<Timestamp, String> {
        let seconds = self.signed()?;
        let nanoseconds = i32::try_from(self.unsigned()?).map_err(|_| "a time is out of range")?;
        Timestamp::new(seconds, nanoseconds).map_err(|_| "a time is out of range".to_owned())
    }

    fn times(&mut self) -> Result<VecDeque<i64>, String> {
        let mut previous = 0_i64;
        (0..self.length()?)
            .map(|_| {
                previous = previous.wrapping_add(self.signed()?);
                Ok(previous)
            })
            .collect()
    }

    fn entries<V>(
        &mut self,
        value: impl Fn(&mut Self) -> Result<V, String>,
    ) -> Result<VecDeque<(i64, V)>, String> {
        let mut previous = 0_i64;
        (0..self.length()?)
            .map(|_| {
                previous = previous.wrapping_add(self.signed()?);
                Ok((previous, value(self)?))
            })
            .collect()
    }

    fn temporal(&mut self, references: &[String]) -> Result<WindowState, String> {
        if self.length()? != references.len() {
            return Err("its references are not those of its correlation".to_owned());
        }
        let mut rule_hits = HashMap::new();
        for reference in references {
            let hits = self.times()?;
            if !hits.is_empty() {
                rule_hits.insert(reference.clone(), hits);
            }
        }
        Ok(WindowState::Temporal { rule_hits })
    }
}
