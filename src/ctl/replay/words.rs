//! A plan as people read it.

use lookback_protocol::replay::record::{Plan, Windows};

use crate::ctl::output::{Cell, Fields, Paint, moment};

/// The lines of a plan, without its hash; what costs something stands out.
pub(super) fn say(plan: &Plan, out: &mut Fields) {
    let Plan {
        hash: _,
        start,
        start_time,
        target,
        messages,
        bytes,
        eta_seconds,
        position,
        truncated,
        gap,
        double_counted,
        windows,
        reason,
        groups,
        read_back,
        known_alerts,
    } = plan;
    let stored = start_time.map(|time| format!(", stored at {}", moment(time)));
    out.field(
        "Begins at",
        format!("message {start}{}", stored.unwrap_or_default()),
    );
    let position = match position {
        Some(position) => format!("message {position}"),
        None => "nothing was read yet".to_owned(),
    };
    out.field("Position now", position);
    out.field(
        "Reads",
        format!(
            "{messages} messages through {target}, about {}",
            amount(*bytes)
        ),
    );
    if let Some(seconds) = eta_seconds {
        out.field("Takes", format!("about {seconds} s at the rate seen last"));
    }
    let verb = match windows {
        Windows::Kept => "go on",
        Windows::Dropped => "begin anew",
        Windows::Rebuilt => "are made again",
    };
    out.field("Windows", format!("{verb} ({reason}); {groups} groups now"));
    if let Some(back) = read_back {
        out.more(format!(
            "from message {} on, without alerts before the start",
            back.from
        ));
        match back.exact {
            true => out.more("exactly as one single pass would make them"),
            false => out.more(warning(&format!("not exactly: {}", back.inexact_because))),
        }
    }
    if let Some(known) = known_alerts {
        out.field("Alerts there", known.to_string());
    }
    if *truncated {
        out.field(
            "Note",
            warning("what was asked for has left the stream in part"),
        );
    }
    if *gap > 0 {
        out.field(
            "Note",
            warning(&format!("jumps over {gap} messages, which give no alerts")),
        );
    }
    if *double_counted > 0 {
        let text = format!("counts {double_counted} messages a second time in windows that go on");
        out.field("Note", warning(&text));
    }
}

/// Rounded up, in a unit that leaves it short.
fn amount(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes.div_ceil(1_000)),
        10_000_000..10_000_000_000 => format!("{} MB", bytes.div_ceil(1_000_000)),
        _ => format!("{} GB", bytes.div_ceil(1_000_000_000)),
    }
}

fn warning(text: &str) -> Cell {
    Cell::painted(text, Paint::Warn)
}
