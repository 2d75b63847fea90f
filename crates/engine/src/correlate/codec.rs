//! Group <-> row. Equal states have equal bytes.
//!
//! A row is: version, newest event time, touched time, event points (sequence, seconds, nanoseconds),
//! a tag for the kind of window, and its entries in order with times as differences.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use lookback_protocol::position::StreamSeq;
use rsigma_eval::{CompiledCorrelation, WindowState};

use super::EventPoint;
use super::bytes::{Reader, Writer};
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
            out.entries(entries, |out, value| out.float(*value));
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
    let newest = reader.second()?;
    let touched = reader.second()?;
    let mut points = VecDeque::with_capacity(MAX_POINTS);
    for _ in 0..reader.length()? {
        points.push_back(EventPoint {
            sequence: StreamSeq(reader.unsigned()?),
            time: timestamp(&mut reader)?,
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
        (TEMPORAL, WindowState::Temporal { .. }) => temporal(&mut reader, &correlation.rule_refs)?,
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

fn timestamp(reader: &mut Reader<'_>) -> Result<Timestamp, String> {
    let seconds = reader.second()?;
    let nanoseconds = i32::try_from(reader.unsigned()?).map_err(|_| "a time is out of range")?;
    Timestamp::new(seconds, nanoseconds).map_err(|_| "a time is out of range".to_owned())
}

fn temporal(reader: &mut Reader<'_>, references: &[String]) -> Result<WindowState, String> {
    if reader.length()? != references.len() {
        return Err("its references are not those of its correlation".to_owned());
    }
    let mut rule_hits = HashMap::new();
    for reference in references {
        let hits = reader.times()?;
        if !hits.is_empty() {
            rule_hits.insert(reference.clone(), hits);
        }
    }
    Ok(WindowState::Temporal { rule_hits })
}
