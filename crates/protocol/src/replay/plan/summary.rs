//! A plan in one sentence, for conditions and Events.

use std::fmt::Write;

use crate::replay::record::{Plan, Windows};

/// What a plan does, in one sentence of which each part is left out when there is nothing to say.
#[must_use]
pub fn summary(plan: &Plan) -> String {
    let Plan {
        hash,
        start,
        start_time,
        target,
        messages,
        bytes: _,
        eta_seconds,
        position,
        truncated,
        gap,
        double_counted,
        windows,
        reason,
        groups,
        read_back,
        known_alerts: _,
    } = plan;
    let mut out = format!("plan {hash}: begins at message {start}");
    let mut say = |text: std::fmt::Arguments<'_>| {
        out.write_fmt(text).expect("a String takes every text");
    };
    if let Some(time) = start_time {
        say(format_args!(" stored at {time}"));
    }
    if let Some(position) = position {
        say(format_args!(" (the position is {position})"));
    }
    say(format_args!(", reads {messages} messages through {target}"));
    if let Some(seconds) = eta_seconds {
        say(format_args!(" in about {seconds} s"));
    }
    let verb = match windows {
        Windows::Kept => "goes on with the windows",
        Windows::Dropped => "drops the windows",
        Windows::Rebuilt => "makes the windows again",
    };
    say(format_args!(", {verb} ({reason}; {groups} groups now)"));
    if let Some(back) = read_back {
        say(format_args!(
            " from message {} on, without alerts before the start",
            back.from
        ));
        if !back.exact {
            say(format_args!(", not exactly: {}", back.inexact_because));
        }
    }
    if *truncated {
        say(format_args!("; what was asked for has left the stream"));
    }
    if *gap > 0 {
        say(format_args!(
            "; jumps over {gap} messages, which give no alerts"
        ));
    }
    if *double_counted > 0 {
        say(format_args!(
            "; counts {double_counted} messages a second time"
        ));
    }
    out
}
