//! Sigma as a pure function: (rules, settings, [(sequence, published, bytes)]) -> alerts and windows.
//! No wall clock, timer, batch border, memory pressure or hash order decides anything here.
//!
//! # Layout
//! - [`rules`]: files -> [`RuleSet`], naming every document that is left out, and the engine digest;
//!   also what an author may want to know of rules that work, and what each of them needs, in words.
//! - [`decode`]: payload -> [`Event`], with limits.
//! - [`detect`]: which detections match one event; shared by threads.
//! - [`correlate`]: windows per group, sequential; what changed leaves as [`Changes`].

pub mod correlate;
pub mod decode;
pub mod detect;
pub mod rules;

mod canonical;
#[cfg(test)]
mod fixture;

pub use correlate::{
    Alert, At, Changes, Correlator, EventPoint, GroupRow, event_time, state_digest,
};
pub use decode::{DecodeError, Decoder, Event};
pub use detect::{Detector, Match, Scratch};
pub use rules::{EngineOptions, RuleFile, RuleProblem, RuleSet};
